"""An encoder's folder as other programs open it: an IP-Adapter, a LoRA, or a folder of stock diffusers."""

import inspect
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
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
from taming_core.exports.options import RECORD, ExportOptions, require_valid
from taming_core.images.families import TamingPipeline
from taming_core.training.encoder_folder import strip_name
from taming_core.weights.device import DTYPES


@dataclass
class Written:
    """What the export holds, for the card and for the user."""

    notes: list[str] = field(default_factory=list)
    has_lora: bool = False
    has_adapter: bool = False


def export(spec: str, out: Path, options: ExportOptions) -> list[str]:
    """Write `out` as a whole, push it if wished, and return what there is to say.

    Raises:
        TamingError: see `check`; or what is asked for cannot hold this encoder.
    """
    require_valid(options, out)
    source = open_encoder(spec)
    scores = {} if options.scores is None else model_card.read_scores(options.scores)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        written = WRITERS[options.to](source, options, part)
        card = model_card.card(facts(source, options, out, written, scores))
        (part / "README.md").write_text(card, encoding="utf-8")
        (part / RECORD).write_text(json.dumps(record(source, options), indent=2) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return [
        f"{out}: {options.to} of {spec}",
        *written.notes,
        *([] if options.push is None else [hub.push(out, options.push)]),
    ]


def write_ip_adapter(source: ExportSource, options: ExportOptions, part: Path) -> Written:
    """The adapter, its image encoder, and beside them a LoRA where the denoiser was tuned too.

    Raises:
        TamingError: see `ip_adapter.require_exportable`; or words mean something else than the base's.
    """
    encoder, family = source.pipeline.object_encoder, source.pipeline.family
    ip_adapter.require_exportable(encoder, source.pipeline.denoiser)
    found = Written(has_adapter=True)
    base = None if source.began_on_base and options.base is None else base_components(source, options)
    require_base_text_encoder(source, base)
    ip_adapter.write(encoder, source.pipeline.denoiser, part, DTYPES[options.dtype])
    if is_tuned(source, base):
        found.has_lora = True
        found.notes.append(base_change.write_lora(source, options, part))
    elif options.rank is not None:
        raise TamingError("--rank has no effect, for the denoiser is the base's own. Leave it out.")
    found.notes += usage.adapter_notes(encoder, isinstance(family, Transformer))
    return found


def write_lora(source: ExportSource, options: ExportOptions, part: Path) -> Written:
    """The LoRA of the denoiser alone."""
    found = Written([base_change.write_lora(source, options, part)], has_lora=True)
    found.notes.append("The LoRA is what training changed of the denoiser; the object encoder is not in it.")
    return found


def write_diffusers(source: ExportSource, options: ExportOptions, part: Path) -> Written:
    """A folder of the family's own pipeline, with the object encoder beside its parts."""
    found, pipeline = Written(), source.pipeline
    dtype = DTYPES[options.dtype]
    for component in pipeline.components.values():
        if isinstance(component, nn.Module):
            nn.Module.to(component, dtype)
    stock_pipeline(pipeline).save_pretrained(part)
    pipeline.object_encoder.save_pretrained(part / "object_encoder")
    if source.training:
        shutil.copy(source.folder / "training.json", part)
    try:
        ip_adapter.require_exportable(pipeline.object_encoder, source.pipeline.denoiser)
    except TamingError:
        found.notes.append("Stock diffusers draws with it as a text-to-image model; objects need TamingPipeline.")
    else:
        ip_adapter.write(pipeline.object_encoder.float(), source.pipeline.denoiser, part / "ip_adapter", dtype)
        found.has_adapter = True
        found.notes += usage.adapter_notes(pipeline.object_encoder, isinstance(pipeline.family, Transformer))
    for path in part.rglob("*.json"):
        strip_name(path)
    return found


WRITERS = {"ip-adapter": write_ip_adapter, "lora": write_lora, "diffusers": write_diffusers}


def stock_pipeline(pipeline: TamingPipeline) -> Any:
    """The family's pipeline of diffusers around the same components; it has no safety checker."""
    stock, components = getattr(diffusers, pipeline.family.pipeline_name), pipeline.components
    wanted = inspect.signature(stock.__init__).parameters
    parts = {n: components.get(n) for n, p in wanted.items() if n != "self" and p.default is inspect.Parameter.empty}
    switches = {"requires_safety_checker": False} if "requires_safety_checker" in wanted else {}
    return stock(**parts, **switches)


def facts(
    source: ExportSource, options: ExportOptions, out: Path, written: Written, scores: Mapping[str, float]
) -> model_card.Facts:
    """What the card tells."""
    name, base = options.push or out.name, base_name(source, options)
    shown = Path(base).name if base is not None and Path(base).is_absolute() else base
    encoder, pipeline = source.pipeline.object_encoder, source.pipeline.family.pipeline_name
    used = usage.Usage(name, pipeline, shown, encoder, written.has_lora, written.has_adapter)
    return model_card.Facts(
        name=name, title=usage.TITLES[options.to], tags=usage.TAGS[options.to], base=shown,
        licence=model_card.licence_of(base), training=source.training, scores=scores, code=usage.CODE[options.to](used),
        notes=written.notes,
    )  # fmt: skip


def record(source: ExportSource, options: ExportOptions) -> dict[str, Any]:
    """What it was made from, and by what."""
    return {
        "to": options.to,
        "dtype": options.dtype,
        "encoder": {"folder": source.folder.name, "fingerprint": fingerprints.folder_fingerprint(source.folder)},
        "versions": fingerprints.versions(),
    }
