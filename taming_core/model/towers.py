"""Vision towers that an object encoder can start from: CLIP, DINOv2, SigLIP, or an earlier object encoder's."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, CLIPVisionModel, Dinov2Model, SiglipVisionModel

from taming_core.errors import TamingError
from taming_core.model import clip
from taming_core.weights.load import as_taming_error

TOWERS: dict[str, Any] = {
    "clip": CLIPVisionModel,
    "clip_vision_model": CLIPVisionModel,
    "dinov2": Dinov2Model,
    "siglip": SiglipVisionModel,
    "siglip_vision_model": SiglipVisionModel,
}
BELOW_LAST_BLOCK = ("embeddings", "pre_layrnorm", "encoder")  # the parts of a tower up to its last block
NAMES = {"clip": "CLIP", "dinov2": "DINOv2", "siglip": "SigLIP"}
KEY = "train.encoder.tower"
WEIGHTS = "diffusion_pytorch_model.safetensors"  # of an object encoder


def new_tower(config: dict[str, Any]) -> Any:
    """An untrained tower of a vision model's config; CLIP's where it does not say which."""
    kind = TOWERS[config.get("model_type", "clip_vision_model")]
    return kind(kind.config_class(**config))


def load_tower(spec: str) -> tuple[Any, int, clip.Channels, clip.Channels]:
    """A tower in float32, the side of its pictures in pixels, and their mean and standard deviation in [0, 1].

    `spec` is `mini`, a folder or hub name of a CLIP, DINOv2 or SigLIP model, or the folder of an object encoder. Raises
    TamingError if there is no such model, or it is of another kind.
    """
    encoder = Path(spec) / "config.json"
    if encoder.is_file() and "tower" in (settings := json.loads(encoder.read_text())):
        return _of_encoder(Path(spec), settings)
    with as_taming_error(clip.source(spec), "vision model", KEY):
        kind = AutoConfig.from_pretrained(clip.source(spec)).model_type
    if kind not in TOWERS:
        raise TamingError(f"{spec} is a {kind} model. Name a CLIP, DINOv2 or SigLIP model as {KEY}.")
    tower = clip.load_clip(TOWERS[kind], spec, KEY, f"{NAMES[kind.split('_')[0]]} model")
    size = _shown_side(spec, tower.config.image_size) if kind == "dinov2" else tower.config.image_size
    return tower, size, *clip.normalization(spec)


def _of_encoder(folder: Path, settings: dict[str, Any]) -> tuple[Any, int, clip.Channels, clip.Channels]:
    """The tower of an object encoder that a training has left."""
    if settings["tower"] is None:
        raise TamingError(f"The object encoder {folder} has no tower. Name another as {KEY}.")
    tower = new_tower(settings["tower"])
    tower.load_state_dict(_part(folder, "vision."))
    size = settings.get("size") or settings["tower"]["image_size"]
    return tower, size, tuple(settings["mean"]), tuple(settings["std"])


def _part(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The weights of a part of an object encoder, in float32."""
    found = load_file(folder / WEIGHTS)
    return {name.removeprefix(prefix): w.float() for name, w in found.items() if name.startswith(prefix)}


def projector_of(spec: str, projector: str, tokens: int, width: int) -> dict[str, Tensor] | None:
    """The weights of an object encoder's projector, if `spec` is the folder of one of this kind and size."""
    path = Path(spec) / "config.json"
    settings = json.loads(path.read_text()) if path.is_file() else {}
    alike = [settings.get(key) for key in ("projector", "tokens", "width")] == [projector, tokens, width]
    return _part(Path(spec), "projection.") if alike else None


def _shown_side(spec: str, trained: int) -> int:
    """DINOv2 takes pictures of any size, and its processor makes smaller ones than it was trained on."""
    try:
        size: Any = AutoImageProcessor.from_pretrained(clip.source(spec)).crop_size
    except (OSError, ValueError):
        return trained
    return size["height"]


def blocks(tower: nn.Module) -> list[nn.Module]:
    """The transformer blocks, from the picture's side upwards."""
    return list(next(m for m in tower.modules() if isinstance(m, nn.ModuleList)))


def patch_states(tower: Any, states: Tensor) -> Tensor:
    """The last hidden states (B, N, C) of the patches; SigLIP has no class token before them."""
    return states if isinstance(tower, SiglipVisionModel) else states[:, 1:]


def blocks_read(tower: nn.Module, projector: str) -> list[nn.Module]:
    """The transformer blocks that a projector hears of: `resampler` reads what goes into the last one."""
    return blocks(tower)[:-1] if projector == "resampler" else blocks(tower)


def unused_weights(tower: Any, projector: str, pooled: bool) -> list[nn.Parameter]:
    """Weights that say nothing to a projector, which reads the pooled output, the patches, or what is a block below."""
    found = []
    if isinstance(tower, Dinov2Model) and tower.embeddings.mask_token is not None:
        found.append(tower.embeddings.mask_token)
    if projector == "resampler":
        above = [m for n, m in tower.named_children() if n not in BELOW_LAST_BLOCK]
        return [*found, *(w for module in (blocks(tower)[-1], *above) for w in module.parameters())]
    if pooled or isinstance(tower, Dinov2Model):
        return found
    return list((tower.head if isinstance(tower, SiglipVisionModel) else tower.post_layernorm).parameters())
