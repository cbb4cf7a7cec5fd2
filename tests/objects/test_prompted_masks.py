"""Masks where a person points: by the same segmenter as detection, mini's by boxes, a published SAM by points too."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from small_rows import artwork, composed

from taming_core.errors import TamingError
from taming_core.objects.prompted_masks import MaskPrompt, load_prompted_segmenter, prompted_mask
from taming_core.objects.segmenter import assemble, encoder, load_segmenter, segment
from taming_core.params.load import load_params
from taming_core.photos.masks import mask_box

P = load_params(Path(__file__).parents[2] / "params.yaml").detect
IMAGE, TRUE = composed(artwork(1)[0], 0)
BOX = mask_box(TRUE)


def test_a_box_makes_the_mask_of_detection() -> None:
    mask = load_prompted_segmenter(P, "cpu")(IMAGE, MaskPrompt(box_xyxy=BOX))
    detected = load_segmenter("mini", "cpu")(IMAGE, np.array([BOX], np.float32)).masks[0]
    assert (mask & ~detected).sum() == 0  # specks are gone
    assert (mask & TRUE).sum() / (mask | TRUE).sum() > 0.8


def test_points_on_the_edges_are_a_box_to_a_segmenter_of_boxes() -> None:
    find = load_prompted_segmenter(P, "cpu")
    corners = (BOX[0], BOX[1]), (BOX[2], BOX[3])
    assert np.array_equal(find(IMAGE, MaskPrompt(inside=corners)), find(IMAGE, MaskPrompt(box_xyxy=BOX)))
    with pytest.raises(TamingError, match="one point is none"):
        find(IMAGE, MaskPrompt(inside=((50, 50),)))
    with pytest.raises(TamingError, match="no points beside"):
        find(IMAGE, MaskPrompt(inside=corners, outside=((1, 1),)))


def test_masks_of_the_detector_take_no_prompt() -> None:
    with pytest.raises(TamingError, match=r"Set it to a SAM"):
        load_prompted_segmenter(P.model_copy(update={"segmenter": "detector"}), "cpu")


def test_a_sam_sees_points_inside_and_outside() -> None:
    torch.manual_seed(0)
    tower = encoder(image_size=64, patch_size=16, width=16, depth=1, heads=2, mlp_ratio=2, window=2,
                    global_layers=(0,), prompt_width=16)  # fmt: skip
    sam = assemble(tower, 16, 4, mask_channels=4, mlp_width=32, quality_width=16).eval()
    by_sam = partial(segment, SamPredictor(sam))
    prompts = [MaskPrompt(((40, 40),)), MaskPrompt(((40, 40),), ((90, 90),)), MaskPrompt(box_xyxy=BOX)]
    masks = [prompted_mask(by_sam, IMAGE, prompt, P) for prompt in prompts]
    assert {mask.shape for mask in masks} == {IMAGE.shape[:2]}
    assert len({mask.tobytes() for mask in masks}) == 3
