"""Towers of the three kinds, by folder: what they are called where they are missing, damaged or of another kind."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from taming_core.errors import TamingError
from taming_core.model.towers import load_tower
from taming_core.training.identity import load_identity_network

SHAPE: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14,
}  # fmt: skip
KINDS: dict[str, tuple[Any, Any]] = {
    "CLIP": (CLIPVisionModel, CLIPVisionConfig),
    "DINOv2": (Dinov2Model, Dinov2Config),
    "SigLIP": (SiglipVisionModel, SiglipVisionConfig),
}


def saved(name: str, folder: Path, **shape: int) -> None:
    kind, config = KINDS[name]
    kind(config(image_size=28, **{**SHAPE, **shape})).save_pretrained(folder)


@pytest.mark.parametrize("name", KINDS)
def test_a_tower_is_loaded_whole_and_called_by_its_kind(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    for spec in (tmp_path, tmp_path / "model.safetensors"):
        tower, size, _, _ = load_tower(str(spec))
        assert (type(tower), size, tower.training) == (KINDS[name][0], 28, False)
    (tmp_path / "deeper").mkdir()
    saved(name, tmp_path / "deeper", num_hidden_layers=2)
    (tmp_path / "deeper" / "config.json").replace(tmp_path / "config.json")
    with pytest.raises(TamingError, match=rf"is no {name} model, for it has no .*Set train\.encoder\.tower to mini"):
        load_tower(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"noise")
    with pytest.raises(TamingError, match=rf"There is no {name} model {tmp_path}\. Set train\.encoder\.tower to mini"):
        load_tower(str(tmp_path))


@pytest.mark.parametrize("name", ["facebook/dinov2-base", "google/siglip-base-patch16-224"])
def test_absent_models_say_how_they_are_fetched(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        TamingError, match=rf"There is no vision model .*Run `hf download {name}`.*train\.encoder\.tower"
    ):
        load_tower(name)
    with pytest.raises(
        TamingError, match=rf"There is no identity network .*Run `hf download {name}`.*train\.identity_network"
    ):
        load_identity_network(name, "cpu")


def test_a_tower_is_in_float32_whatever_the_file(tmp_path: Path) -> None:
    tower: Any = Dinov2Model(Dinov2Config(image_size=28, **SHAPE))
    tower.to(torch.bfloat16).save_pretrained(tmp_path)
    assert {weight.dtype for weight in load_tower(str(tmp_path))[0].parameters()} == {torch.float32}
