"""The start of a training: the pipeline of an earlier training, or a text-to-image model with a new object encoder."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from taming_core.bases.families import family_of
from taming_core.bases.family import Family, is_flow_matching, tokenizer_of
from taming_core.bases.load import Dtypes, load_base
from taming_core.bases.placeholder import add_placeholder_token, placeholder_embedding
from taming_core.bases.record import new_record
from taming_core.bases.transformer import Transformer
from taming_core.errors import TamingError
from taming_core.fingerprints import digest
from taming_core.images.families import TamingPipeline, assemble, load_pipeline
from taming_core.locks import exclusive
from taming_core.model import lora
from taming_core.model.attention import LAYERS, GatedLayer, layer_channels
from taming_core.model.collage import CollageSize
from taming_core.model.diffusion import with_zero_terminal_snr
from taming_core.model.object_encoder import ObjectEncoder
from taming_core.model.subject_model import require_size, subject_model
from taming_core.model.towers import load_tower, projector_of
from taming_core.params.train import EncoderParams, TrainParams
from taming_core.progress import track_to
from taming_core.seeds import seed_for
from taming_core.storage.paths import AnyPath
from taming_core.tables import shards
from taming_core.tables.requirements import require_rows
from taming_core.tables.rows import Rows, concatenate, load_rows
from taming_core.training import agreement, batches, checkpoint, loop, prior
from taming_core.training.distributed import join_process_group, layers_on_device
from taming_core.training.identity import load_identity_network
from taming_core.training.loop import Run
from taming_core.training.networks import Fingerprints, network_fingerprints
from taming_core.training.truncation import exclude_truncated
from taming_core.weights.device import DTYPES
from taming_core.weights.digests import file_digest, weights_digest


@dataclass(frozen=True)
class Training:
    """A training before its first step; `checkpoint.load` resumes it."""

    pipeline: TamingPipeline  # around the networks that are trained
    run: Run
    rows: Rows  # of the training split, followed by prior images
    state: Path  # folder of what can be resumed
    origin: checkpoint.Origin
    networks: Fingerprints  # of the tower and the identity network
    base: str | None = None  # as `prepare` got it
    truncated: str | None = None  # what is to be said of captions that are cut off


def prepare(p: TrainParams, folder: AnyPath, device: str, shard: bool, base: str | None = None) -> Training:
    """Load the networks, and draw prior images if the params ask for them.

    Args:
        p: the params.
        folder: of the rows.
        device: as `pick_device` returns it.
        shard: whether processes share the denoiser's weights.
        base: the base of the encoder `p.start`; None for the one that it names.

    Raises:
        TamingError: a model is missing, or rows, params, model and device do not go together.
    """
    rows = load_rows(folder, "train")
    require_rows(rows, p)
    accelerator = loop.accelerator_for(device, p.precision)
    processes = join_process_group(accelerator.process_index, accelerator.num_processes)
    agreement.require_shared(shards.RUNS, processes)
    pipeline = starting_pipeline(p, running_dtypes(p), base)
    model = subject_model(pipeline.components, weight_digests(pipeline))
    for side in batches.image_sides(rows):
        require_size(model, side)
    rows, truncated = exclude_truncated(rows, model.family, p)
    identity = load_identity_network(p.identity_network, accelerator.device) if p.identity_network else None
    origin, networks = checkpoint.origin_of(folder, model), network_fingerprints(pipeline, p)
    inputs = {"params": p.model_dump_json(), "rows": origin.rows, "weights to start from": origin.weights}
    agreement.require_same(inputs, processes)
    fingerprints = [checkpoint.fingerprint(p, origin)]
    loop.move_to_device(model, accelerator.device, p, shard)
    if p.prior is not None:
        drawn = shards.RUNS / f"prior-{prior.fingerprint(p, folder, model, pipeline)}"
        if processes.is_main:
            by_layer = layers_on_device(model.family.denoiser, accelerator.device) if shard else nullcontext()
            with exclusive(drawn), loop.autocast(accelerator), by_layer:
                track_to(prior.make_prior(pipeline, rows, p, drawn), "prior", p.prior)
        processes.barrier()
        rows, fingerprints = concatenate(rows, load_rows(drawn, "train")), [*fingerprints, drawn.name]
    if p.zero_terminal_snr:  # after the prior images, which show what the base draws with its own schedule
        untyped: Any = pipeline
        untyped.register_modules(scheduler=with_zero_terminal_snr(pipeline.scheduler))
        model = subject_model(pipeline.components, model.digests)
    run = loop.start_run(model, identity, accelerator, p, processes, shard)
    state = shards.RUNS / "-".join(["train", *fingerprints])
    return Training(pipeline, run, rows, state, origin, networks, base, truncated)


def running_dtypes(p: TrainParams) -> dict[str, torch.dtype]:
    """The precision of each component in training: float32 where it trains, and for the autoencoder in fp16."""
    frozen = DTYPES[p.precision]
    vae = torch.float32 if p.precision == "fp16" else frozen  # SDXL's overflows in fp16
    denoiser = torch.float32 if p.tune == "whole" else frozen
    text = torch.float32 if p.text_encoder_rate > 0 else frozen
    return {"default": torch.float32, "vae": vae, "unet": denoiser, "transformer": denoiser,
            **dict.fromkeys(("text_encoder", "text_encoder_2", "text_encoder_3"), text)}  # fmt: skip


def starting_pipeline(p: TrainParams, dtype: Dtypes = torch.float32, base: str | None = None) -> TamingPipeline:
    """The pipeline that the params start from, on the CPU.

    Args:
        p: the params.
        dtype: of the weights.
        base: the base of the encoder `p.start`; None for the one that it names.

    Raises:
        TamingError: a model is missing, or base, design and losses are incompatible.
    """
    if p.start is None:
        pipeline = new_pipeline(p, dtype)
    else:
        pipeline = continued_pipeline(load_pipeline(p.start, precision=dtype, base=base), p)
    require_losses(pipeline, p)
    return pipeline


def new_pipeline(p: TrainParams, dtype: Dtypes = torch.float32) -> TamingPipeline:
    """A text-to-image model with an untrained object encoder.

    Raises:
        TamingError: a model is missing, or base and design are incompatible.
    """
    assert p.base is not None  # checked when the params were loaded
    parts = load_base(p.base, dtype)
    family = family_of(parts)
    require_design(family, p)
    for tokenizer, text_encoder in zip(family.tokenizers, family.text_encoders.values(), strict=True):
        add_placeholder_token(tokenizer, text_encoder)
    pipeline: Any = assemble(parts, new_object_encoder(family, p))
    pipeline.base = new_record(p.base, parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def weight_digests(pipeline: TamingPipeline) -> dict[str, str]:
    """Digests of the networks whose files are on this machine, by their names in training.

    A new object encoder has none. The base's text encoders count with their embedding of `<object>`, and in a folder
    with only what was trained the denoiser counts with its LoRA.
    """
    record, folder = pipeline.base, Path(pipeline.name_or_path) if pipeline.name_or_path else None
    found: dict[str, str | None] = {} if record is None else dict(record.weights)
    if folder is not None:
        networks = [n for n, part in pipeline.components.items() if isinstance(part, nn.Module) and n not in found]
        found |= {name: weights_digest(folder / name) for name in networks}
    parts, digests = dict[str, list[str]](), {name: d for name, d in found.items() if d is not None}
    for name in () if record is None else record.text_encoders:
        row = placeholder_embedding(pipeline.components[tokenizer_of(name)], pipeline.components[name])
        parts[name] = [digest([row.float().numpy().tobytes()])]
    if record is not None and folder is not None and (file := folder / lora.FILE).is_file():
        parts[pipeline.family.denoiser_name] = [file_digest(file)]
    digests |= {name: digest(part.encode() for part in (digests[name], *more)) for name, more in parts.items()}
    return {"denoiser" if name == pipeline.family.denoiser_name else name: d for name, d in digests.items()}


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
    diffuses = {"min_snr to null": p.min_snr is not None, "zero_terminal_snr to false": p.zero_terminal_snr,
                "timestep_power to 1.0": p.timestep_power > 1}  # fmt: skip
    if is_flow_matching(pipeline.scheduler) and any(diffuses.values()):
        key = next(key for key, is_set in diffuses.items() if is_set)
        raise TamingError(f"The base was trained by flow matching, which has no such noise schedule. Set train.{key}.")
    if family.reads_guidance and p.guidance is None:
        raise TamingError("The base is guidance-distilled: it reads the guidance scale that images are drawn with. Set "
                          "train.guidance to it, such as 3.5, or to a range, such as [1.0, 5.0].")  # fmt: skip
    if not family.reads_guidance and p.guidance is not None:
        raise TamingError("train.guidance has no effect on this base, which is not guidance-distilled. Set it to null.")
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
    encoder: Any = pipeline.object_encoder
    if encoder.config["binding"] is not None and not p.binding:
        raise TamingError(f"train.binding must be true, since {p.start} binds objects to their <object>. Set it to "
                          "true.")  # fmt: skip
    if encoder.config["positions"] and not p.positions:
        raise TamingError(f"train.positions must be true, since the tokens of {p.start} have them. Set it to true.")
    encoder.register_to_config(captions=p.captions)
    if encoder.config["collage"] is not None and p.collage is None:
        raise TamingError(
            f"train.collage must be set, since the denoiser of {p.start} reads one. Set its drop and jitter."
        )
    if p.collage is not None and (design == "reference" or encoder.config["background"] == "kept"):
        raise TamingError(f"train.collage must be null, since {p.start} has no cut-out or no tokens of its own. Set it "
                          "to null.")  # fmt: skip
    if p.positions:
        encoder.add_positions()
    if p.collage is not None:
        encoder.add_collage(collage_size(pipeline.family))
    if p.binding:
        encoder.add_binding(pipeline.family.width)
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
    settings = {"injection": p.injection, "layers": added, "background": p.background, "captions": p.captions,
                "binding": family.width if p.binding else None, "positions": p.positions,
                "collage": None if p.collage is None else list(collage_size(family))}  # fmt: skip
    random: Any = torch.random
    with random.fork_rng(devices=[]):
        random.manual_seed(seed_for(p.seed, "encoder", 0))
        encoder = latent_encoder(family, settings) if p.encoder is None else tower_encoder(family, p.encoder, settings)
    init_injected_layers(encoder, family.denoiser)
    return encoder.eval()


def collage_size(family: Family) -> CollageSize:
    """What the denoiser's first layer needs of a collage."""
    return CollageSize(family.latent_channels, family.first_channels, family.patch)


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
    encoder.vision.load_state_dict(tower.state_dict(), assign=True)  # without a second copy
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
