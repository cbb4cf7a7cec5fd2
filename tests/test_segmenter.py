"""Boxes to masks: mini's weights on photos it never saw, and other SAM files by path."""

import os
import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from taming_core.errors import TamingError
from taming_core.pretrained.clip import load_tower
from taming_core.pretrained.segmenter import Segmenter, assemble, encoder, load_segmenter, sam_from_state
from taming_core.world import Chances, Photos, load_world, render

WORLD = Path(__file__).parents[1] / "pipelines" / "mini" / "world"


@pytest.fixture(scope="module")
def photos() -> Photos:
    return render(load_world(WORLD), 7, 0, 8, 256, "unseen_concept", Chances(style=0, two_objects=0.3))


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
    assert np.mean(overlaps) > 0.8


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
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(TamingError, match="not a SAM checkpoint"):
        load_segmenter(str(tmp_path / "other.pth"), "cpu")


@torch.no_grad()
def test_the_image_tower_of_mini_starts_as_clip() -> None:
    train = runpy.run_path(str(WORLD.parent / "segmenter.py"))
    clip, world = load_tower("mini"), load_world(WORLD)
    image = render(world, 11, 0, 4, 128, "unseen_concept").image
    sam = train["build"](clip, world, 0)
    sam.image_encoder.neck = torch.nn.Identity()  # CLIP has none
    started = sam.image_encoder(sam.preprocess(image.permute(0, 3, 1, 2).float())).flatten(2).mT
    seen = clip(pixel_values=train["clip_pixels"](image)).last_hidden_state[:, 1:]
    assert F.cosine_similarity(started, seen, dim=-1).mean() > 0.85
