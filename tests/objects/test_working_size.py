"""Camera photos: models see them at a working size, boxes are in pixels of the file, small objects keep detail."""

from pathlib import Path

import numpy as np
import pytest
from coloured_photos import COLOURS, P, rows_of
from PIL import Image

from taming_core.objects import subjects
from taming_core.objects.detection import masks_of
from taming_core.objects.filters import Detections, Masks
from taming_core.params.load import load_params, packaged_params
from taming_core.photos.closeup import closeup
from taming_core.photos.decode import read_photo
from taming_core.photos.mask_files import alpha_mask
from taming_core.photos.masks import decode_mask

SIZE = (5000, 4000)
BALL = (1000, 1000, 3500, 3000)
MATERIALIZE = load_params(packaged_params()).materialize


def put_large(path: Path, box: tuple[int, int, int, int] = BALL) -> Path:
    photo = Image.new("RGB", SIZE, (90, 90, 90))
    photo.paste(COLOURS["ball"], box)
    photo.save(path)
    return path


def see(photos):
    """Detections of everything red, and of more boxes that the filters drop without a mask."""
    for photo in photos:
        ys, xs = np.nonzero((photo[..., 0] > 200) & (photo[..., 1] < 60))
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        height, width = photo.shape[:2]
        boxes = [box, [50, 5, 300, height - 5], [0, 50, 500, 500], [box[0] + 9, box[1] + 9, box[0] + 500, box[1] + 500],
                 [5, 5, 40, 40], [2, 2, width - 2, height - 2]]  # fmt: skip
        yield Detections(
            np.array(boxes, np.float32), np.linspace(0.9, 0.5, 6, dtype=np.float32),
            ("ball", "pole", "wall", "patch", "speck", "room"), np.broadcast_to(np.False_, (6, height, width)),
        )  # fmt: skip


class Segment:
    """A segmenter whose masks are the boxes, and which remembers what it was asked for."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.boxes: list[list[int]] = []

    def __call__(self, photo, boxes):
        self.shapes.append(photo.shape)
        self.boxes += boxes.astype(int).tolist()
        masks = np.zeros((len(boxes), *photo.shape[:2]), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
            mask[y0:y1, x0:x1] = True
        return Masks(masks, np.full(len(boxes), 0.75, np.float32))


def test_models_see_the_working_size_and_the_table_has_pixels_of_the_photo(tmp_path):
    put_large(tmp_path / "1.jpg")
    segment = Segment()
    found = rows_of(tmp_path, see, segment, P)
    assert segment.shapes == [(1638, 2048, 3)]
    ball = found[0]
    assert (ball["photo_width"], ball["photo_height"]) == SIZE
    assert np.abs(np.array(ball["box_xyxy"]) - BALL).max() <= 8
    assert decode_mask(ball["mask_png"]).shape == (1638, 2048)
    assert ball["area_fraction"] == pytest.approx(0.25, abs=0.01)
    assert ball["mask_fill"] == pytest.approx(1, abs=0.01)


def test_only_what_its_box_does_not_drop_gets_a_mask(tmp_path):
    put_large(tmp_path / "1.jpg")
    segment = Segment()
    found = rows_of(tmp_path, see, segment, P)
    reasons = {r["class"]: (r["drop_reason"], r["mask_png"] is not None) for r in found}
    assert reasons == {
        "ball": (None, True),
        "pole": ("too thin: 6.51", False),
        "wall": ("cut off: left", False),
        "patch": ("inside another: ball", False),
        "speck": ("too small: 0.000", False),
        "room": ("too large: 0.996", True),  # its mask decides whether it counts as what the others are inside of
    }
    assert len(segment.boxes) == 2


def test_an_empty_mask_is_never_kept(tmp_path):
    put_large(tmp_path / "1.jpg")
    p = P.model_copy(update={"area_min": 0.0, "mask_fill": 0.0})
    rows = rows_of(tmp_path, see, None, p)
    assert rows[0]["drop_reason"] == "too small: 0.000"


def test_a_photo_over_the_limit_names_the_key(tmp_path):
    put_large(tmp_path / "1.jpg")
    (row,) = rows_of(tmp_path, see, Segment(), P.model_copy(update={"max_pixels": 19_999_999}))
    assert row["drop_reason"] == "too many pixels: 5000x4000, over detect.max_pixels"


def checkered(path: Path, box: tuple[int, int, int, int]) -> tuple[Path, np.ndarray]:
    """A large photo of a small object with stripes of a pixel, and its mask at the working size."""
    photo = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    x0, y0, x1, y1 = box
    photo[y0:y1, x0:x1] = 0
    photo[y0:y1, x0:x1:2] = (255, 0, 0)
    Image.fromarray(photo).save(path)
    mask = np.zeros((1638, 2048), bool)
    scale = 2048 / SIZE[0]
    mask[round(y0 * scale) : round(y1 * scale), round(x0 * scale) : round(x1 * scale)] = True
    return path, mask


def test_a_small_object_in_a_large_photo_keeps_its_detail(tmp_path):
    path, mask = checkered(tmp_path / "1.png", (2000, 1500, 2120, 1620))
    photo = read_photo(path)
    image, near = closeup(path, photo, mask, 128, 0.92)
    assert near.shape == image.shape[:2]
    assert max(near.shape) >= 128
    stripes = image[near][:, 0]
    assert (stripes > 250).mean() == pytest.approx(0.5, abs=0.05)  # at the working size all of them are about 128
    assert photo.image[mask][:, 0].std() < 80
    assert np.array_equal(closeup(path, photo, mask, 32, 0.92)[0], photo.image)


def test_generate_cuts_a_small_object_out_of_the_file(tmp_path):
    path, mask = checkered(tmp_path / "1.png", (2000, 1500, 2120, 1620))
    for background in ("removed", "kept"):
        subject = np.asarray(subjects.subject_of(path, None, lambda _image: [mask], MATERIALIZE, background))
        middle = subject[40:88, 40:88, 0].astype(int)
        assert np.abs(np.diff(middle, axis=1)).mean() > 100


def test_the_alpha_channel_of_a_photo_with_broken_exif_is_its_mask(tmp_path):
    photo = np.full((100, 80, 4), 200, np.uint8)
    photo[..., 3] = 0
    photo[20:60, 10:50, 3] = 255
    Image.fromarray(photo).save(tmp_path / "1.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    found = read_photo(tmp_path / "1.png")
    mask = alpha_mask(found)
    assert mask is not None
    assert mask.sum() == 1600
    subject = subjects.subject_of(tmp_path / "1.png", None, lambda _image: [], MATERIALIZE, "removed")
    assert np.asarray(subject)[..., 3].max() == 255


def test_generate_takes_objects_that_detect_drops_for_their_box(tmp_path):
    image = read_photo(put_large(tmp_path / "1.jpg", (0, 0, 1500, 4000))).image
    (found,) = see([image])
    assert len(list(masks_of(image, found, range(3), Segment(), P))) == 3
    find = subjects.finder(see, Segment(), P)
    assert find(image)[0].any()
