"""Vision towers of an object encoder: CLIP, DINOv2, SigLIP, or the tower of an earlier object encoder."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]  # its PathLike has no parameter
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, CLIPVisionModel, Dinov2Model, SiglipVisionModel

from taming_core.errors import TamingError
from taming_core.files import read_json
from taming_core.model import clip
from taming_core.weights.load import as_taming_error

TOWERS: dict[str, Any] = {
    "clip": CLIPVisionModel,
    "clip_vision_model": CLIPVisionModel,
    "dinov2": Dinov2Model,
    "siglip": SiglipVisionModel,
    "siglip_vision_model": SiglipVisionModel,
}
BELOW_LAST_BLOCK = ("embeddings", "pre_layrnorm", "encoder")  # modules of a tower up to its last block
NAMES = {"clip": "CLIP", "dinov2": "DINOv2", "siglip": "SigLIP"}
KEY = "train.encoder.tower"
WEIGHTS = "diffusion_pytorch_model.safetensors"  # of an object encoder


def new_tower(config: dict[str, Any]) -> Any:
    """An untrained tower from a vision model's config; CLIP's if the config has no `model_type`."""
    kind = TOWERS[config.get("model_type", "clip_vision_model")]
    return kind(kind.config_class(**config))


def load_tower(spec: str) -> tuple[Any, int, clip.Channels, clip.Channels]:
    """A tower in float32, the side of its images in pixels, and their mean and standard deviation in [0, 1].

    Args:
        spec: `mini`, a folder or hub name of a CLIP, DINOv2 or SigLIP model, or the folder of an object encoder.

    Raises:
        TamingError: there is no such model, or it is of another kind.
    """
    config = Path(spec) / "config.json"
    if config.is_file() and "tower" in (settings := read_json(config)):
        return _tower_of_encoder(Path(spec), settings)
    auto_config: Any = AutoConfig
    with as_taming_error(clip.source(spec), "vision model", KEY):
        kind = auto_config.from_pretrained(clip.source(spec)).model_type
    if kind not in TOWERS:
        raise TamingError(f"{spec} is a {kind} model. Name a CLIP, DINOv2 or SigLIP model as {KEY}.")
    tower = clip.load_clip(TOWERS[kind], spec, KEY, f"{NAMES[kind.split('_')[0]]} model")
    size = _processed_size(spec, tower.config.image_size) if kind == "dinov2" else tower.config.image_size
    return tower, size, *clip.normalization(spec)


def _tower_of_encoder(folder: Path, settings: dict[str, Any]) -> tuple[Any, int, clip.Channels, clip.Channels]:
    """The tower of a trained object encoder, as `load_tower` returns it."""
    if settings["tower"] is None:
        raise TamingError(f"The object encoder {folder} has no tower. Name another as {KEY}.")
    tower = new_tower(settings["tower"])
    tower.load_state_dict(_load_weights(folder, "vision."))
    size = settings.get("size") or settings["tower"]["image_size"]
    return tower, size, tuple(settings["mean"]), tuple(settings["std"])


def _load_weights(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The weights of an object encoder whose names start with `prefix`, without it, in float32."""
    weights = load_file(folder / WEIGHTS)
    return {name.removeprefix(prefix): w.float() for name, w in weights.items() if name.startswith(prefix)}


def projector_of(spec: str, projector: str, tokens: int, width: int) -> dict[str, Tensor] | None:
    """The projector's weights, if `spec` is the folder of an object encoder with this projector, tokens and width."""
    path = Path(spec) / "config.json"
    settings: dict[str, Any] = read_json(path) if path.is_file() else {}
    matches = [settings.get(key) for key in ("projector", "tokens", "width")] == [projector, tokens, width]
    return _load_weights(Path(spec), "projection.") if matches else None


def _processed_size(spec: str, trained: int) -> int:
    """The side of DINOv2's images: its processor makes smaller ones than it was `trained` on, and any size works."""
    auto_processor: Any = AutoImageProcessor
    try:
        size = auto_processor.from_pretrained(clip.source(spec)).crop_size
    except (OSError, ValueError):
        return trained
    return size["height"]


def blocks(tower: nn.Module) -> list[nn.Module]:
    """The transformer blocks, from input to output."""
    return list(next(m for m in tower.modules() if isinstance(m, nn.ModuleList)))


def patch_states(tower: Any, states: Tensor) -> Tensor:
    """The hidden states (B, N, C) of the patches, without the class token, which SigLIP does not have."""
    return states if isinstance(tower, SiglipVisionModel) else states[:, 1:]


def blocks_read(tower: nn.Module, projector: str) -> list[nn.Module]:
    """The transformer blocks that a projector uses: all, or for `resampler` all but the last."""
    return blocks(tower)[:-1] if projector == "resampler" else blocks(tower)


def unused_weights(tower: Any, projector: str, pooled: bool) -> list[nn.Parameter]:
    """Weights with no effect on a projector, which reads the pooled output, the patches or penultimate states."""
    unused: list[nn.Parameter] = []
    if isinstance(tower, Dinov2Model) and tower.embeddings.mask_token is not None:
        unused.append(tower.embeddings.mask_token)
    if projector == "resampler":
        above = [m for n, m in tower.named_children() if n not in BELOW_LAST_BLOCK]
        return [*unused, *(w for module in (blocks(tower)[-1], *above) for w in module.parameters())]
    if pooled or isinstance(tower, Dinov2Model):
        return unused
    return list((tower.head if isinstance(tower, SiglipVisionModel) else tower.post_layernorm).parameters())
