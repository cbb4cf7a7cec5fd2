"""The copy score and the background leakage, on a cheater that pastes the reference."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_rows import artwork, composed

from taming_core.evaluation.copying import add_copy_scores
from taming_core.evaluation.judges import ImageJudge, load_judge
from taming_core.evaluation.protocol import EvalSubject
from taming_core.evaluation.views import Views, features

THING = 0


@pytest.fixture(scope="module")
def judge() -> ImageJudge:
    return load_judge("mini", "cpu")


def photo(number: int, thing: int = THING) -> tuple[Image.Image, np.ndarray]:
    pixels, mask = composed(artwork(2)[thing], number, tilt=9 * number)
    return Image.fromarray(pixels), mask


def with_mask(number: int) -> Image.Image:
    image, mask = photo(number)
    image.putalpha(Image.fromarray(mask).convert("L"))
    return image


def row(kind: str = "scene", **more: Any) -> dict[str, Any]:
    return {"condition": "ours", "identity": "thing", "kind": kind, **more}


def scores(
    judge: ImageJudge, images: list[tuple[Image.Image, np.ndarray]], rows: list[dict[str, Any]], photos: int = 4
) -> list[dict[str, Any]]:
    nothing = Image.new("RGBA", (4, 4))
    subject = EvalSubject("thing", nothing, nothing, (), None, square_photos=tuple(map(with_mask, range(photos))))
    views = Views([image for image, _ in images], [[mask] if mask.any() else [] for _, mask in images], [subject])
    return add_copy_scores(rows, views, features(judge, views), judge)


def test_a_pasted_reference_is_told_from_a_new_photo(judge: ImageJudge) -> None:
    copy, new = scores(judge, [photo(0), photo(6)], [row(), row()])
    assert copy["copy_score"] > new["copy_score"] + 0.1
    assert copy["background_leakage"] > new["background_leakage"] + 0.1
    assert copy["copy_score"] > 0 > new["copy_score"]


def test_the_seen_background_behind_another_object_is_leakage(judge: ImageJudge) -> None:
    """The other object stands where the seen one does, so that what is left is the same."""
    pixels, _ = composed(artwork(2)[1], 0)
    mask = photo(0)[1] | composed(artwork(2)[1], 0)[1]
    leaked, elsewhere = scores(judge, [(Image.fromarray(pixels), mask), photo(6, thing=1)], [row(), row()])
    assert leaked["background_leakage"] > elsewhere["background_leakage"] + 0.1
    assert leaked["copy_score"] < leaked["background_leakage"]


def test_real_photos_copy_nothing_in_the_mean(judge: ImageJudge) -> None:
    rows = [row("photo", photo=n) for n in range(3)]
    found = scores(judge, [photo(n) for n in (1, 2, 3)], rows)
    assert np.mean([r["copy_score"] for r in found]) == pytest.approx(0, abs=1e-5)


def test_where_nothing_is_found_the_whole_image_is_background(judge: ImageJudge) -> None:
    nothing = np.zeros((128, 128), bool)
    copy, new = scores(judge, [(photo(0)[0], nothing), (photo(6)[0], nothing)], [row(), row()])
    assert copy["background_leakage"] > new["background_leakage"] + 0.1


def test_styles_and_objects_in_one_photo_have_no_copy_score(judge: ImageJudge) -> None:
    assert scores(judge, [photo(0)], [row("style")])[0] == row("style")
    assert scores(judge, [photo(0)], [row()], photos=1)[0] == row()
    assert scores(judge, [photo(1)], [row("photo", photo=0)], photos=2)[0] == row("photo", photo=0)
