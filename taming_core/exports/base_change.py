"""The encoder to export, and how training changed the text-to-image model that it started from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]  (its dict is untyped)
from torch import Tensor, nn

from taming_core.bases.load import load_base
from taming_core.bases.record import record_of
from taming_core.errors import TamingError
from taming_core.exports import lora_extraction
from taming_core.exports.options import ExportOptions
from taming_core.files import read_json
from taming_core.images.families import TamingPipeline, load_pipeline
from taming_core.language.placeholder import OBJECT
from taming_core.model import lora
from taming_core.model.attention import eject
from taming_core.training.encoder_folder import read_training
from taming_core.weights.device import DTYPES
from taming_core.weights.mini import encoder_folder

LORA = Path(lora.FILE).name
WORD = "object"  # the word whose embedding `<object>` has in a text encoder that was not trained


@dataclass(frozen=True)
class ExportSource:
    """The encoder to export."""

    folder: Path
    pipeline: TamingPipeline
    training: Mapping[str, Any]  # training.json; empty where the folder has none

    @property
    def began_on_base(self) -> bool:
        """Whether training started on the base, so that training.json and the folder describe all of it."""
        return bool(self.training) and (self.training["params"]["start"] is None or self.pipeline.base is not None)

    @property
    def lora(self) -> Path:
        """The LoRA that was trained; it need not exist."""
        return self.folder / lora.FILE


def open_encoder(spec: str, base: str | None = None) -> ExportSource:
    """Load the encoder of a folder or of `mini` in float32, without the object attention in its denoiser.

    Args:
        spec: `mini`, or the folder.
        base: where its base is, if the folder holds only what was trained.
    """
    index = read_json(encoder_folder(spec) / "model_index.json")
    pipeline = load_pipeline(spec, base=None if record_of(index) is None else base)
    folder = Path(pipeline.name_or_path)
    source = ExportSource(folder, pipeline, read_training(folder))
    eject(source.pipeline.denoiser)
    return source


def base_name(source: ExportSource, options: ExportOptions) -> str | None:
    """The text-to-image model that training started from; None if it is not known."""
    if source.pipeline.base is not None:
        return source.pipeline.base.name
    return options.base or (source.training["params"]["base"] if source.began_on_base else None)


def base_components(source: ExportSource, options: ExportOptions) -> dict[str, Any]:
    """The components of the base model by name.

    Raises:
        TamingError: the base is not known, or cannot be loaded.
    """
    name = options.base or base_name(source, options)
    if name is None:
        raise TamingError("The encoder's folder does not say from which text-to-image model training started. Name it "
                          "with --base.")  # fmt: skip
    try:
        return load_base(name)
    except TamingError as error:
        raise TamingError(f"The base model {name}, from which training started, was not found. Name its folder or hub "
                          "name with --base.") from error  # fmt: skip


def is_tuned(source: ExportSource, base: Mapping[str, Any] | None) -> bool:
    """Whether the denoiser differs from the base's; without `base` training.json decides."""
    if base is None:
        return source.training["params"]["tune"] != "adapter" or source.lora.is_file()
    return bool(
        lora_extraction.weight_differences(source.pipeline.denoiser, base[source.pipeline.family.denoiser_name])
    )


def write_lora(source: ExportSource, options: ExportOptions, folder: Path) -> str:
    """Write the LoRA that was trained, or the best one of rank `options.rank` of the denoiser's change; returns a note.

    Raises:
        TamingError: the rank or the base is needed and not given, or nothing has changed.
    """
    if source.began_on_base and source.lora.is_file() and options.rank is None:
        save_lora(source, {n: w.to(DTYPES[options.dtype]) for n, w in load_file(source.lora).items()}, folder)
        return "The LoRA is the one that was trained."
    if options.rank is None:
        raise TamingError("The denoiser was fine-tuned, and not by one LoRA alone. Give the --rank of a LoRA to "
                          "extract from it, such as 64, or export with --to diffusers.")  # fmt: skip
    base = base_components(source, options)[source.pipeline.family.denoiser_name]
    extracted = lora_extraction.extract(
        lora_extraction.weight_differences(source.pipeline.denoiser, base), source.pipeline.denoiser, options.rank
    )
    save_lora(source, {n: w.to(DTYPES[options.dtype]) for n, w in extracted.layers.items()}, folder)
    return (
        f"The LoRA of rank {options.rank} keeps {extracted.kept:.1%} of the sum of squares of the denoiser's change in "
        f"training; {extracted.covered:.1%} lies in linear and convolution weights, the most that any rank can keep."
    )


def save_lora(source: ExportSource, layers: Mapping[str, Tensor], folder: Path) -> None:
    """Write a LoRA as diffusers does for the family; layer names may start with the denoiser's name."""
    name = source.pipeline.family.denoiser_name
    lora.save_lora(source.pipeline, {n.removeprefix(f"{name}."): w for n, w in layers.items()}, folder)


def require_base_text_encoder(source: ExportSource, base: Mapping[str, Any] | None) -> None:
    """Refuse a trained text encoder: an adapter file cannot hold it, and the base's would encode prompts otherwise.

    Raises:
        TamingError: a text encoder was trained, or the embedding of `<object>` is not that of "object".
    """
    family = source.pipeline.family
    for tokenizer, (name, ours) in zip(family.tokenizers, family.text_encoders.items(), strict=True):
        table = ours.get_input_embeddings().weight
        word_ids = tokenizer(WORD, add_special_tokens=False).input_ids
        rows = table[[tokenizer.convert_tokens_to_ids(OBJECT), *word_ids]]
        if source.pipeline.base is not None:  # its words have the precision of the base, `<object>` that of training
            rows = rows.to(DTYPES[source.training["params"]["precision"]])
        trained = source.training["params"]["text_encoder_rate"] > 0 if base is None else _is_trained(ours, base[name])
        if trained or len(word_ids) != 1 or not torch.allclose(rows[0], rows[1], atol=1e-3, rtol=1e-3):
            raise TamingError(f"The text encoder was trained, or its {OBJECT} differs from the word '{WORD}': an "
                              "adapter file cannot hold that. Export with --to diffusers.")  # fmt: skip


def _is_trained(ours: nn.Module, base: nn.Module) -> bool:
    """Whether any weight differs; rows of new tokens do not count."""
    theirs = base.state_dict()
    return any(not torch.equal(w[: len(theirs[n])].half(), theirs[n].half()) if w.dim() else bool(w != theirs[n])
               for n, w in ours.state_dict().items())  # fmt: skip
