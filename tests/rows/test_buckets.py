"""Aspect-ratio buckets: photos keep their shape, a batch holds one, and every row is seen as often as any other."""

import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from pydantic import ValidationError

from stages.materialize import materialize
from taming_core.evaluation.protocol import square_photo
from taming_core.fingerprints import fingerprint
from taming_core.model.subject_model import subject_model
from taming_core.params.load import load_params
from taming_core.params.sections import MaterializeParams
from taming_core.photos.files import photo_id_of
from taming_core.photos.masks import encode_mask, mask_box, window
from taming_core.rows.triplets import subject, target
from taming_core.tables import schema
from taming_core.tables.row_images import encoder_image, open_mask, open_rgba
from taming_core.tables.rows import Rows, load_rows
from taming_core.training import loop
from taming_core.training.batches import batch_at, image_sides, square_size
from taming_core.training.losses import grid_of, localization_loss, object_crops
from taming_core.training.sampler import bucket_at, row_at, shuffled_index

SQUARE, WIDE, TALL = (32, 32), (48, 24), (24, 48)


def materializing(**values: Any) -> MaterializeParams:
    known = {"size": 32, "subject_size": 32, "buckets": [list(b) for b in (SQUARE, WIDE, TALL)]}
    return MaterializeParams.model_validate({**tiny.PARAMS.materialize.model_dump(), **known, **values})


P = materializing()


def shaped(row: dict[str, Any], identity: int, view: int, shape: tuple[int, int]) -> dict[str, Any]:
    """The row as of a photo twice as large as a bucket of this shape."""
    photo, mask = tiny.picture(identity, view)
    size = shape[0] * 2, shape[1] * 2
    photo, mask = (np.asarray(Image.fromarray(x).resize(size)) for x in (photo, mask))
    pictures = {} if row["regularization"] else subject(photo, mask, P, mask_box(mask))
    return {**row, **target(photo, P, None if row["regularization"] else mask_box(mask)), **pictures}


def write(folder: Path, objects: dict[tuple[int, int], int], regularization: dict[tuple[int, int], int]) -> Rows:
    """So many rows of each shape."""
    made, number = [], 0
    for kind, shapes in (("object", objects), ("regularization", regularization)):
        for shape, count in shapes.items():
            for _ in range(count):
                plain = tiny.row(number, 0, 1, "train") if kind == "object" else tiny.regularization_row(number)
                made.append(shaped(plain, number, 0, shape))
                number += 1
    schema.write([schema.table(made, schema.ROWS)], schema.ROWS, folder / "train-00000.parquet")
    return load_rows(folder, "train")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Objects in two shapes, regularization rows in two, of which one is shared."""
    return write(tmp_path_factory.mktemp("rows"), {SQUARE: 7, WIDE: 4}, {WIDE: 2, TALL: 3})


def test_rows_know_their_buckets(rows: Rows) -> None:
    found = {(b.width, b.height): (b.objects.tolist(), b.regularization.tolist()) for b in rows.buckets}
    assert found == {TALL: ([], [13, 14, 15]), SQUARE: ([*range(7)], []), WIDE: ([7, 8, 9, 10], [11, 12])}
    assert all(open_rgba(rows[i]["image"]).size == (rows[i]["width"], rows[i]["height"]) for i in (0, 8, 15))
    assert open_mask(rows[8]).shape == (24, 48)
    assert (square_size(rows), image_sides(rows)) == (32, [24, 32, 48])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6])
def test_every_row_is_seen_as_often_as_any_other_of_its_kind_and_a_batch_holds_one_bucket(
    rows: Rows, share: float
) -> None:
    p, steps = tiny.train_params(regularization=share), 1000
    batches = [[row_at(rows, step * 4 + n, p) for n in range(4)] for step in range(steps)]
    of = {int(n): i for i, b in enumerate(rows.buckets) for n in (*b.objects, *b.regularization)}
    assert all(len({of[n] for n in batch}) == 1 for batch in batches)
    count = Counter(n for batch in batches for n in batch)
    expected = {**dict.fromkeys(range(11), (1 - share) / 11), **dict.fromkeys(range(11, 16), share / 5)}
    for number, wanted in expected.items():
        assert abs(count[number] - wanted * 4 * steps) <= 8  # two batches
    kinds = [of[batch[0]] for batch in batches]
    for bucket in set(kinds):  # spread evenly, not one after the other
        turns = np.cumsum([k == bucket for k in kinds])
        assert np.abs(turns - turns[-1] / steps * np.arange(1, steps + 1)).max() <= 3


def test_of_each_bucket_no_turn_is_left_out(rows: Rows) -> None:
    p, turns = tiny.train_params(regularization=0.3), Counter[int]()
    for step in range(200):
        bucket, _, earlier = bucket_at(rows, step, p)
        assert earlier == turns[bucket.width]
        turns[bucket.width] += 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.9])
def test_with_one_bucket_the_order_is_that_of_the_rows_alone(tmp_path: Path, share: float) -> None:
    one = load_rows(tiny.write_rows(tmp_path), "train")
    p = tiny.train_params(regularization=share)
    for n in range(200):
        earlier = int(n * share)
        if int((n + 1) * share) > earlier:
            expected = one.regularization[shuffled_index(len(one.regularization), p.seed, "general order", earlier)]
        else:
            expected = one.objects[shuffled_index(len(one.objects), p.seed, "order", n - earlier)]
        assert row_at(one, n, p) == expected


def test_training_goes_through_all_buckets_and_micro_batches_add_up(rows: Rows) -> None:
    values = {
        "regularization": 0.25,
        "localization_weight": 1.0,
        "steps": 2,
        "identity_weight": 0.5,
        "object_drop": 0.0,
    }
    found = []
    for size in (4, 2):
        p = tiny.train_params(micro_batch_size=size, **values)
        run = loop.start_run(
            subject_model(tiny.pipeline("concat").components), shrunk, loop.accelerator_for("cpu", "fp32"), p
        )
        make = partial(batch_at, source=tiny.source(rows, p))
        shapes = [make(step).mask.shape[2:] for step in range(2)]
        assert len(set(shapes)) > 1
        found.append([(r.losses.loss, r.losses.localization) for r in loop.train(run, p, make)])
    assert found[1] == [pytest.approx(f, rel=1e-4) for f in found[0]]
    assert all(math.isfinite(loss) for loss, _ in found[0])


def shrunk(images: torch.Tensor) -> torch.Tensor:
    """A network for the identity loss: what an image looks like from afar."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)


def test_attention_is_compared_with_the_mask_in_its_own_shape() -> None:
    for size in (SQUARE, WIDE, TALL, (96, 32)):
        width, height = size
        assert [grid_of(width * height // 4**n, (height, width)) for n in range(3)] == [
            (height // 2**n, width // 2**n) for n in range(3)
        ]
    mask = torch.zeros(1, 1, 24, 48)
    mask[..., :12] = 1  # the left quarter
    inside = torch.zeros(3, 6)
    inside[:, :1] = 1
    inside[:, 1] = 0.5
    shares = inside.flatten()[None]
    whole = torch.nn.functional.adaptive_avg_pool2d(mask, (3, 6)).flatten(1)
    expected = (shares * (1 - whole)).sum() / (1 - whole).sum() - (shares * whole).sum() / whole.sum()
    assert localization_loss([shares], mask) == pytest.approx(float(expected))
    assert localization_loss([whole], mask) < -0.6


def test_the_object_is_framed_alike_in_every_shape(rows: Rows) -> None:
    p = tiny.train_params(regularization=0.0, object_drop=0.0, cross_reference=0.0)
    for step in range(4):
        batch = batch_at(step, tiny.source(rows, p))
        assert batch.target is not None
        crops = object_crops(batch.target, batch.mask, batch.frame, tiny.SIDE)
        assert (crops - batch.view).abs().mean() < 0.15
        assert (crops - batch.view).abs().mean() < 0.5 * (crops - batch.view.roll(1, 0)).abs().mean()
    for number in (0, 8):  # in its photo it is where its cut-out has it
        cut, kept = (np.asarray(encoder_image(rows[number], b), np.float32) for b in ("removed", "kept"))
        inside = cut[..., 3] == 255
        assert np.abs(cut - kept)[inside].mean() < 12


def test_judges_see_the_square_around_the_object(rows: Rows) -> None:
    for number in (0, 8):
        row = rows[number]
        photo = square_photo(row)
        assert photo.size == (min(row["width"], row["height"]),) * 2
        left, _, right, _ = window(row["width"], row["height"], (1, 1), mask_box(open_mask(row)))
        assert photo == open_rgba(row["image"]).convert("RGB").crop((left, 0, right, row["height"]))


def write_photos(folder: Path, shapes: list[tuple[int, int]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Photos of these shapes, and the rows of both tables for them."""
    objects, captions = [], []
    for number, shape in enumerate(shapes):
        photo, mask = (np.asarray(Image.fromarray(x).resize(shape)) for x in tiny.picture(number, 0))
        name = f"{number}.png"
        (folder / "raw").mkdir(exist_ok=True)
        Image.fromarray(photo).save(folder / "raw" / name)
        known = {"photo_id": photo_id_of(folder / "raw" / name), "file_name": name, "class": "toy"}
        known["object_id"] = f"{known['photo_id']}-0"
        found = {"photo_width": shape[0], "photo_height": shape[1], "identity": name, "mask_png": encode_mask(mask)}
        objects.append({**dict.fromkeys(schema.OBJECTS.names), **known, **found, "box_xyxy": list(mask_box(mask))})
        said = {"caption": "a photo of a toy", "object_caption": "a photo of <object>"}
        captions.append({**dict.fromkeys(schema.CAPTIONS.names), **known, **said})
    return objects, captions


def test_materialize_gives_each_photo_the_bucket_nearest_to_its_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shapes = [(100, 100), (200, 100), (80, 150), (110, 100)]
    objects, captions = write_photos(tmp_path, shapes)
    for name, made, expected in (("objects", objects, schema.OBJECTS), ("captions", captions, schema.CAPTIONS)):
        schema.write([schema.table(made, expected)], expected, tmp_path / f"{name}.parquet")
    text = (tiny.ROOT / "params.yaml").read_text()
    wanted = "\n  size: 32\n  buckets: [[32, 32], [48, 24], [24, 48]]\n  subject_size"
    changed = text.replace("\n  size: 128\n  buckets: null\n  subject_size", wanted)
    changed = changed.replace("validation: 0.15\n  test: 0.35", "validation: 0.0\n  test: 0.0")
    Path("params.yaml").write_text(changed)
    assert load_params(Path("params.yaml")).materialize.buckets is not None
    materialize(Path("raw"), Path("objects.parquet"), Path("captions.parquet"), None, Path("rows"), None)
    rows = load_rows(Path("rows"), "train")
    found = {rows[i]["file_name"]: open_rgba(rows[i]["image"]).size for i in range(len(rows))}
    assert found == {"0.png": SQUARE, "1.png": WIDE, "2.png": TALL, "3.png": SQUARE}
    assert sorted(zip(rows.column("width"), rows.column("height"), strict=True)) == [TALL, SQUARE, SQUARE, WIDE]


@pytest.mark.parametrize(
    ("buckets", "words"),
    [
        ([], r"must be null or contain \[32, 32\]"),
        ([[48, 24]], r"must be null or contain \[32, 32\]"),
        ([[32, 32], [48, 24], [48, 24]], "not list a bucket twice"),
        ([[32, 32], [48]], "at least 2 items"),
    ],
)
def test_buckets_that_cannot_be_meant_are_refused(buckets: list[list[int]], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        materializing(buckets=buckets)


def test_buckets_make_other_rows() -> None:
    assert fingerprint(materializing()) != fingerprint(materializing(buckets=None))
