"""LPIPS and DreamSim: what is compared, the packages called directly, and weights that are not there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from taming_core.errors import TamingError
from taming_core.evaluation import perceptual
from taming_core.evaluation.perceptual import ImagePair, add_lpips, load_dreamsim, load_lpips
from taming_core.evaluation.protocol import EvalSubject
from taming_core.evaluation.views import Views

FILE = "squeezenet1_1-b8a52dc0.pth"


def noise(seed: int, size: tuple[int, int] = (90, 120)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8))


def of_brightness(pairs: Sequence[ImagePair]) -> np.ndarray:
    """A distance: the difference of mean brightness."""
    return np.float32([abs(np.mean(a) - np.mean(b)) for a, b in pairs])


def grey(value: int, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (4, 4), (value,) * 3).convert(mode)


def row(**more: Any) -> dict[str, Any]:
    return {"condition": "ours", "identity": "thing", "kind": "scene", **more}


def scored(rows: list[dict[str, Any]], images: list[int]) -> list[dict[str, Any]]:
    photos = tuple(grey(v, "RGBA") for v in (10, 20, 40))
    subject = EvalSubject("thing", photos[0], photos[0], (), None, square_photos=photos)
    return add_lpips(rows, Views([grey(v) for v in images], [[]] * len(images), [subject]), of_brightness)


def test_lpips_is_to_the_other_photos_and_to_the_seen_one() -> None:
    drawn, real = scored([row(prompt="a"), row(photo=0)], [10, 20])
    assert (drawn["lpips"], drawn["lpips_seen"]) == (20, 0)
    assert (real["lpips"], real["lpips_seen"]) == (20, 10)  # a photo is not compared with itself
    assert "diversity_lpips" not in drawn


def test_diversity_is_among_the_images_of_one_prompt() -> None:
    rows = [row(prompt=p) for p in ("a", "a", "a", "b")] + [row(prompt="a", condition="no_object"), row(photo=0)]
    found = [r.get("diversity_lpips") for r in scored(rows, [0, 30, 60, 90, 90, 20])]
    assert found == [40, 40, 40, None, None, None]


def test_there_may_be_no_images_at_all() -> None:
    assert perceptual.in_pairs(of_brightness, iter(())).shape == (0,)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights of torchvision."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_lpips_equals_torchmetrics_called_directly(hub: Path) -> None:
    lpip = pytest.importorskip("torchmetrics.image.lpip")
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), hub / FILE)
    pairs = [(noise(i), noise(50 + i, (64, 64))) for i in range(5)] + [(noise(0), noise(0))]
    found = load_lpips("squeeze", "cpu")(pairs)
    metric = lpip.LearnedPerceptualImagePatchSimilarity(net_type="squeeze")
    expected = [metric(*(perceptual.lpips_pixels([i]) for i in pair)).item() for pair in pairs]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[-1] == 0 < found[:-1].min()


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_weights_of_lpips_that_are_absent_are_named(hub: Path, net: str) -> None:
    with pytest.raises(TamingError, match=rf"evaluate\.scores\.lpips is {net}, .*checkpoints.*Download https://.*pth"):
        load_lpips(net, "cpu")


@pytest.mark.parametrize("kind", ["ensemble", "dino_vitb16"])
def test_weights_of_dreamsim_that_are_absent_come_with_the_command(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(TamingError, match=rf"evaluate\.scores\.dreamsim is {kind}, .*dreamsim_type='{kind}'"):
        load_dreamsim(kind, "cpu")
