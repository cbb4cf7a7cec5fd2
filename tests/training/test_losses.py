"""The terms of the loss, against hand-computed values."""

from pathlib import Path

import pytest
import tiny
import torch
from transformers import CLIPVisionModelWithProjection, Dinov2Model

from taming_core.errors import TamingError
from taming_core.training.identity import load_identity_network
from taming_core.training.losses import (
    denoising_loss,
    identity_loss,
    identity_weights,
    localization_loss,
    mask_weights,
    object_crops,
    snr_weights,
)


def test_weights_inside_the_object_are_larger_and_average_to_one() -> None:
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, :2, :2] = 1  # a quarter of the picture: one of four cells at half the size
    weights = mask_weights(mask, 1.0, (2, 2))
    torch.testing.assert_close(weights[0, 0], torch.tensor([[1.6, 0.8], [0.8, 0.8]]))
    assert torch.equal(weights[1], torch.ones(1, 2, 2))
    assert torch.equal(mask_weights(mask, 0.0, (2, 2)), torch.ones(2, 1, 2, 2))


def test_the_denoising_loss_is_a_weighted_mean_per_sample() -> None:
    predicted, target = torch.zeros(2, 1, 1, 2), torch.tensor([[[[1.0, 2.0]]], [[[3.0, 0.0]]]])
    weights = torch.tensor([[[[0.5, 1.5]]], [[[1.0, 1.0]]]])
    torch.testing.assert_close(denoising_loss(predicted, target, weights), torch.tensor([3.25, 4.5]))


@pytest.mark.parametrize(
    ("prediction", "expected"),
    # SNR 9, 1 and 0 with a gamma of 3.
    [("epsilon", [1 / 3, 1, 1]), ("v_prediction", [0.3, 0.5, 0]), ("sample", [3, 1, 0])],
)
def test_min_snr_weights_the_error_of_the_image_alike_whatever_is_predicted(
    prediction: str, expected: list[float]
) -> None:
    signal = torch.tensor([0.9, 0.5, 0.0])
    torch.testing.assert_close(snr_weights(signal, prediction, 3.0, False), torch.tensor(expected, dtype=torch.float32))
    assert torch.equal(snr_weights(signal, prediction, None, True), torch.ones(3))


@pytest.mark.parametrize(
    ("prediction", "expected"),
    # SNR 9, 1 and 0 with a gamma of 3; unweighted, a velocity has SNR + 1.
    [("epsilon", [1 / 3, 1, 1]), ("v_prediction", [0.3, 1, 1]), ("sample", [3, 2, 1])],
)
def test_min_snr_keeps_the_last_timestep_of_a_schedule_that_ends_in_noise(
    prediction: str, expected: list[float]
) -> None:
    signal = torch.tensor([0.9, 0.5, 0.0])
    found = snr_weights(signal, prediction, 3.0, True)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_the_localization_loss_is_attention_outside_minus_inside() -> None:
    mask = torch.zeros(2, 1, 4, 4)
    mask[:, :, :2, :2] = 1
    mask[1, :, 2:, 2:] = 1
    coarse, fine = torch.tensor([[0.8, 0.1, 0.2, 0.3], [0.8, 0.1, 0.2, 0.4]]), torch.zeros(2, 16)
    fine[0, 0] = 0.4  # one of the four pixels inside
    expected = torch.tensor([(0.2 - 0.8 + 0 - 0.1) / 2, (0.15 - 0.6) / 2])
    torch.testing.assert_close(localization_loss([coarse, fine], mask), expected)
    torch.testing.assert_close(localization_loss([coarse], mask), torch.tensor([0.2 - 0.8, 0.15 - 0.6]))


def test_half_a_cell_of_object_counts_half_on_both_sides_and_a_full_image_has_no_outside() -> None:
    mask = torch.ones(2, 1, 4, 4)
    mask[0, :, :, 2:] = 0
    mask[0, :, :, 1] = 0  # half of each left cell
    found = localization_loss([torch.tensor([[0.6, 0.0, 0.6, 0.0], [0.5, 0.5, 0.5, 0.5]])], mask)
    torch.testing.assert_close(found, torch.tensor([0.6 * 0.5 / 1.5 - 0.6, -0.5]))


def test_the_identity_loss_counts_objects_at_clear_steps_only() -> None:
    signal, t = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([10, 599, 600, 10])
    present = torch.tensor([True, True, True, False])
    torch.testing.assert_close(identity_weights(signal, t, present, 600), torch.tensor([0.9, 0.8, 0.0, 0.0]))


def test_the_identity_loss_is_one_minus_the_cosine() -> None:
    found, wanted = (
        torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
        torch.tensor([[3.0, 0.0], [0.0, -1.0], [1.0, 0.0]]),
    )
    torch.testing.assert_close(identity_loss(found, wanted), torch.tensor([0.0, 2.0, 1 - 0.5**0.5]))


def test_a_crop_shows_the_object_alone_in_its_frame() -> None:
    images, mask = torch.full((1, 3, 16, 16), 0.5), torch.zeros(1, 1, 16, 16)
    images[:, :, 4:8, 8:12] = 1.0
    mask[:, :, 4:8, 8:12] = 1
    tight = object_crops(images, mask, torch.tensor([[8.0, 4.0, 12.0, 8.0]]), 8)
    torch.testing.assert_close(tight[..., 2:-2, 2:-2], torch.ones(1, 3, 4, 4))
    roomy = object_crops(images, mask, torch.tensor([[6.0, 2.0, 14.0, 10.0]]), 8)
    assert roomy[0, 0, 3, 3] == 1
    assert roomy[0, :, 0].abs().max() == 0
    outside = object_crops(images, mask, torch.tensor([[-20.0, -20.0, -4.0, -4.0]]), 8)
    assert not outside.any()


def test_the_identity_network_of_mini_has_its_head_and_passes_gradients() -> None:
    identity = load_identity_network("mini", "cpu")
    images = torch.rand(2, 3, 128, 128, requires_grad=True)
    features = identity(images)
    assert features.shape == (2, 128)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2))
    features.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_any_clip_model_can_be_the_identity_network(tmp_path: Path) -> None:
    folder = tiny.clip(tmp_path / "clip")
    images = torch.rand(2, 3, 32, 32)
    model = CLIPVisionModelWithProjection.from_pretrained(folder)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model_mean(), model_std()))
    expected = model(pixel_values=(images - mean) / std).image_embeds
    torch.testing.assert_close(
        load_identity_network(folder, "cpu")(images * 2 - 1), expected / expected.norm(dim=-1, keepdim=True)
    )


def model_mean() -> tuple[float, ...]:
    """What OpenAI's CLIP was trained on (Radford et al., 2021); folders without a processor are taken to be like it."""
    return 0.48145466, 0.4578275, 0.40821073


def model_std() -> tuple[float, ...]:
    return 0.26862954, 0.26130258, 0.27577711


@pytest.mark.parametrize(("trained_at", "side"), [(32, 32), (518, 224)])
def test_dinov2_can_be_the_identity_network(trained_at: int, side: int, tmp_path: Path) -> None:
    """Its feature is the class token; models trained at 518 pixels are run at 224, as their processors do."""
    folder = tiny.dinov2(tmp_path / "dinov2", trained_at)
    identity = load_identity_network(folder, "cpu")
    images = torch.rand(2, 3, side, side, requires_grad=True)
    model = Dinov2Model.from_pretrained(folder)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model_mean(), model_std()))
    token = model(pixel_values=(images - mean) / std).last_hidden_state[:, 0]
    found = identity(images * 2 - 1)
    torch.testing.assert_close(found, token / token.norm(dim=-1, keepdim=True))
    assert identity(torch.rand(1, 3, 2 * side, 2 * side)).shape == (1, 16)
    found[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_a_folder_of_another_model_is_no_identity_network() -> None:
    with pytest.raises(TamingError, match=r"is a clip_text_model model\. Name a CLIP or DINOv2 model as train\.ident"):
        load_identity_network(str(tiny.ROOT / "taming_core/mini/encoder/text_encoder"), "cpu")


def test_a_missing_identity_network_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"There is no identity network .*nothing"):
        load_identity_network(str(tmp_path / "nothing"), "cpu")
