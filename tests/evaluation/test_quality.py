"""CMMD and KID on distributions with a known answer."""

from math import exp, sqrt

import numpy as np
import pytest
import torch

from taming_core.evaluation import quality
from taming_core.evaluation.intervals import Estimate
from taming_core.evaluation.quality import KERNELS, discrepancy
from taming_core.evaluation.views import ViewFeatures


def unit(count: int, seed: int, shift: float = 0) -> np.ndarray:
    """Directions (count, 16), gathered around the first axis by `shift`."""
    found = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    found[:, 0] += shift
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def between(x: np.ndarray, y: np.ndarray, name: str) -> float:
    return discrepancy(*(KERNELS[name](np.float64(a @ b.T)) for a, b in ((x, x), (x, y), (y, y))))


def test_two_points_have_the_distance_of_their_kernel() -> None:
    one, two = np.eye(2)[[0, 0, 0]], np.eye(2)[[1, 1]]
    assert between(one, two, "kid") == pytest.approx(8 + 8 - 2 * 1)
    assert between(one, two, "cmmd") == pytest.approx(2000 * (1 - exp(-2 / (2 * 10**2))))


def test_the_discrepancy_of_two_gaussians_is_the_closed_form() -> None:
    """Of N(0, 1) and N(2, 1), with a Gaussian kernel of sigma 1."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, 3000)[:, None], rng.normal(2, 1, 2000)[:, None]
    kernels = (np.exp(-((a - b.T) ** 2) / 2) for a, b in ((x, x), (x, y), (y, y)))
    assert discrepancy(*kernels) == pytest.approx(2 * sqrt(1 / 3) * (1 - exp(-4 / 6)), abs=0.05)


@pytest.mark.parametrize("name", ["cmmd", "kid"])
def test_of_one_distribution_the_mean_is_zero_however_few_there_are(name: str) -> None:
    found = [between(unit(6, 2 * i), unit(9, 2 * i + 1), name) for i in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / sqrt(len(found))
    apart = [between(unit(6, 2 * i, shift=3), unit(9, 2 * i + 1), name) for i in range(20)]
    assert np.mean(apart) > 3 * np.std(found)


def test_kid_is_that_of_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = unit(20, 0, shift=1), unit(20, 1)
    assert between(x, y, "kid") == pytest.approx(
        kid.poly_mmd(torch.tensor(y), torch.tensor(x), gamma=1.0).item(), abs=1e-4
    )


def features(objects: int) -> tuple[list[dict[str, str]], ViewFeatures]:
    names = [f"thing-{i}" for i in range(objects)]
    images = np.concatenate([unit(4, i, shift=1) for i in range(objects)])
    photos = {name: unit(3, 99 + i) for i, name in enumerate(names)}
    rows = [{"condition": "ours", "identity": name, "kind": "scene"} for name in names for _ in range(4)]
    return rows, ViewFeatures(images, [], photos, photos)


def test_the_interval_is_over_objects_and_styles_do_not_count() -> None:
    rows, f = features(6)
    summary = {"ours": {"dino": Estimate(1, 1, 1, 1)}, "real_photos": {}}
    found = quality.add_quality(summary, rows, f, "cmmd")
    assert set(found["ours"]) == {"dino", "cmmd"}
    assert found["real_photos"] == {}
    e = found["ours"]["cmmd"]
    assert e.mean == pytest.approx(between(f.images, np.concatenate(list(f.photos.values())), "cmmd"), rel=1e-3)
    assert -40 < e.low < e.mean < e.high < 40
    assert e.count == 24
    styles = [{**row, "kind": "style"} for row in rows[:4]] + rows[4:]
    assert quality.add_quality(summary, styles, f, "cmmd")["ours"]["cmmd"].count == 20


def test_the_interval_of_a_single_object_is_the_whole_range() -> None:
    rows, f = features(1)
    found = quality.add_quality({"ours": {}}, rows, f, "kid")["ours"]["kid"]
    assert (found.low, found.high) == (-16, 16)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=20)
    without = [(x.sum() - v) / 19 for v in x]
    assert quality.jackknife_error(without) == pytest.approx(x.std(ddof=1) / sqrt(20))


def test_without_a_name_nothing_is_added() -> None:
    rows, f = features(2)
    assert quality.add_quality({"ours": {}}, rows, f, None) == {"ours": {}}
