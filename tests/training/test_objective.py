"""Sample weights: what a sample counts does not depend on which others are in its batch."""

import pytest
import tiny
import torch
from torch import Tensor

from taming_core.model.diffusion import alpha_bar
from taming_core.model.subject_model import subject_model
from taming_core.training.objective import SampleWeights, compute_sample_weights

MODEL = subject_model(tiny.pipeline().components)


def identity(images: Tensor) -> Tensor:
    return images.flatten(1)


def weights(timesteps: list[int], present: list[bool]) -> SampleWeights:
    p = tiny.train_params(identity_max_timestep=600)
    return compute_sample_weights(MODEL, identity, torch.tensor(present).int(), torch.tensor(timesteps), p)


@pytest.mark.parametrize("t", [10, 300, 590])
def test_the_identity_loss_of_a_lone_sample_is_weighted_by_its_signal(t: int) -> None:
    signal = float(alpha_bar(MODEL.schedule, torch.tensor([t])))
    assert float(weights([t], [True]).identity) == pytest.approx(signal)
    # Beside a clear sample, one that is too noisy, and one without an object: a third of it.
    assert float(weights([t, 10, 900, 10], [True, True, True, False]).identity[0]) == pytest.approx(signal / 3)


def test_no_object_and_no_clear_timestep_have_no_identity_loss() -> None:
    assert weights([10, 20], [False, False]).identity.tolist() == [0, 0]
    assert weights([700, 800], [True, True]).identity.tolist() == [0, 0]


def test_min_snr_leaves_the_timestep_where_sampling_starts_its_weight() -> None:
    p = tiny.train_params(min_snr=5.0)  # the schedule has zero terminal SNR
    last = torch.tensor([999, 999])
    found = compute_sample_weights(MODEL, None, torch.ones(2, dtype=torch.int), last, p)
    torch.testing.assert_close(found.denoising, torch.tensor([0.5, 0.5]))
    plain = compute_sample_weights(MODEL, None, torch.ones(2, dtype=torch.int), last, tiny.train_params())
    assert torch.equal(found.denoising, plain.denoising)
