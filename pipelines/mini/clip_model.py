"""The CLIP of `mini`: towers, identity head, saving and loading, and zero-shot classification."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import PositiveFloat, PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from pipelines.mini.clip_batches import BatchParams
from pipelines.mini.stage_params import Section
from pipelines.mini.tokenizer import LENGTH, table_size
from pipelines.mini.training_loop import save_half_precision
from taming_core.bases.family import token_ids
from taming_core.training.identity import HEAD
from taming_core.world.styles import STYLES
from taming_core.world.wording import sentence


class TowerParams(Section):
    """Size of a transformer."""

    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt


class ClipParams(BatchParams):
    """Architecture and losses of CLIP."""

    text: TowerParams
    vision: TowerParams
    patch: PositiveInt  # pixels
    features: PositiveInt  # of the joint space of photos and captions
    identity_features: PositiveInt
    max_scale: PositiveFloat  # of the photo-caption logits, one over the temperature
    max_identity_scale: PositiveFloat
    eval_photos: PositiveInt  # objects per split


class IdentityHead(nn.Module):
    """A linear map of the vision tower's pooled output to a space where views of one object are similar."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, features, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.3))  # e^2.3 is 10, a low initial scale

    def forward(self, pooled: Float[Tensor, "n width"]) -> Float[Tensor, "n features"]:
        return F.normalize(self.fc(pooled).float(), dim=-1)


@dataclass(frozen=True)
class Clip:
    """The model, its identity head and its tokenizer."""

    model: Any  # CLIPModel
    head: IdentityHead
    tokenizer: PreTrainedTokenizerBase


def new_clip(p: ClipParams, tokenizer: PreTrainedTokenizerFast) -> Clip:
    """An untrained model with an embedding for every word of the tokenizer."""
    text, vision = (
        {"hidden_size": t.width, "intermediate_size": 4 * t.width, "num_hidden_layers": t.layers,
         "num_attention_heads": t.heads, "projection_dim": p.features, "hidden_act": "gelu"}
        for t in (p.text, p.vision)
    )  # fmt: skip
    text |= {"vocab_size": table_size(tokenizer), "max_position_embeddings": LENGTH}
    text |= {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("bos", "eos", "pad")}
    vision |= {"image_size": p.size, "patch_size": p.patch}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=p.features))
    return Clip(model, IdentityHead(p.vision.width, p.identity_features), tokenizer)


def pooled(clip: Clip, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n width"]:
    """Pooled output of the vision tower for images in [-1, 1]."""
    return clip.model.vision_model(pixel_values=images).pooler_output


def image_features(clip: Clip, features: Float[Tensor, "n width"]) -> Float[Tensor, "n features"]:
    """Unit features in the joint space, from the output of `pooled`."""
    return F.normalize(clip.model.visual_projection(features).float(), dim=-1)


def text_features(clip: Clip, ids: Int[Tensor, "n length"]) -> Float[Tensor, "n features"]:
    """Unit features of captions in the joint space."""
    return F.normalize(clip.model.text_projection(clip.model.text_model(input_ids=ids).pooler_output).float(), dim=-1)


def save(clip: Clip, size: int, out: Path) -> None:
    """Save model, identity head, tokenizer and image processor, weights in half precision."""
    save_half_precision(clip.model, out)
    save_file({"fc.weight": clip.head.fc.weight.detach().cpu().half().contiguous()}, out / HEAD)
    clip.tokenizer.save_pretrained(out)
    side, grey = {"height": size, "width": size}, [0.5] * 3
    CLIPImageProcessor(size=side, do_center_crop=False, image_mean=grey, image_std=grey).save_pretrained(out)


def load_clip(folder: Path, device: str) -> Clip:
    """Load what `save` wrote, frozen, in full precision."""
    weight = load_file(folder / HEAD)["fc.weight"]
    head = IdentityHead(weight.shape[1], weight.shape[0])
    head.fc.weight.data = weight.float()
    model: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    for part in (model, head):
        part.to(device).eval().requires_grad_(False)
    return Clip(model, head, AutoTokenizer.from_pretrained(folder))


@torch.no_grad()
def similarity(clip: Clip, features: Float[Tensor, "n width"], prompts: Sequence[str]) -> Float[Tensor, "n prompts"]:
    """Cosine of each image with each prompt, from the output of `pooled`."""
    texts = text_features(clip, token_ids(clip.tokenizer, prompts).to(features.device))
    return image_features(clip, features) @ texts.T


def is_top(scores: Float[Tensor, "n choices"], labels: Sequence[int], top: int = 1) -> list[bool]:
    """Whether the label is among the `top` choices with the highest scores."""
    best = scores.topk(top).indices.cpu()
    return (best == torch.tensor(labels)[:, None]).any(1).tolist()


def concept_prompts(names: Sequence[str]) -> list[str]:
    """One zero-shot prompt per concept."""
    return [sentence(STYLES[0], [name], "") for name in names]
