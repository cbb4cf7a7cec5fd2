"""Exports of an encoder for other programs: an IP-Adapter, a LoRA, or a folder of stock diffusers."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from taming_core import fingerprints
from taming_core.bases.transformer import Transformer
from taming_core.errors import TamingError
from taming_core.exports import base_change, hub, ip_adapter, model_card, usage
from taming_core.exports.base_change import (
    ExportSource,
    base_components,
    base_name,
    is_tuned,
    open_encoder,
    require_base_text_encoder,
)
from taming_core.exports.options import ExportOptions, require_valid
from taming_core.files import replacing_folder, write_json, write_text
from taming_core.images.stock import stock_pipeline
from taming_core.params.arguments import EXPORT_RECORD
from taming_core.storage.paths import AnyPath
from taming_core.training.encoder_folder import strip_name
from taming_core.weights.device import DTYPES
from taming_core.weights.precision import convert


@dataclass
class ExportResult:
    """The content of an export, for the model card and the user."""

    notes: list[str] = field(default_factory=list[str])
    has_lora: bool = False
    has_adapter: bool = False


def export(spec: str, out: AnyPath, options: ExportOptions) -> list[str]:
    """Write `out` as a whole, push it if `options.push` is set, and return the lines to print.

    Raises:
        TamingError: see `require_valid`; or the format cannot hold this encoder.
    """
    require_valid(options, out)
    source = open_encoder(spec, options.base)
    scores = {} if options.scores is None else model_card.read_scores(options.scores)
    with replacing_folder(out) as part:
        written = WRITERS[options.to](source, options, part)
        write_text(part / "README.md", model_card.card(facts(source, options, out, written, scores)))
        write_json(part / EXPORT_RECORD, record(source, options) | {"files": sorted(p.name for p in part.iterdir())})
    return [
        f"{out}: {options.to} of {spec}",
        *written.notes,
        *([] if options.push is None else [hub.push(Path(str(out)), options.push)]),
    ]


def write_ip_adapter(source: ExportSource, options: ExportOptions, part: Path) -> ExportResult:
    """Write the adapter, its image encoder, and a LoRA if the denoiser was fine-tuned too.

    Raises:
        TamingError: see `ip_adapter.require_exportable` and `require_base_text_encoder`.
    """
    encoder, family = source.pipeline.object_encoder, source.pipeline.family
    ip_adapter.require_exportable(encoder, source.pipeline.denoiser)
    result = ExportResult(has_adapter=True)
    base = None if source.began_on_base and options.base is None else base_components(source, options)
    require_base_text_encoder(source, base)
    ip_adapter.write(encoder, source.pipeline.denoiser, part, DTYPES[options.dtype])
    if is_tuned(source, base):
        result.has_lora = True
        result.notes.append(base_change.write_lora(source, options, part))
    elif options.rank is not None:
        raise TamingError("--rank has no effect, since the denoiser was not fine-tuned. Leave it out.")
    result.notes += usage.adapter_notes(encoder, isinstance(family, Transformer))
    return result


def write_lora(source: ExportSource, options: ExportOptions, part: Path) -> ExportResult:
    """Write the LoRA of the denoiser alone."""
    result = ExportResult([base_change.write_lora(source, options, part)], has_lora=True)
    result.notes.append("The LoRA holds the change of the denoiser in training; the object encoder is not in it.")
    return result


def write_diffusers(source: ExportSource, options: ExportOptions, part: Path) -> ExportResult:
    """Write a folder of the family's stock pipeline, with `object_encoder/` as a further component."""
    result, pipeline = ExportResult(), source.pipeline
    dtype = DTYPES[options.dtype]
    for component in pipeline.components.values():
        if isinstance(component, nn.Module):
            convert(component, dtype)
    stock_pipeline(pipeline).save_pretrained(part)
    pipeline.object_encoder.save_pretrained(part / "object_encoder")
    if source.training:
        shutil.copy(source.folder / "training.json", part)
    try:
        ip_adapter.require_exportable(pipeline.object_encoder, source.pipeline.denoiser)
    except TamingError:
        result.notes.append("Stock diffusers loads it as a text-to-image model; objects need TamingPipeline.")
    else:
        ip_adapter.write(pipeline.object_encoder.float(), source.pipeline.denoiser, part / "ip_adapter", dtype)
        result.has_adapter = True
        result.notes += usage.adapter_notes(pipeline.object_encoder, isinstance(pipeline.family, Transformer))
    for path in part.rglob("*.json"):
        strip_name(path)
    return result


WRITERS = {"ip-adapter": write_ip_adapter, "lora": write_lora, "diffusers": write_diffusers}


def facts(
    source: ExportSource, options: ExportOptions, out: AnyPath, written: ExportResult, scores: Mapping[str, float]
) -> model_card.Facts:
    """The content of the model card."""
    name, base = options.push or out.name, base_name(source, options)
    public_base = Path(base).name if base is not None and Path(base).is_absolute() else base  # no local path
    encoder, pipeline = source.pipeline.object_encoder, source.pipeline.family.pipeline_name
    example = usage.Usage(name, pipeline, public_base, encoder, written.has_lora, written.has_adapter)
    return model_card.Facts(
        name=name, title=usage.TITLES[options.to], tags=usage.TAGS[options.to], base=public_base,
        licence=model_card.licence_of(base), training=source.training, scores=scores,
        code=usage.CODE[options.to](example), notes=written.notes,
    )  # fmt: skip


def record(source: ExportSource, options: ExportOptions) -> dict[str, Any]:
    """The provenance in export.json: format, encoder and versions."""
    return {
        "to": options.to,
        "dtype": options.dtype,
        "encoder": {"folder": source.folder.name, "fingerprint": fingerprints.folder_fingerprint(source.folder)},
        "versions": fingerprints.versions(),
    }
