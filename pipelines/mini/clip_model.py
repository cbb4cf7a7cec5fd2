"""The CLIP of `mini` itself: its towers and identity head, how they are stored, and how they choose among prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import schooling
import torch
import torch.nn.functional as F
from clip_batches import BatchParams
from jaxtyping import Float, Int
from pydantic import PositiveFloat, PositiveInt
from safetensors.torch import load_file, save_file
from schooling import Section
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from words import LENGTH, rows_of

from taming_core.bases.family import token_ids
from taming_core.training.identity import HEAD
from taming_core.world.styles import STYLES
from taming_core.world.wording import sentence


class TowerParams(Section):
    """A transformer."""

    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt


class ClipParams(BatchParams):
    """Towers and losses of CLIP."""

    text: TowerParams
    vision: TowerParams
    patch: PositiveInt  # pixels
    features: PositiveInt  # that photos and captions share
    identity_features: PositiveInt
    sharpest: PositiveFloat  # greatest factor of a photo-caption cosine
    sharpest_identity: PositiveFloat
    measured: PositiveInt  # things per split


class IdentityHead(nn.Module):
    """A linear map of the vision tower's pooled output, in which views of one thing are alike."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, features, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.3))  # e^2.3 is 10: a mild start

    def forward(self, pooled: Float[Tensor, "n width"]) -> Float[Tensor, "n features"]:
        return F.normalize(self.fc(pooled).float(), dim=-1)


@dataclass(frozen=True)
class Clip:
    """The model with what belongs to it."""

    model: Any  # CLIPModel
    head: IdentityHead
    tokenizer: PreTrainedTokenizerBase


def new_clip(p: ClipParams, tokenizer: PreTrainedTokenizerFast) -> Clip:
    """An untrained model that knows the tokenizer's words."""
    text, vision = (
        {"hidden_size": t.width, "intermediate_size": 4 * t.width, "num_hidden_layers": t.layers,
         "num_attention_heads": t.heads, "projection_dim": p.features, "hidden_act": "gelu"}
        for t in (p.text, p.vision)
    )  # fmt: skip
    text |= {"vocab_size": rows_of(tokenizer), "max_position_embeddings": LENGTH}
    text |= {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("bos", "eos", "pad")}
    vision |= {"image_size": p.size, "patch_size": p.patch}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=p.features))
    return Clip(model, IdentityHead(p.vision.width, p.identity_features), tokenizer)


def pooled(clip: Clip, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n width"]:
    """What the vision tower says of images in [-1, 1]."""
    return clip.model.vision_model(pixel_values=images).pooler_output


def image_features(clip: Clip, seen: Float[Tensor, "n width"]) -> Float[Tensor, "n features"]:
    """Unit features, from `pooled`."""
    return F.normalize(clip.model.visual_projection(seen).float(), dim=-1)


def text_features(clip: Clip, ids: Int[Tensor, "n length"]) -> Float[Tensor, "n features"]:
    """Unit features of captions."""
    return F.normalize(clip.model.text_projection(clip.model.text_model(input_ids=ids).pooler_output).float(), dim=-1)


def save(clip: Clip, size: int, out: Path) -> None:
    """Model, identity head, tokenizer, and how pictures are prepared; in half precision."""
    schooling.keep(clip.model, out)
    save_file({"fc.weight": clip.head.fc.weight.detach().cpu().half().contiguous()}, out / HEAD)
    clip.tokenizer.save_pretrained(out)
    side, grey = {"height": size, "width": size}, [0.5] * 3
    CLIPImageProcessor(size=side, do_center_crop=False, image_mean=grey, image_std=grey).save_pretrained(out)


def load_clip(folder: Path, device: str) -> Clip:
    """What `save` wrote, frozen, in full precision."""
    weight = load_file(folder / HEAD)["fc.weight"]
    head = IdentityHead(weight.shape[1], weight.shape[0])
    head.fc.weight.data = weight.float()
    model: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    for part in (model, head):
        part.to(device).eval().requires_grad_(False)
    return Clip(model, head, AutoTokenizer.from_pretrained(folder))


@torch.no_grad()
def likeness(clip: Clip, seen: Float[Tensor, "n width"], prompts: Sequence[str]) -> Float[Tensor, "n prompts"]:
    """Cosine of each image with each prompt."""
    return image_features(clip, seen) @ text_features(clip, token_ids(clip.tokenizer, prompts).to(seen.device)).T


def right(alike: Float[Tensor, "n choices"], truth: Sequence[int], top: int = 1) -> list[bool]:
    """Whether the true choice is among the `top` that are most alike."""
    best = alike.topk(top).indices.cpu()
    return (best == torch.tensor(truth)[:, None]).any(1).tolist()


def concept_prompts(names: Sequence[str]) -> list[str]:
    """What a thing of each name is called, of which one is chosen."""
    return [sentence(STYLES[0], [name], "") for name in names]
