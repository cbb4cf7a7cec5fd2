"""Boxes to masks: mini's weights on photos it never saw, other SAM files by path, and folders with a config."""

import json
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

from taming_core.errors import TamingError
from taming_core.objects.sam_checkpoint import to_published_names
from taming_core.objects.segmenter import (
    CropSettings,
    Segmenter,
    assemble,
    box_in_crop,
    crop,
    encoder,
    load_segmenter,
    paste,
    predict_masks,
    read_state,
    resize,
    sam_from_state,
    snap_to_edges,
    square_around,
)
from taming_core.world.artwork import Pictures, World, load_pictures, load_world
from taming_core.world.photos import Photos, box_of, render
from taming_core.world.plan import Chances


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def pictures(world: World) -> Pictures:
    return load_pictures(world)


@pytest.fixture(scope="module")
def photos(world: World, pictures: Pictures) -> Photos:
    return render(world, pictures, 7, 0, 8, 256, "unseen-concepts", Chances(style=0, two_objects=0.3))


@pytest.fixture(scope="module")
def mini() -> Segmenter:
    return load_segmenter("mini", "cpu")


def boxes_of(photos: Photos, i: int) -> np.ndarray:
    return np.array([s.box_xyxy for s in photos.objects[i]], np.float32)


def tiny_sam() -> Sam:
    torch.manual_seed(0)
    tower = encoder(
        image_size=64, patch_size=8, width=32, depth=3, heads=2, mlp_ratio=2, window=3, global_layers=(1,),
        prompt_width=32,
    )  # fmt: skip
    return assemble(tower, 32, 8, mask_channels=4, mlp_width=16, extra_masks=3, quality_width=8)


def test_mini_cuts_out_objects_it_never_saw(photos: Photos, mini: Segmenter) -> None:
    overlaps = []
    for i, truth in enumerate(photos.masks):
        found = mini(photos.image[i].numpy(), boxes_of(photos, i))
        assert found.masks.shape == truth.shape
        assert ((found.quality >= 0) & (found.quality <= 1)).all()
        both, either = (found.masks & truth.numpy()).sum((1, 2)), (found.masks | truth.numpy()).sum((1, 2))
        overlaps += list(both / either)
    assert np.mean(overlaps) > 0.85


def test_boxes_do_not_disturb_one_another(photos: Photos, mini: Segmenter) -> None:
    boxes = np.array([[10, 20, 120, 200], [100, 30, 250, 160], [0, 0, 256, 256]], np.float32)
    together = mini(photos.image[0].numpy(), boxes)
    for i, box in enumerate(boxes):
        alone = mini(photos.image[0].numpy(), box[None])
        assert (alone.masks[0] != together.masks[i]).mean() < 1e-3
        np.testing.assert_allclose(alone.quality[0], together.quality[i], atol=1e-4)


def test_photos_need_not_be_square(photos: Photos, mini: Segmenter) -> None:
    """Grey bars beside a photo make it wide or tall; the object's mask moves with it and stays the same thing."""
    i = next(i for i, subjects in enumerate(photos.objects) if len(subjects) == 1)
    image, truth = photos.image[i].numpy(), photos.masks[i][0].numpy()
    for axis, shift in ((1, [60, 0, 60, 0]), (0, [0, 60, 0, 60])):
        pads = [(0, 0), (0, 0)]
        pads[axis] = (60, 40)
        wide, wide_truth = np.pad(image, [*pads, (0, 0)], constant_values=128), np.pad(truth, pads)
        found = mini(wide, boxes_of(photos, i) + np.float32(shift))
        assert found.masks.shape == (1, *wide.shape[:2])
        assert (found.masks[0] & wide_truth).sum() / (found.masks[0] | wide_truth).sum() > 0.7


def test_no_boxes_give_no_masks(photos: Photos, mini: Segmenter) -> None:
    found = mini(photos.image[0].numpy(), np.zeros((0, 4), np.float32))
    assert (found.masks.shape, found.quality.shape) == ((0, 256, 256), (0,))


@pytest.mark.parametrize("name", ["weights.pth", "folder"])
def test_another_sam_is_rebuilt_from_its_file(tmp_path: Path, name: str) -> None:
    sam = tiny_sam()
    (tmp_path / "folder").mkdir()
    file = tmp_path / name / "sam.pth" if name == "folder" else tmp_path / name
    torch.save(sam.state_dict(), file)
    image = np.random.default_rng(0).integers(0, 255, (50, 80, 3), np.uint8)
    box = np.array([[5, 5, 60, 40]], np.float32)
    found = load_segmenter(str(tmp_path / name), "cpu")(image, box)
    assert found.masks.shape == (1, 50, 80)
    rebuilt = sam_from_state(sam.state_dict())
    tensor = torch.rand(1, 3, 64, 64)
    assert torch.equal(rebuilt.image_encoder(tensor), sam.image_encoder(tensor))


def test_a_sam_makes_its_masks_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty masks of 3 megapixels are 126 MB; as float32, all at once and in two sizes, they were 900 MB and more."""
    torch.save(tiny_sam().state_dict(), tmp_path / "sam.pth")
    image = np.random.default_rng(0).integers(0, 256, (1536, 2048, 3), np.uint8)
    boxes = np.array([[40 * i, 20, 40 * i + 300, 900] for i in range(40)], np.float32)
    segment = load_segmenter(str(tmp_path / "sam.pth"), "cpu")
    shapes: list[tuple[int, ...]] = []
    interpolate = torch.nn.functional.interpolate

    def counted(x: torch.Tensor, *inputs: Any, **options: Any) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return interpolate(x, *inputs, **options)

    monkeypatch.setattr(torch.nn.functional, "interpolate", counted)
    tracemalloc.start()
    found = segment(image, boxes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.masks.shape == (40, 1536, 2048)
    assert {shape[0] for shape in shapes} == {1}
    assert peak < 3 * found.masks.nbytes


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_published_architectures_are_recognised(name: str) -> None:
    with torch.device("meta"):  # shapes without memory
        published = sam_model_registry[name]()
        rebuilt = sam_from_state(published.state_dict())
    assert str(rebuilt) == str(published)
    windows = [[block.window_size for block in sam.image_encoder.blocks] for sam in (rebuilt, published)]
    heads = [[block.attn.num_heads for block in sam.image_encoder.blocks] for sam in (rebuilt, published)]
    assert windows[0] == windows[1]
    assert heads[0] == heads[1]
    assert rebuilt.image_encoder.img_size == 1024


@torch.no_grad()
def test_a_sam_of_transformers_gives_the_same_masks(tmp_path: Path) -> None:
    """facebook/sam-vit-base and its larger kin are such folders."""
    torch.manual_seed(0)
    vision = SamVisionConfig(
        hidden_size=32, output_channels=32, num_hidden_layers=2, num_attention_heads=2, mlp_dim=48, num_pos_feats=16,
        image_size=64, patch_size=8, window_size=3, global_attn_indexes=[1],
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(hidden_size=32, image_size=64, patch_size=8, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(hidden_size=32, mlp_dim=16, iou_head_hidden_dim=8)
    theirs = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)).eval()
    for weight in theirs.parameters():
        weight.normal_(0, 0.1)
    theirs.save_pretrained(tmp_path)
    ours = sam_from_state(read_state(tmp_path / "model.safetensors")).eval()
    pixels, boxes = torch.randn(2, 3, 64, 64), torch.tensor([[5.0, 7.0, 50.0, 40.0], [20.0, 3.0, 60.0, 60.0]])
    expected = theirs(pixel_values=pixels, input_boxes=boxes[:, None], multimask_output=False)
    logits, quality = predict_masks(ours, ours.image_encoder(pixels), boxes)
    torch.testing.assert_close(logits, expected.pred_masks[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(quality, expected.iou_scores[:, 0], atol=1e-4, rtol=1e-4)
    assert load_segmenter(str(tmp_path), "cpu")(np.zeros((50, 80, 3), np.uint8), boxes.numpy()).masks.shape == (
        2,
        50,
        80,
    )


def test_every_weight_of_a_sam_of_transformers_has_its_place() -> None:
    with torch.device("meta"):
        theirs, ours = SamModel(SamConfig()).state_dict(), sam_model_registry["vit_b"]().state_dict()
    renamed = to_published_names(theirs)
    assert {name: weight.shape for name, weight in renamed.items()} == {n: w.shape for n, w in ours.items()}
    assert to_published_names(ours) == dict(ours)


def test_absent_weights_say_which_file_to_fetch() -> None:
    with pytest.raises(TamingError, match=r"sam_vit_b_01ec64\.pth"):
        load_segmenter("sam_vit_b", "cpu")


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


def test_files_with_code_are_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / "trap2.pth")
    for name in ("trap.pth", "trap2.pth"):
        with pytest.raises(TamingError, match="SAM checkpoint"):
            load_segmenter(str(tmp_path / name), "cpu")
    assert not (tmp_path / "sprung").exists()


def test_other_tensors_are_refused(tmp_path: Path) -> None:
    more, fewer = tiny_sam().state_dict(), tiny_sam().state_dict()
    more["mask_decoder.hf_token.weight"] = torch.zeros(1)  # a relative of SAM
    del fewer["image_encoder.neck.0.weight"]
    for state in ({"weight": torch.zeros(1)}, more, fewer):
        torch.save(state, tmp_path / "other.pth")
        with pytest.raises(TamingError, match="not a SAM checkpoint"):
            load_segmenter(str(tmp_path / "other.pth"), "cpu")


@pytest.mark.parametrize("place", [(3, 5), (60, 70), (0, 0)])
def test_a_square_comes_back_to_its_place(place: tuple[int, int]) -> None:
    picture = torch.zeros(1, 90, 100)
    picture[0, place[1] : place[1] + 15, place[0] : place[0] + 20] = 1
    box = box_of(picture[0] > 0)
    square = square_around(box, 1.3)
    seen = resize(crop(picture, square), 128)
    again = paste(seen, square, 90, 100)
    assert (again != (picture > 0.5)).sum() <= 4
    expected = torch.tensor(box_of(seen[0] > 0.5), dtype=torch.float32)
    assert (box_in_crop(torch.tensor(box, dtype=torch.float32), square, 128) - expected).abs().max() < 3


def test_a_folder_says_how_far_to_zoom(tmp_path: Path) -> None:
    torch.save(tiny_sam().state_dict(), tmp_path / "sam.pth")
    image = np.random.default_rng(0).integers(0, 255, (50, 80, 3), np.uint8)
    boxes = np.array([[5, 5, 20, 40], [60, 30, 80, 50]], np.float32)
    whole = load_segmenter(str(tmp_path), "cpu")(image, boxes)
    (tmp_path / "config.json").write_text(json.dumps({"zoom": 1.5}))
    zoomed = load_segmenter(str(tmp_path), "cpu")(image, boxes)
    assert zoomed.masks.shape == whole.masks.shape == (2, 50, 80)
    assert zoomed.quality.shape == (2,)
    left, top, side = square_around(boxes[0].tolist(), 1.5)
    outside = np.ones((50, 80), bool)
    outside[max(top, 0) : top + side, max(left, 0) : left + side] = False
    assert not zoomed.masks[0][outside].any()
    alone = load_segmenter(str(tmp_path / "sam.pth"), "cpu")(image, boxes)  # a file speaks for itself only
    assert (alone.masks == whole.masks).all()


def test_a_mask_is_drawn_to_where_the_colour_changes() -> None:
    truth = torch.zeros(1, 1, 64, 64)
    truth[..., 20:44, 20:44] = 1
    colours = torch.tensor([1.0, -0.5, 0.3]).view(1, 3, 1, 1), torch.tensor([-0.8, 0.2, 0.9]).view(1, 3, 1, 1)
    picture = truth * colours[0] + (1 - truth) * colours[1]
    rough = torch.zeros(1, 1, 64, 64)
    rough[..., 22:47, 18:42] = 1
    drawn = snap_to_edges(rough, picture, CropSettings(1.3, edge_reach=6, edge_floor=1e-3))
    assert ((drawn > 0.5) != (truth > 0.5)).sum() < 0.1 * ((rough > 0.5) != (truth > 0.5)).sum()
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert torch.equal(snap_to_edges(rough, picture, CropSettings(1.3)), rough)
    plain = snap_to_edges(rough, torch.zeros(1, 3, 64, 64), CropSettings(1.3, edge_reach=1, edge_floor=1e-3))
    assert ((plain > 0.5) != (rough > 0.5)).sum() <= 4  # nothing to draw it to: only its corners are rounded
