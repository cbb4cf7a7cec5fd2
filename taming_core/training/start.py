"""The start of a training: the pipeline of an earlier training, or a text-to-image model with a new object encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from taming_core.bases.families import family_of
from taming_core.bases.family import Family, is_flow_matching
from taming_core.bases.load import load_base
from taming_core.bases.transformer import Transformer
from taming_core.errors import TamingError
from taming_core.images.families import TamingPipeline, assemble, load_pipeline
from taming_core.language.placeholder import OBJECT
from taming_core.model.attention import LAYERS, GatedLayer, layer_channels
from taming_core.model.diffusion import with_zero_terminal_snr
from taming_core.model.object_encoder import ObjectEncoder
from taming_core.model.subject_model import require_size, subject_model
from taming_core.model.towers import load_tower, projector_of
from taming_core.params.train import EncoderParams, TrainParams
from taming_core.progress import track_to
from taming_core.seeds import seed_for
from taming_core.tables import shards
from taming_core.tables.rows import Rows, concatenate, load_rows
from taming_core.training import batches, checkpoint, loop, prior
from taming_core.training.distributed import join_process_group
from taming_core.training.identity import load_identity_network
from taming_core.training.loop import Run


@dataclass(frozen=True)
class Training:
    """A training that is ready for its next step."""

    pipeline: TamingPipeline  # around the networks that are trained
    run: Run
    rows: Rows  # of the training split, followed by prior images
    state: Path  # folder of what can be resumed


def prepare(p: TrainParams, folder: Path, device: str, shard: bool) -> Training:
    """Load the networks, draw prior images if the params ask for them, and resume from the last saved state.

    Args:
        p: the params.
        folder: of the rows.
        device: as `pick_device` returns it.
        shard: whether processes share the denoiser's weights.

    Raises:
        TamingError: a model is missing, or rows, params, model and device do not go together.
    """
    rows = load_rows(folder, "train")
    batches.require_rows(rows, p)
    accelerator = loop.accelerator_for(device, p.precision)
    processes = join_process_group(accelerator.process_index, accelerator.num_processes)
    pipeline = starting_pipeline(p)
    model = subject_model(pipeline.components)
    for side in batches.image_sides(rows):
        require_size(model, side)
    identity = load_identity_network(p.identity_network, accelerator.device) if p.identity_network else None
    fingerprints = [checkpoint.fingerprint(p, folder, model)]  # before frozen weights turn to half precision
    loop.move_to_device(model, accelerator.device, p)
    if p.prior is not None:
        drawn = shards.RUNS / f"prior-{prior.fingerprint(p, folder, model, pipeline)}"
        if processes.is_main:
            with accelerator.autocast():
                track_to(prior.make_prior(pipeline, rows, p, drawn), "prior", p.prior)
        processes.barrier()
        rows, fingerprints = concatenate(rows, load_rows(drawn, "train")), [*fingerprints, drawn.name]
    if p.zero_terminal_snr:  # after the prior images, which show what the base draws with its own schedule
        untyped: Any = pipeline
        untyped.register_modules(scheduler=with_zero_terminal_snr(pipeline.scheduler))
        model = subject_model(pipeline.components)
    run = loop.start_run(model, identity, accelerator, p, processes, shard)
    state = shards.RUNS / "-".join(["train", *fingerprints])
    checkpoint.load(run, state)
    return Training(pipeline, run, rows, state)


def starting_pipeline(p: TrainParams) -> TamingPipeline:
    """The pipeline that the params start from, on the CPU in float32.

    Raises:
        TamingError: a model is missing, or base, design and losses are incompatible.
    """
    pipeline = continued_pipeline(load_pipeline(p.start), p) if p.start is not None else new_pipeline(p)
    require_losses(pipeline, p)
    return pipeline


def new_pipeline(p: TrainParams) -> TamingPipeline:
    """A text-to-image model with an untrained object encoder.

    Raises:
        TamingError: a model is missing, or base and design are incompatible.
    """
    assert p.base is not None  # checked when the params were loaded
    parts = load_base(p.base)
    family = family_of(parts)
    require_design(family, p)
    for tokenizer, text_encoder in zip(family.tokenizers, family.text_encoders.values(), strict=True):
        add_placeholder_token(tokenizer, text_encoder)
    pipeline: Any = assemble(parts, new_object_encoder(family, p))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def require_design(family: Family, p: TrainParams) -> None:
    """Require a network design that the base's denoiser supports.

    Raises:
        TamingError: it does not; the message names the designs that it supports.
    """
    name = type(family.denoiser).__name__
    if p.injection not in family.designs:
        raise TamingError(f"train.injection cannot be {p.injection} with the base {p.base}, whose {name} does not "
                          f"support it. Use one of {', '.join(family.designs)}.")  # fmt: skip
    if isinstance(family, Transformer) and p.layers is not None and p.injection == "concat":
        raise TamingError(f"train.layers must be null for concat in a {name}: there every layer passes the object's "
                          "tokens on to the next.")  # fmt: skip


def require_losses(pipeline: TamingPipeline, p: TrainParams) -> None:
    """Require losses and schedule settings that have an effect on a base of this family.

    Raises:
        TamingError: they have none; the message names the key.
    """
    family = pipeline.family
    if is_flow_matching(pipeline.scheduler) and (p.min_snr is not None or p.zero_terminal_snr):
        key = "min_snr to null" if p.min_snr is not None else "zero_terminal_snr to false"
        raise TamingError(f"The base was trained by flow matching, which has no such noise schedule. Set train.{key}.")
    if isinstance(family, Transformer) and p.localization_weight > 0:
        raise TamingError("train.localization_weight must be 0 with a transformer, where image and text mix. Set it "
                          "to 0.")  # fmt: skip


def continued_pipeline(pipeline: TamingPipeline, p: TrainParams) -> TamingPipeline:
    """The pipeline of an earlier training, to be trained with these params.

    Raises:
        TamingError: a setting has no effect on its network design.
    """
    design = pipeline.injection
    if design == "substitute" and p.captions == "class_noun":
        raise TamingError(f"train.captions must not be class_noun, since {p.start} substitutes the object for "
                          "<object>. Set it to object_token.")  # fmt: skip
    if design in LAYERS and p.localization_weight > 0:
        raise TamingError(f"train.localization_weight must be 0, since in {p.start} text and object do not compete for "
                          f"attention ({design}). Set it to 0.")  # fmt: skip
    if p.compile and design not in ("decoupled", "gated"):
        raise TamingError(f"train.compile must be false, since in {p.start} the shapes that blocks compute change from "
                          f"batch to batch ({design}). Set it to false.")  # fmt: skip
    pipeline.object_encoder.register_to_config(captions=p.captions)
    return pipeline


def new_object_encoder(family: Family, p: TrainParams) -> ObjectEncoder:
    """An object encoder for this denoiser; only its tower is pretrained.

    Raises:
        TamingError: there is no such tower, the projector does not support the number of tokens, or no layer has one of
            `p.layers` as prefix.
    """
    assert p.injection is not None
    layers = select_layers(layer_channels(family.denoiser, p.injection), p.layers)
    added = layers if p.injection in LAYERS or p.layers is not None else None
    settings = {"injection": p.injection, "layers": added, "background": p.background, "captions": p.captions}
    random: Any = torch.random
    with random.fork_rng(devices=[]):
        random.manual_seed(seed_for(p.seed, "encoder", 0))
        encoder = latent_encoder(family, settings) if p.encoder is None else tower_encoder(family, p.encoder, settings)
    init_injected_layers(encoder, family.denoiser)
    return encoder.eval()


def select_layers(layers: Mapping[str, int], prefixes: Sequence[str] | None) -> dict[str, int]:
    """The layers whose names start with one of the prefixes; all if `prefixes` is None.

    Raises:
        TamingError: no name starts with one of them.
    """
    for prefix in prefixes or ():
        if not any(name.startswith(prefix) for name in layers):
            names = sorted({name.split(".attentions")[0] for name in layers})
            raise TamingError(f"train.layers: no attention layer of this design begins with '{prefix}'. "
                              f"Name some of {', '.join(names)}.")  # fmt: skip
    return {n: c for n, c in layers.items() if prefixes is None or n.startswith(tuple(prefixes))}


def latent_encoder(family: Family, settings: Mapping[str, Any]) -> ObjectEncoder:
    """For `reference`: the autoencoder embeds subjects of the model's image size."""
    pixels = (family.image_size // family.vae_scale_factor) ** 2
    return ObjectEncoder(None, None, tokens=pixels, width=family.latent_channels, size=family.image_size, **settings)


def tower_encoder(family: Family, p: EncoderParams, settings: Mapping[str, Any]) -> ObjectEncoder:
    """For every other design: a pretrained tower with a new projector, or that of an earlier object encoder."""
    tower, size, mean, std = load_tower(p.tower)
    width = family.width
    encoder = ObjectEncoder(tower.config.to_diff_dict(), p.projector, p.tokens, width, mean=mean, std=std, size=size,
                            **settings)  # fmt: skip
    encoder.vision.load_state_dict(tower.state_dict())
    if (trained := projector_of(p.tower, p.projector, p.tokens, width)) is not None:
        encoder.projection.load_state_dict(trained)
    return encoder


@torch.no_grad()
def init_injected_layers(encoder: ObjectEncoder, denoiser: Any) -> None:
    """Copy queries and keys of injected layers from their attention layers; zero values or gates keep them inactive."""
    for name, layer in encoder.denoiser_layers().items():
        attn: Any = denoiser.get_submodule(name)
        if attn.to_k.weight.shape != layer.get_submodule("to_k").weight.shape:
            continue  # joint attention: the context passes a projection before it, the object tokens do not
        gated = isinstance(layer, GatedLayer)
        for part in ("to_q", "to_k", "to_v") if gated else ("to_k",):
            getattr(layer, part).weight.copy_(getattr(attn, part).weight)
        if gated:
            layer.to_out.weight.copy_(attn.to_out[0].weight)


def add_placeholder_token(tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel) -> None:
    """Add `<object>` to the vocabulary if it is missing; its embedding is initialized from the word "object"."""
    if OBJECT in tokenizer.get_vocab():
        return
    untyped: Any = tokenizer
    like = untyped("object", add_special_tokens=False).input_ids
    tokenizer.add_tokens([OBJECT])
    embeddings: Any = text_encoder.get_input_embeddings()
    if len(tokenizer) > embeddings.num_embeddings:  # T5 has unused embeddings
        embeddings = text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        embeddings.weight[tokenizer.convert_tokens_to_ids(OBJECT)] = embeddings.weight[like].mean(0)
