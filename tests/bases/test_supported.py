"""Checkpoints that take more than a text are refused by name, before any weight is read."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_bases
from base_pipelines import params

from taming_core.bases.load import load_base
from taming_core.errors import TamingError
from taming_core.projects.memory import configs_of

OTHERS: list[tuple[str, str, dict[str, Any], str]] = [
    ("sd15", "unet", {"in_channels": 9}, "an inpainting model"),
    ("sdxl", "unet", {"in_channels": 9}, "an inpainting model"),
    ("sd15", "unet", {"in_channels": 8}, "an image-editing model such as InstructPix2Pix"),
    ("sd15", "unet", {"in_channels": 7, "num_class_embeds": 1000}, "an upscaler"),
    ("sd15", "unet", {"in_channels": 5}, "a depth-to-image model"),
    ("sd15", "unet", {"in_channels": 16}, "a model of 16 input channels for 4 of the latents"),
    ("sd15", "unet", {"class_embed_type": "projection"}, "an unCLIP model"),
    ("sd15", "unet", {"num_class_embeds": 10}, "a class-conditional model"),
    ("sd15", "unet", {"encoder_hid_dim_type": "text_image_proj"}, "a model conditioned on images"),
    ("sd15", "unet", {"time_cond_proj_dim": 256}, "a distilled model whose UNet reads the guidance scale"),
    ("sdxl", "model_index", {"text_encoder": [None, None], "tokenizer": [None, None]}, "an image refiner"),
    ("sd3", "transformer", {"in_channels": 8}, "an image-editing model"),
    ("flux", "transformer", {"in_channels": 96}, "an inpainting model such as FLUX.1 Fill"),
    ("flux", "transformer", {"in_channels": 32}, "a control model such as FLUX.1 Depth"),
]


def without_weights(family: str, folder: Path) -> Path:
    """A saved base, of which only the configs are left."""
    saved = Path(tiny_bases.saved(family, folder))
    for path in saved.rglob("*.safetensors"):
        path.unlink()
    return saved


@pytest.mark.parametrize(("family", "part", "values", "kind"), OTHERS)
def test_a_model_that_takes_more_than_a_text_is_refused_by_name(
    tmp_path: Path, family: str, part: str, values: dict[str, Any], kind: str
) -> None:
    folder = without_weights(family, tmp_path / "base")
    path = folder / "model_index.json" if part == "model_index" else folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    expected = rf"base is {kind}, which takes more than a text. Name the text-to-image model"
    with pytest.raises(TamingError, match=expected):
        load_base(str(folder))
    if part != "model_index":  # `taming doctor` reads the configs alone
        with pytest.raises(TamingError, match=expected):
            configs_of(params(family, "concat", base=str(folder)))


@pytest.mark.parametrize("family", tiny_bases.FAMILIES)
def test_a_text_to_image_model_is_not(tmp_path: Path, family: str) -> None:
    folder = without_weights(family, tmp_path / "base")
    with pytest.raises(TamingError, match="There is no text-to-image model"):  # its weights
        load_base(str(folder))
    assert configs_of(params(family, "concat", base=str(folder)))
