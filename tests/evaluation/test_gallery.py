"""Images are compared with the photos that the encoder did not see, and a real photo not with itself."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_rows import artwork, row

from taming_core.evaluation import protocol, scoring
from taming_core.evaluation.gallery import Gallery, gallery, known_objects, likeness, of_views, reference_weights
from taming_core.evaluation.protocol import IdentityViews
from taming_core.tables import schema
from taming_core.tables.rows import load_rows

EYE = np.eye(6, dtype=np.float32)


def colours(images: Sequence[Image.Image]) -> np.ndarray:
    """A judge whose features are the colours in the middle."""
    middle = np.float32([i.convert("RGB").getpixel((i.width // 2, i.height // 2)) for i in images])
    return middle / np.linalg.norm(middle, axis=1, keepdims=True)


def plain(*colour: int) -> Image.Image:
    return Image.new("RGBA", (8, 8), (*colour, 255))


RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def made(**views: Sequence[tuple[int, int, int]]) -> Gallery:
    """Identities by the colours of their photos, that of the seen one first."""
    cutouts = {name: [plain(*colour) for colour in photos] for name, photos in views.items()}
    identities = (IdentityViews(name, seen, tuple(others)) for name, (seen, *others) in cutouts.items())
    return of_views(identities, colours, lambda cutout: [cutout])


def compared(image: tuple[int, int, int], g: Gallery, identity: str, **about: Any) -> tuple[float, float, list[float]]:
    found = likeness(colours([plain(*image)]), [{"identity": identity, **about}], g)
    return float(found.own[0]), float(found.seen[0]), found.all[0].tolist()


def test_a_copy_of_the_seen_picture_is_no_fidelity() -> None:
    """It was a perfect one: the gallery held the very picture that the encoder saw."""
    g = made(a=[RED, GREEN], b=[BLUE, BLUE])
    assert compared(RED, g, "a") == (0, 1, [0, 0])
    assert compared(GREEN, g, "a") == (1, 0, [1, 0])


def test_the_mean_over_the_other_photos_counts() -> None:
    own, seen, everyone = compared(GREEN, made(a=[RED, GREEN, BLUE], b=[RED, RED]), "a")
    assert (own, seen, everyone) == (pytest.approx(0.5), 0, [pytest.approx(0.5), 0])


def test_without_other_photos_the_seen_one_has_to_do() -> None:
    assert compared(RED, made(a=[RED], b=[BLUE, GREEN]), "a") == (1, 1, [1, 0])


def test_a_real_photo_is_compared_with_those_that_it_is_not() -> None:
    g = made(a=[RED, GREEN, BLUE], b=[BLUE, BLUE])
    assert compared(GREEN, g, "a", photo=0) == (0, 0, [0, 0])  # not with itself
    assert compared(GREEN, g, "a", photo=1) == (1, 0, [1, 0])  # as if it were the blue one
    assert compared(GREEN, made(a=[RED, GREEN], b=[BLUE]), "a", photo=0) == (0, 0, [0, 0])  # with the seen one
    assert reference_weights(g, 0, 5).tolist() == [0, 0.5, 0.5, 0, 0]  # a photo that is no reference


def test_the_best_pose_of_each_photo_counts() -> None:
    g = Gallery({"a": 0, "b": 1}, EYE[[[0, 1], [2, 3], [4, 5]]], np.array([0, 0, 1]))
    assert likeness(EYE[[3]], [{"identity": "a"}], g).all.tolist() == [[1, 0]]
    assert likeness(EYE[[1]], [{"identity": "a"}], g).seen.tolist() == [1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Held-out identities of one, three and six photos, and one of the training split."""
    for split, counts in (("test", {0: 1, 1: 3, 2: 6}), ("train", {3: 4})):
        rows = [row(artwork(4)[i], f"thing-{i}", view, split) for i, n in counts.items() for view in range(n)]
        for r in rows:
            r["references"] = [o["row_id"] for o in rows if o["identity"] == r["identity"] and o is not r]
        schema.write([schema.table(rows, schema.ROWS)], schema.ROWS, tmp_path / f"{split}-00000.parquet")
    return tmp_path


def test_the_gallery_is_of_a_few_photos_of_every_held_out_identity(folder: Path) -> None:
    known = known_objects(folder, "test", colours)
    assert known.held_out.indices == {"thing-0": 0, "thing-1": 1, "thing-2": 2}
    assert known.held_out.owners.tolist() == [0] + [1] * 3 + [2] * (1 + protocol.REFERENCES)
    assert known.held_out.features.shape == (8, 1, 3)
    assert known.others.shape == (1, 3)
    posed = gallery(folder, "test", colours, lambda cutout: [cutout, cutout.rotate(90)])
    assert posed.features.shape == (8, 2, 3)


def test_photos_are_numbered_as_in_the_gallery(folder: Path) -> None:
    rows = load_rows(folder, "test")
    numbers = protocol.rows_of_identities(rows)["thing-2"]
    subject = protocol.eval_subject(rows, "thing-2", numbers, "removed")
    views = next(v for v in protocol.identity_views(folder, "test") if v.identity == "thing-2")
    assert len(subject.others) == len(subject.photos) == 5
    for other, view in zip(subject.others, views.others, strict=False):
        assert np.array_equal(np.asarray(other), np.asarray(view))
    assert np.array_equal(np.asarray(subject.reference()), np.asarray(subject.others[0]))
    assert np.array_equal(np.asarray(subject.reference(0)), np.asarray(subject.others[1]))


def test_near_duplicates_of_the_seen_photo_are_no_other_photos(folder: Path) -> None:
    rows = load_rows(folder, "test")
    seen = {**rows[1], "references": ["thing-1-2"]}  # as `taming materialize` leaves a near-duplicate out
    assert [r["row_id"] for r in protocol.other_photos(rows, seen)] == ["thing-1-2"]


def test_rows_say_what_they_were_compared_with(folder: Path) -> None:
    rows = load_rows(folder, "test")
    numbers = protocol.rows_of_identities(rows)
    subjects = [protocol.eval_subject(rows, i, numbers[i], "removed") for i in ("thing-0", "thing-1")]
    made = scoring.image_rows([], subjects)
    assert [(r["identity"], r["photo"], r["other_photos"]) for r in made] == [("thing-1", 0, 1), ("thing-1", 1, 1)]
    assert subjects[0].others == ()
    assert np.array_equal(np.asarray(subjects[0].reference()), np.asarray(subjects[0].subject))


def test_the_subject_that_the_encoder_sees_is_the_first_row(folder: Path) -> None:
    rows = load_rows(folder, "test")
    first = Image.open(BytesIO(rows[1]["subject"])).convert("RGBA")
    views = next(v for v in protocol.identity_views(folder, "test") if v.identity == "thing-1")
    assert np.array_equal(np.asarray(views.seen), np.asarray(first))
