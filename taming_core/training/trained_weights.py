"""The weights that a training leaves: the object encoder, a LoRA, and networks that trained as a whole; in fp16."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from safetensors.torch import load_file, save_file  # pyright: ignore[reportUnknownVariableType]  # PathLike[Unknown]
from torch import Tensor
from transformers import PreTrainedModel

from taming_core.bases.family import tokenizer_of
from taming_core.bases.placeholder import placeholder_embedding
from taming_core.bases.record import EMBEDDINGS, BaseRecord, entry_of
from taming_core.files import read_json, write_json
from taming_core.model import lora
from taming_core.model.object_encoder import ObjectEncoder
from taming_core.model.towers import load_tower
from taming_core.params.train import TrainParams
from taming_core.training.start import Training
from taming_core.weights.precision import convert

Weights = Mapping[str, Mapping[str, Tensor]]  # trained ones, by network and name


def save_trained(training: Training, record: BaseRecord, results: Weights, p: TrainParams, part: Path) -> None:
    """Save in fp16 what was trained, now or before: the object encoder, LoRA, networks as a whole; and the scheduler.

    A network that comes from the base is not saved; of a text encoder only its embedding of `<object>`.
    """
    pipeline, components = cast(Any, training.pipeline), training.pipeline.components
    left = save_whole_networks(training, record, results, p, part)
    save_network(trained_encoder(training, results["object_encoder"], p), part / "object_encoder")
    rows = {n: placeholder_embedding(components[tokenizer_of(n)], components[n]) for n in left.text_encoders}
    save_file({name: row.float().cpu().contiguous() for name, row in rows.items()}, part / EMBEDDINGS)
    if (layers := lora_of(training, results, p)) is not None:
        lora.save_lora(pipeline, {name: w.half() for name, w in layers.items()}, part / lora.FOLDER)
    pipeline.scheduler.save_pretrained(part / "scheduler")
    pipeline.save_config(part)
    write_json(part / "model_index.json", read_json(part / "model_index.json") | entry_of(left))


def save_whole_networks(
    training: Training, record: BaseRecord, results: Weights, p: TrainParams, part: Path
) -> BaseRecord:
    """Save the networks that trained as a whole, and tokenizers of text encoders; returns the record of the others."""
    components, denoiser = training.pipeline.components, training.pipeline.family.denoiser_name
    trained = {name: weights for name, weights in results.items() if name not in ("denoiser", "object_encoder")}
    trained |= {denoiser: results["denoiser"]} if p.tune == "whole" else {}
    left = {name: digest for name, digest in record.weights.items() if name not in trained}
    for name in [n for n, c in components.items() if isinstance(c, torch.nn.Module) and n not in left]:
        if name in trained:
            save_network(with_weights(components[name], trained[name]), part / name)
        elif name != "object_encoder":  # trained by the training that this one continues
            shutil.copytree(Path(str(training.pipeline.name_or_path)) / name, part / name)
        if name.startswith("text_encoder"):
            components[tokenizer_of(name)].save_pretrained(part / tokenizer_of(name))
    return BaseRecord(record.name, record.revision, left)


def save_network(network: Any, folder: Path) -> None:
    """Save a network in fp16; it is converted in place."""
    convert(network, torch.float16)
    network.save_pretrained(folder)


def with_weights(network: Any, weights: Mapping[str, Tensor]) -> Any:
    """A network of the same config with these weights, which are all of its own; that one may be sharded."""
    with torch.device("meta"):
        if isinstance(network, PreTrainedModel):
            empty: Any = type(network)(network.config)
        else:
            empty = getattr(diffusers, network.config["_class_name"]).from_config(network.config)
    buffers = {name: value.cpu() for name, value in network.named_buffers()}  # the positions of SD 3
    empty.load_state_dict({**buffers, **weights}, strict=False, assign=True)  # tied weights have one name in `weights`
    if isinstance(network, PreTrainedModel):
        empty.tie_weights()
    return empty


def trained_encoder(training: Training, weights: Mapping[str, Tensor], p: TrainParams) -> ObjectEncoder:
    """The object encoder with its trained weights; the others as they were before the precision of the run."""
    encoder: Any = training.pipeline.object_encoder
    before = {name: value.float().cpu() for name, value in encoder.state_dict().items()}
    if p.precision != "fp32" and encoder.config["tower"] is not None:
        start = None if p.start is None else Path(training.pipeline.name_or_path) / "object_encoder"
        tower = load_tower(str(start) if start or p.encoder is None else p.encoder.tower)[0]
        before |= {f"vision.{name}": value for name, value in tower.state_dict().items()}
    whole = ObjectEncoder(**{key: value for key, value in encoder.config.items() if not key.startswith("_")})
    whole.load_state_dict({**before, **weights})
    return whole.eval()


def lora_of(training: Training, results: Weights, p: TrainParams) -> dict[str, Tensor] | None:
    """The LoRA between the saved denoiser and the trained one, together with that of an earlier training."""
    pipeline = training.pipeline
    earlier = Path(pipeline.name_or_path) / lora.FILE if pipeline.name_or_path else None
    if p.tune == "whole":
        return None
    name = pipeline.family.denoiser_name
    first = load_file(earlier) if earlier is not None and earlier.is_file() else None
    first = None if first is None else {n.removeprefix(f"{name}."): w.float() for n, w in first.items()}
    if p.lora is None:
        return first
    second = lora.lora_weights(pipeline.denoiser, results["denoiser"])
    return second if first is None else lora.stack(first, second)
