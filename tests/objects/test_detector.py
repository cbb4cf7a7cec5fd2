"""Photos to objects: mini's weights on photos it never saw, and other YOLO files by path."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from taming_core.errors import TamingError
from taming_core.objects.detector import Detector, load_detector, open_yolo
from taming_core.objects.filters import Detections
from taming_core.objects.ultralytics_offline import import_ultralytics
from taming_core.weights.mini import MINI
from taming_core.world.artwork import Pictures, World, class_nouns, load_pictures, load_world
from taming_core.world.photos import Photos, render
from taming_core.world.plan import Chances


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


@pytest.fixture(scope="module")
def pictures(world: World) -> Pictures:
    return load_pictures(world)


@pytest.fixture(scope="module")
def photos(world: World, pictures: Pictures) -> Photos:
    return render(world, pictures, 7, 0, 16, 256, "unseen-concepts", Chances(style=0, two_objects=0))


@pytest.fixture(scope="module")
def mini() -> Detector:
    return load_detector("mini", "cpu", image_size=160, score_floor=0.1, max_objects=5, with_masks=True)


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inside = np.prod(np.clip(high - low, 0, None))
    return float(inside / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inside))


def assert_well_formed(found: Detections, height: int, width: int) -> None:
    count = len(found.scores)
    assert found.boxes_xyxy.shape == (count, 4)
    assert found.masks.shape == (count, height, width)
    assert len(found.classes) == count
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy <= [width, height, width, height]).all()


def test_mini_finds_objects_it_never_saw(photos: Photos, mini: Detector) -> None:
    overlaps, shapes = [], []
    for i, found in enumerate(mini(list(photos.image.numpy()))):
        assert_well_formed(found, 256, 256)
        assert set(found.classes) <= set(class_nouns())
        overlaps.append(box_iou(found.boxes_xyxy[0], np.array(photos.objects[i][0].box_xyxy)) if found.classes else 0)
        truth = photos.masks[i][0].numpy()
        shapes.append((found.masks[0] & truth).sum() / (found.masks[0] | truth).sum() if found.classes else 0)
    assert np.mean(np.array(overlaps) > 0.5) > 0.8
    assert np.mean(shapes) > 0.6


def test_a_photo_is_read_alone_and_in_company(photos: Photos, mini: Detector) -> None:
    wide = np.pad(photos.image[0].numpy(), [(0, 0), (64, 32), (0, 0)], constant_values=128)
    _, together = mini([photos.image[1].numpy(), wide])
    (alone,) = mini([wide])
    assert_well_formed(alone, 256, 352)
    np.testing.assert_allclose(alone.boxes_xyxy, together.boxes_xyxy, atol=0.1)
    assert alone.classes == together.classes
    assert (alone.masks != together.masks).mean() < 1e-3


def test_boxes_move_with_a_photo_that_is_not_square(photos: Photos, mini: Detector) -> None:
    wide = np.pad(photos.image[0].numpy(), [(0, 0), (64, 32), (0, 0)], constant_values=128)
    (found,) = mini([wide])
    truth = np.array(photos.objects[0][0].box_xyxy) + np.array([64, 0, 64, 0])
    best = max(range(len(found.scores)), key=lambda i: box_iou(found.boxes_xyxy[i], truth))
    assert box_iou(found.boxes_xyxy[best], truth) > 0.5
    x0, y0, x1, y1 = (int(v) for v in found.boxes_xyxy[best].round())
    inside = found.masks[best][y0:y1, x0:x1].sum()
    assert inside > 0.98 * found.masks[best].sum()


def test_scores_and_counts_are_limited(photos: Photos) -> None:
    images = list(photos.image.numpy())
    for found in load_detector("mini", "cpu", 160, score_floor=0.0, max_objects=2)(images):
        assert len(found.scores) == 2
    for found in load_detector("mini", "cpu", 160, score_floor=0.4, max_objects=5)(images):
        assert (found.scores >= 0.4).all()


def test_nothing_found_and_nothing_asked(photos: Photos) -> None:
    detector = load_detector("mini", "cpu", 160, score_floor=0.999, max_objects=5)
    (found,) = detector([photos.image[0].numpy()[:100]])
    assert_well_formed(found, 100, 256)
    assert len(found.scores) == 0
    assert list(detector([])) == []


def test_a_checkpoint_gives_what_the_same_weights_give_from_a_folder(
    photos: Photos, mini: Detector, tmp_path: Path
) -> None:
    open_yolo(MINI / "detector").save(tmp_path / "best.pt")
    images = list(photos.image[:2].numpy())
    for spec in (tmp_path, tmp_path / "best.pt"):
        detector = load_detector(str(spec), "cpu", 160, 0.1, 5, with_masks=True)
        for found, expected in zip(detector(images), mini(images), strict=True):
            assert found.classes == expected.classes
            np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=1.0)  # .pt files are half precision
            assert (found.masks != expected.masks).mean() < 0.01


def test_a_yolo_without_masks_gives_masks_that_are_all_false(tmp_path: Path) -> None:
    torch.manual_seed(0)
    import_ultralytics().YOLO("yolo11n.yaml").save(tmp_path / "plain.pt")
    image = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    (found,) = load_detector(str(tmp_path / "plain.pt"), "cpu", 64, score_floor=0.0, max_objects=3)([image])
    assert_well_formed(found, 80, 120)
    assert len(found.scores) == 3
    assert not found.masks.any()


def test_masks_that_are_not_wanted_are_not_made(photos: Photos, mini: Detector) -> None:
    images = list(photos.image[:2].numpy())
    for found, expected in zip(load_detector("mini", "cpu", 160, 0.1, 5)(images), mini(images), strict=True):
        assert expected.masks.any()
        assert not found.masks.any()
        assert found.masks.strides[0] == 0  # a view of one value
        assert np.array_equal(found.boxes_xyxy, expected.boxes_xyxy)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.target),)


def test_files_with_code_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    (tmp_path / "noise.pt").write_bytes(b"not a checkpoint")
    for name in ("trap.pt", "noise.pt"):
        with pytest.raises(TamingError, match="YOLO checkpoint"):
            load_detector(str(tmp_path / name), "cpu", 64, 0.1, 5)
    assert not (tmp_path / "sprung").exists()


def test_absent_weights_say_which_file_to_fetch() -> None:
    with pytest.raises(TamingError, match=r"yolo11n-seg\.pt"):
        load_detector("yolo11n-seg.pt", "cpu", 64, 0.1, 5)
