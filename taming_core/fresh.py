"""Where a training starts: an earlier training's pipeline, or a text-to-image model with a fresh object encoder."""

from typing import Any

import torch
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from taming_core.attention import layer_channels
from taming_core.conditions import OBJECT
from taming_core.config import EncoderParams, TrainParams
from taming_core.customize import TamingPipeline, load_pipeline
from taming_core.object_encoder import ObjectEncoder
from taming_core.pretrained import clip
from taming_core.pretrained.base import load_base
from taming_core.seeds import seed_for


def starting_pipeline(p: TrainParams) -> TamingPipeline:
    """The pipeline that the params start from, on the CPU in float32.

    Raises:
        TamingError: a model is not there, or the parts do not go together.
    """
    if p.start is not None:
        return load_pipeline(p.start)
    # The params were checked for these when they were read.
    assert p.base is not None
    assert p.encoder is not None
    assert p.injection is not None
    return fresh_pipeline(p.base, p.encoder, p.injection, p.seed)


def fresh_pipeline(base: str, encoder: EncoderParams, injection: str, seed: int) -> TamingPipeline:
    """The base model with an object encoder whose tower is a CLIP model's, and whose projector is random.

    Raises:
        TamingError: there is no such base or tower, or the projector does not go with the number of tokens.
    """
    parts = load_base(base)
    teach_placeholder(parts["tokenizer"], parts["text_encoder"])
    return TamingPipeline(**parts, object_encoder=fresh_encoder(parts["unet"], encoder, injection, seed))


def fresh_encoder(denoiser: Any, p: EncoderParams, injection: str, seed: int) -> ObjectEncoder:
    """An object encoder that fits the denoiser; only its tower has learned something."""
    tower = clip.load_tower(p.tower)
    mean, std = clip.normalization(p.tower)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "encoder", 0))
        found = ObjectEncoder(
            tower=tower.config.to_diff_dict(),
            projector=p.projector,
            tokens=p.tokens,
            width=denoiser.config.cross_attention_dim,
            injection=injection,
            layers=layer_channels(denoiser) if injection == "decoupled" else None,
            mean=mean,
            std=std,
        )
    found.vision.load_state_dict(tower.state_dict())
    return found.eval()


def teach_placeholder(tokenizer: PreTrainedTokenizerBase, text_encoder: CLIPTextModel) -> None:
    """Make `<object>` one token, where it is none; it starts out as the word "object"."""
    if OBJECT in tokenizer.get_vocab():
        return
    like = tokenizer("object", add_special_tokens=False).input_ids
    tokenizer.add_tokens([OBJECT])
    text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embeddings: Any = text_encoder.get_input_embeddings()
    with torch.no_grad():
        embeddings.weight[tokenizer.convert_tokens_to_ids(OBJECT)] = embeddings.weight[like].mean(0)
