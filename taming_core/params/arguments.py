"""Checks of command-line arguments that import nothing heavy, so that mistakes are reported at once."""

import os
import re
from collections.abc import Iterable
from functools import cache, reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from taming_core.errors import TamingError
from taming_core.files import require_out, require_replaceable
from taming_core.params.caption import VLM, CaptionParams
from taming_core.params.sections import DetectParams, EvaluateParams, Section
from taming_core.params.train import TrainParams

PRECISIONS = ("fp32", "bf16", "fp16")
EVALUATION_FILES = (
    "images", "plots", "scores.jsonl", "report.html", "sheet.png", "timings.json", "intervals.json", "metrics.json",
)  # fmt: skip
EXPORT_RECORD = "export.json"
# `taming materialize` once wrote dropped rows into the same folder.
ROWS_FILE = re.compile(r"(train|validation|test|dropped)(-.*)?\.parquet")
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
MODELS: dict[type[Section], tuple[str, ...]] = {  # keys of params.yaml that name a model
    DetectParams: ("detect.detector", "detect.segmenter"),
    CaptionParams: ("caption.captioner", "caption.matcher", "caption.attributes.model"),
    TrainParams: ("train.start", "train.base", "train.encoder.tower", "train.identity_network"),
    EvaluateParams: ("evaluate.judge", "evaluate.strict_judge", "evaluate.text_judge"),
}
SCHEDULER = re.compile(r"^class (\w+)\(.*\bSchedulerMixin\b", re.MULTILINE)


def require_device(name: str) -> None:
    """Raises TamingError if the name is not that of a device; `pick_device` checks whether this machine has it."""
    if not DEVICE.fullmatch(name):
        raise TamingError(f"There is no device {name}. Use --device auto, cpu, cuda, cuda:1 or mps.")


def require_precision(precision: str, device: str, offload: bool) -> None:
    """Check a precision, and that the device supports it and offloading.

    Raises:
        TamingError: the precision is unknown, or the device is the CPU and it is fp16 or `offload` is set.
    """
    if precision not in PRECISIONS:
        raise TamingError(f"There is no precision {precision}. Use one of {', '.join(PRECISIONS)}.")
    if device == "cpu" and (offload or precision == "fp16"):
        raise TamingError(f"{'--offload' if offload else '--precision fp16'} has no effect on the CPU. Leave it out, "
                          "or use another --device.")  # fmt: skip


@cache
def schedulers() -> frozenset[str]:
    """Class names of diffusers' schedulers, read from its source files: importing it takes seconds."""
    spec = find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    files = Path(spec.origin).parent.glob("schedulers/**/scheduling_*.py")
    return frozenset(name for file in files for name in SCHEDULER.findall(file.read_text(encoding="utf-8")))


def require_scheduler(name: str) -> None:
    """Raises TamingError if diffusers has no scheduler of this class name."""
    if name not in schedulers():
        raise TamingError(f"diffusers has no scheduler '{name}'. Name one of its classes, such as DDIMScheduler.")


def require_encoder_out(out: Path, *inputs: Path | None) -> None:
    """Raises TamingError if `out` cannot be written beside the inputs, or holds something else than an encoder."""
    require_out(out, inputs)
    require_replaceable(out, lambda folder: (folder / "model_index.json").is_file(), "an encoder")


def require_evaluation_out(out: Path, *inputs: Path | None) -> None:
    """Raises TamingError if `out` cannot be written beside the inputs, or holds something else than an evaluation.

    Hidden files do not count.
    """
    require_out(out, inputs)
    require_replaceable(out, lambda folder: names_in(folder) <= set(EVALUATION_FILES), "an evaluation")


def require_rows_out(out: Path, *inputs: Path | None) -> None:
    """Raises TamingError if `out` cannot be written beside the inputs, or holds something else than files of rows."""
    require_out(out, inputs)
    require_replaceable(out, lambda folder: all(map(ROWS_FILE.fullmatch, names_in(folder))), "rows")


def require_export_out(out: Path, *inputs: Path | None) -> None:
    """Raises TamingError if `out` cannot be written beside the inputs, or holds something else than an export."""
    require_out(out, inputs)
    require_replaceable(out, lambda folder: (folder / EXPORT_RECORD).is_file(), "an export")


def folder_of(spec: str | None) -> Path | None:
    """The file or folder that a model's name means, for the check of an output; None for another kind of name."""
    path = None if spec is None or spec == "mini" else Path(spec).expanduser()
    return path if path is not None and path.exists() else None


def names_in(folder: Path) -> set[str]:
    """The names in a folder that are not hidden."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def require_files(paths: Iterable[Path]) -> None:
    """Raises TamingError if one of the paths does not exist."""
    for path in paths:
        if not path.exists():
            raise TamingError(f"There is no {path}. Name an existing file or folder.")


def require_models(*sections: Section) -> None:
    """Check the models that sections of params name by a path.

    Published names and hub repositories are checked by the functions that load them.

    Raises:
        TamingError: a path does not exist; the message names its key.
    """
    for section in sections:
        named = [(name, reduce(_get, name.split(".")[1:], section)) for name in MODELS[type(section)]]
        for name, spec in named + (score_models(section) if isinstance(section, DetectParams) else []):
            path = spec.removeprefix(VLM) if isinstance(spec, str) and "://" not in spec else ""
            if looks_local(path) and not Path(path).expanduser().exists():
                raise TamingError(f"{name} is {spec}, and there is no such file or folder. Correct it, or set it to "
                                  "mini.")  # fmt: skip


def require_api_key(p: CaptionParams) -> None:
    """Raises TamingError if the API key of a captioner behind a server is not in the environment."""
    name = p.vlm_params.api_key_env
    if name is not None and not os.environ.get(name):
        raise TamingError(f"caption.vlm.api_key_env is {name}, and there is no such environment variable. Export the "
                          "server's API key in it, or remove the key.")  # fmt: skip


def score_models(p: DetectParams) -> list[tuple[str, str]]:
    """The models of `detect.curation`, by their keys."""
    return [(f"detect.curation.scores.{s.name}.model", s.model) for s in p.curation.scores] if p.curation else []


def _get(section: Any, key: str) -> Any:
    """A key of a section; None of none."""
    return section and getattr(section, key)


def looks_local(spec: str) -> bool:
    """Whether a model's name can only be a path.

    >>> [looks_local(s) for s in ("mini", "yolo11n-seg", "owner/name", "./clip", "/models/clip", "~/clip", "a/b/c/")]
    [False, False, False, True, True, True, True]
    """
    return spec.startswith((".", "/", "~")) or spec.endswith("/")
