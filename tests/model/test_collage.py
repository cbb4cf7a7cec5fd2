"""The collage: latents laid at the boxes of objects, added behind the denoiser's first layer."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import base_pipelines
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from taming_core.errors import TamingError
from taming_core.images.families import load_pipeline
from taming_core.images.placement import attended_boxes, side_by_side
from taming_core.model.collage import CollageLayer, inject_collage, lay, pack, set_collage, unpack
from taming_core.model.object_encoder import latents_side
from taming_core.model.subject_model import subject_model
from taming_core.tables.rows import load_rows
from taming_core.training.batches import ExampleSource, batch_at, training_boxes
from taming_core.training.start import collage_size, continued_pipeline

COLLAGE = {"drop": 0.0, "jitter": 0.0}
LATENTS = torch.arange(32.0).view(1, 1, 2, 4, 4)  # of one image with one object


def test_the_latents_fill_the_square_of_their_box() -> None:
    collage = lay(LATENTS, torch.tensor([[[0.02, 0.02, 0.48, 0.48]]]), (8, 8))[0]  # a square of half the image
    assert torch.equal(collage[:2, :4, :4].round(), LATENTS[0, 0])
    assert torch.equal(collage[2] == 1, collage[2] > 0)
    assert int(collage[2].sum()) == 16
    assert not collage[:, 4:].any()


def test_an_empty_box_lays_nothing_and_a_later_object_covers_an_earlier() -> None:
    both = torch.cat([LATENTS, LATENTS + 100], 1)
    boxes = torch.tensor([[[0.04, 0.04, 0.96, 0.96], [0.0, 0.0, 0.0, 0.0]]])
    assert torch.equal(lay(both, boxes, (4, 4)), lay(LATENTS, boxes[:, :1], (4, 4)))
    boxes[0, 1] = boxes[0, 0]
    assert torch.equal(lay(both, boxes, (4, 4)), lay(LATENTS + 100, boxes[:, :1], (4, 4)))


def test_the_square_is_square_in_an_image_of_any_shape() -> None:
    collage = lay(LATENTS, torch.tensor([[[0.25, 0.1, 0.75, 0.9]]]), (8, 16))[0]  # 8 x 6.4 latents
    rows, columns = (collage[2].sum(0) > 0).sum(), (collage[2].sum(1) > 0).sum()
    assert abs(int(rows) - 8 / 0.92) <= 1
    assert int(columns) == 8


def test_packing_keeps_every_number() -> None:
    tokens, latents = torch.randn(3, 5, 7), torch.randn(3, 4, 6, 6)
    packed = pack(tokens, latents)
    assert packed.shape == (3, 5 + math.ceil(4 * 36 / 7), 7)
    found = unpack(packed, 5, 4, 6)
    assert torch.equal(found[0], tokens)
    assert torch.equal(found[1], latents)


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
def test_an_untrained_collage_changes_nothing_and_a_trained_one_its_image(family: str) -> None:
    made = base_pipelines.tamed(family, "concat")
    first, size = made.family.first_layer, collage_size(made.family)
    latents = torch.randn(2, made.family.latent_channels, 8, 8)
    text = made.family.text(made.family.token_ids(["a dog", "a cat"]))
    guidance = 3.5 if made.family.reads_guidance else None

    def said() -> torch.Tensor:
        with torch.no_grad():
            return made.family.predict(latents, torch.tensor([500, 500]), text, guidance)

    before, layer = said(), CollageLayer(size)
    collage = torch.zeros(2, size.latents + 1, 8, 8)
    collage[0] = 1.0
    inject_collage(first, layer)
    assert torch.equal(said(), before)
    set_collage(first, collage)
    assert torch.equal(said(), before)
    torch.nn.init.normal_(layer.conv.weight)
    after = said()
    assert not torch.equal(after[0], before[0])
    assert torch.allclose(after[1], before[1], atol=1e-5)
    inject_collage(first, None)
    assert torch.equal(said(), before)


def laying() -> Any:
    """A small pipeline whose encoder has a collage that was trained."""
    made = tiny.pipeline("concat")
    made.object_encoder.add_collage(collage_size(made.family))
    torch.manual_seed(3)
    torch.nn.init.normal_(made.object_encoder.collage_layer.conv.weight, std=0.3)
    return made


def drawn(made: Any, prompts: list[str] | str, embeds: torch.Tensor | None = None, **more: Any) -> np.ndarray:
    call = {"num_inference_steps": 3, "output_type": "np", "generator": torch.Generator().manual_seed(0)}
    return made(prompts, object_embeds=embeds, **call, **more).images


def subject() -> Image.Image:
    pixels = np.zeros((tiny.SIDE, tiny.SIDE, 4), np.uint8)
    pixels[4:-4, 4:-4] = (200, 30, 30, 255)
    return Image.fromarray(pixels)


def test_the_object_goes_where_the_box_is() -> None:
    made = laying()
    z = made.encode_objects([subject()])
    side = latents_side(made.object_encoder, made.family)
    tokens = made.object_encoder.config["tokens"]
    assert z.shape[1] == tokens + math.ceil(made.family.latent_channels * side**2 / z.shape[2])
    left, right = (drawn(made, "a <object>", z, object_boxes=[box])
                   for box in ((0.0, 0.25, 0.5, 0.75), (0.5, 0.25, 1.0, 0.75)))  # fmt: skip
    assert not np.array_equal(left, right)
    again = drawn(made, "a <object>", z, object_boxes=[[(0.0, 0.25, 0.5, 0.75)]])
    assert np.array_equal(left, again)


def test_without_an_object_the_image_is_that_of_an_encoder_without_a_collage() -> None:
    assert np.array_equal(drawn(laying(), "a dog"), drawn(tiny.pipeline("concat"), "a dog"))


def test_an_object_without_a_box_gets_a_place() -> None:
    made = laying()
    z = made.encode_objects([subject()])
    found = drawn(made, "a <object>", z)
    middle = drawn(made, "a <object>", z, object_boxes=side_by_side(1))
    assert np.isfinite(found).all()
    assert not np.array_equal(found, middle)
    two = torch.stack([z, z], 1)
    prompt = "a <object> and a <object>"
    assert np.array_equal(drawn(made, prompt, two), drawn(made, prompt, two, object_boxes=side_by_side(2)))


def test_boxes_that_cannot_be_are_refused() -> None:
    made = laying()
    z = made.encode_objects([subject()])
    for boxes, message in (
        ([(0.5, 0.0, 0.4, 1.0)], "does not lie within the image"),
        ([(0.0, 0.0, 1.5, 1.0)], "does not lie within the image"),
        ([(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)], "2 boxes for an image of 1 objects"),
    ):
        with pytest.raises(TamingError, match=message):
            drawn(made, "a <object>", z, object_boxes=boxes)
    with pytest.raises(TamingError, match="there is no object"):
        drawn(made, "a dog", object_boxes=[(0.0, 0.0, 1.0, 1.0)])
    plain = tiny.pipeline("concat")
    with pytest.raises(TamingError, match=r"trained without train\.collage"):
        drawn(plain, "a <object>", plain.encode_objects([subject()]), object_boxes=[(0.0, 0.0, 1.0, 1.0)])


def test_the_attended_region_is_found_over_layers_of_all_sizes() -> None:
    fine, coarse = torch.zeros(2, 8, 16), torch.zeros(2, 4, 8)
    fine[0, 2:6, 4:10], coarse[0, 1:3, 2:5] = 1.0, 1.0
    fine[1, 0:4, 12:16], coarse[1, 0:2, 6:8] = 1.0, 1.0
    noise = torch.rand(2, 8, 16, generator=torch.Generator().manual_seed(0)) * 0.05
    boxes = attended_boxes([(fine + noise + 0.1).flatten(1), (coarse + 0.1).flatten(1)], (8, 16))
    expected = torch.tensor([[4 / 16, 2 / 8, 10 / 16, 6 / 8], [12 / 16, 0, 1, 4 / 8]])
    assert (boxes - expected).abs().max() <= 1 / 8


def test_the_boxes_of_training_surround_the_masks() -> None:
    mask = np.zeros((40, 80), bool)
    mask[10:20, 40:80] = True
    rng = np.random.default_rng(0)
    exact = training_boxes([mask], tiny.train_params(collage=COLLAGE).collage, rng)
    assert exact.tolist() == [[0.5, 0.25, 1.0, 0.5]]
    jittered = [training_boxes([mask], tiny.train_params(collage={"drop": 0.5, "jitter": 0.1}).collage, rng)[0]
                for _ in range(200)]  # fmt: skip
    dropped = sum(not box.any() for box in jittered)
    assert 70 < dropped < 130
    centres = torch.stack([(box[0] + box[2]) / 2 for box in jittered if box.any()])
    assert 0.75 - 0.05 <= centres.min() < 0.73 < 0.77 < centres.max() <= 0.75 + 0.05


def test_training_reads_it_and_resumes_from_its_folder(tmp_path: Path) -> None:
    p = tiny.train_params(collage=COLLAGE)
    made = tiny.pipeline("concat", collage=list(collage_size(tiny.pipeline("concat").family)))
    rows = tiny.write_rows(tmp_path / "rows")
    batch = batch_at(0, ExampleSource.of(subject_model(made.components), load_rows(rows, "train"), p))
    assert batch.boxes is not None
    for count, boxes in zip(batch.object_counts, batch.boxes, strict=True):
        assert bool((boxes[:count, 2] > boxes[:count, 0]).all())
        assert not boxes[count:].any()
    made.save_pretrained(tmp_path / "encoder")
    again = load_pipeline(str(tmp_path / "encoder"))
    torch.testing.assert_close(
        again.object_encoder.collage_layer.conv.weight, made.object_encoder.collage_layer.conv.weight
    )
    with pytest.raises(TamingError, match=r"train\.collage must be set"):
        continued_pipeline(again, tiny.train_params(start=str(tmp_path / "encoder"), collage=None))


def test_a_collage_needs_tokens_and_a_cut_out() -> None:
    fresh = {"start": None, "base": "base", "injection": "concat", "background": "removed"}
    encoder = {"tower": "mini", "projector": "full", "tokens": 256, "tower_blocks": 0}
    for changes in ({"injection": "reference", "encoder": None}, {"background": "kept"}):
        with pytest.raises(ValueError, match=r"train\.collage must be null"):
            tiny.train_params(**{**fresh, "encoder": encoder, "collage": COLLAGE, **changes})


@pytest.mark.parametrize("count", [1, 2, 3])
def test_places_beside_each_other_do_not_overlap(count: int) -> None:
    boxes = side_by_side(count)
    assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in boxes)
    assert all(first[2] <= second[0] for first, second in pairwise(boxes))
