"""What tower, captioner and matcher share: vocabulary, architecture, and the tower initialised from CLIP's."""

import string
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipImageProcessor,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
    BlipVisionModel,
)

from taming_core.world.artwork import World, class_nouns
from taming_core.world.styles import STYLES
from taming_core.world.wording import COLOURS, PLACES, SIZES, scene_wordings, style_wordings

SIZE = 128  # side of every photo in pixels
TOWER_SIZE = 96  # side of the tower's input: half as many patches as CLIP, which halves the time
EMBEDDING_SCALE = 0.2  # small beside the output of the first block, large beside the norm's epsilon
LENGTH = 64  # tokens of the longest caption
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")  # the names BLIP gives them
PAD, SEP, DEC = (SPECIAL.index(t) for t in ("[PAD]", "[SEP]", "[DEC]"))
ANY_OBJECT = "object"  # a name that fits every object
FUNCTION_WORDS = f"a an the and of on in at to with is it this {ANY_OBJECT}"


def vocabulary(world: World) -> dict[str, int]:
    """Every word of the training captions, then single characters, so that any other word still encodes."""
    trained = {c.name for c in world.cutouts if c.split == "train"}
    phrases = [wording for style in STYLES for wording in style_wordings(style)]
    phrases += [wording for scene in world.scenes for wording in scene_wordings(scene)]
    sentences = [FUNCTION_WORDS, *class_nouns(), *phrases, *SIZES, *(p.strip(", ") for p in PLACES), *COLOURS]
    words = [word for sentence in [*sentences, *sorted(trained)] for word in sentence.split()]
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = [f"##{c}" for c in string.ascii_lowercase + string.digits]
    return {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *words, *characters, *pieces]))}


def processor(words: dict[str, int]) -> BlipProcessor:
    """The processor of photos and texts, of the same class as those of the published BLIP models."""
    side = {"height": TOWER_SIZE, "width": TOWER_SIZE}
    photos = BlipImageProcessor(size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return BlipProcessor(
        photos, BertTokenizer(vocab=words, model_max_length=LENGTH, extra_special_tokens=["[DEC]", "[ENC]"])
    )


def tower_config() -> BlipVisionConfig:
    """The shape of the vision tower of `mini`'s CLIP with one more block; see `start_from_clip`."""
    return BlipVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=7, num_attention_heads=3, image_size=TOWER_SIZE,
        patch_size=8, initializer_range=0.02,
    )  # fmt: skip


def blip_config(words: int) -> BlipConfig:
    """The architecture that captioner and matcher share."""
    text = BlipTextConfig(
        vocab_size=words, hidden_size=192, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=3,
        max_position_embeddings=LENGTH, pad_token_id=PAD, bos_token_id=DEC, eos_token_id=SEP, sep_token_id=SEP,
    )  # fmt: skip
    return BlipConfig(text_config=text, vision_config=tower_config(), image_text_hidden_size=128)


def start_from_clip(tower: BlipVisionModel, clip: Path) -> None:
    """Copy a CLIP tower into a BLIP tower of one more block, so that both compute nearly the same features.

    CLIP has a norm after its embeddings, BLIP has none. The first block's norm replaces it: small embeddings, no
    attention, and an MLP that returns its input, for gelu(x) - gelu(-x) = x.
    """
    prefix = "vision_model."
    w = {k.removeprefix(prefix): v.float() for k, v in load_file(clip).items() if k.startswith(prefix)}
    width, depth = len(w["pre_layrnorm.weight"]), len(tower.encoder.layers)
    first = {f"encoder.layers.0.{k}": v for k, v in _norm_block(w, tower.config.intermediate_size).items()}
    positions = _resized_positions(w["embeddings.position_embedding.weight"], tower)
    tower.load_state_dict(
        {
            "embeddings.patch_embedding.weight": EMBEDDING_SCALE * w["embeddings.patch_embedding.weight"],
            "embeddings.patch_embedding.bias": torch.zeros(width),
            "embeddings.position_embedding": EMBEDDING_SCALE * positions[None],
            "embeddings.class_embedding": EMBEDDING_SCALE * w["embeddings.class_embedding"][None, None],
            **first,
            **{k: v for i in range(1, depth) for k, v in _block(w, i - 1, i).items()},
            **_final_norm(w),
        }
    )


def _resized_positions(
    embeddings: Float[Tensor, "tokens width"], tower: BlipVisionModel
) -> Float[Tensor, "fewer width"]:
    """Position embeddings resampled to the tower's grid of patches; the first is the class token's."""
    config: Any = tower.config  # transformers types sizes as int, list or tuple
    side, target = round((len(embeddings) - 1) ** 0.5), config.image_size // config.patch_size
    grid = embeddings[1:].T.reshape(1, -1, side, side)
    fewer = F.interpolate(grid, size=(target, target), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([embeddings[:1], fewer[0].flatten(1).T])


def _norm_block(w: dict[str, Tensor], hidden: int) -> dict[str, Tensor]:
    width = len(w["pre_layrnorm.weight"])
    identity_weights = torch.zeros(hidden, width)
    identity_weights[:width], identity_weights[width : 2 * width] = torch.eye(width), -torch.eye(width)
    return {
        "layer_norm1.weight": torch.ones(width),
        "layer_norm1.bias": torch.zeros(width),
        "self_attn.qkv.weight": torch.zeros(3 * width, width),
        "self_attn.qkv.bias": torch.zeros(3 * width),
        "self_attn.projection.weight": torch.zeros(width, width),
        "self_attn.projection.bias": torch.zeros(width),
        "layer_norm2.weight": w["pre_layrnorm.weight"],
        "layer_norm2.bias": w["pre_layrnorm.bias"],
        "mlp.fc1.weight": identity_weights,
        "mlp.fc1.bias": torch.zeros(hidden),
        "mlp.fc2.weight": identity_weights.T.contiguous(),
        "mlp.fc2.bias": torch.zeros(width),
    }


def _block(w: dict[str, Tensor], source: int, target: int) -> dict[str, Tensor]:
    old, new, weights = f"encoder.layers.{source}.", f"encoder.layers.{target}.", dict[str, Tensor]()
    for kind in ("weight", "bias"):
        weights[f"{new}self_attn.qkv.{kind}"] = torch.cat([w[f"{old}self_attn.{part}_proj.{kind}"] for part in "qkv"])
        weights[f"{new}self_attn.projection.{kind}"] = w[f"{old}self_attn.out_proj.{kind}"]
        for part in ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"):
            weights[f"{new}{part}.{kind}"] = w[f"{old}{part}.{kind}"]
    return weights


def _final_norm(w: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"post_layernorm.{kind}": w[f"post_layernorm.{kind}"] for kind in ("weight", "bias")}
