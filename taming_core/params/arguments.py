"""What commands are told, checked before anything large is imported, so that a mistake is answered at once."""

import re
from collections.abc import Iterable
from functools import cache, reduce
from importlib.util import find_spec
from pathlib import Path

from taming_core.errors import TamingError
from taming_core.params.sections import CaptionParams, DetectParams, EvaluateParams, Section
from taming_core.params.train import TrainParams

PRECISIONS = ("fp32", "bf16", "fp16")
EVALUATION_FILES = (
    "images", "plots", "scores.jsonl", "report.html", "sheet.png", "timings.json", "intervals.json", "metrics.json",
)  # fmt: skip
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
MODELS: dict[type[Section], tuple[str, ...]] = {  # keys of params.yaml that name one
    DetectParams: ("detect.detector", "detect.segmenter"),
    CaptionParams: ("caption.captioner", "caption.matcher"),
    TrainParams: ("train.start", "train.base", "train.encoder.tower", "train.identity_network"),
    EvaluateParams: ("evaluate.judge", "evaluate.strict_judge", "evaluate.text_judge"),
}
SCHEDULER = re.compile(r"^class (\w+)\(.*\bSchedulerMixin\b", re.MULTILINE)


def require_device(name: str) -> None:
    """Raises TamingError if no machine has such a device; whether this one has it, `pick_device` knows."""
    if not DEVICE.fullmatch(name):
        raise TamingError(f"There is no device {name}. Use --device auto, cpu, cuda, cuda:1 or mps.")


def require_precision(precision: str, device: str, offload: bool) -> None:
    """Refuse a precision that is none, and what a device has no use for.

    Raises:
        TamingError: naming what to change.
    """
    if precision not in PRECISIONS:
        raise TamingError(f"There is no precision {precision}. Use one of {', '.join(PRECISIONS)}.")
    if device == "cpu" and (offload or precision == "fp16"):
        raise TamingError(f"{'--offload' if offload else '--precision fp16'} is of no use on the CPU. Leave it out, or "
                          "use another --device.")  # fmt: skip


@cache
def schedulers() -> frozenset[str]:
    """The schedulers of diffusers by class name, read from its files: importing it takes seconds."""
    spec = find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    files = Path(spec.origin).parent.glob("schedulers/**/scheduling_*.py")
    return frozenset(name for file in files for name in SCHEDULER.findall(file.read_text(encoding="utf-8")))


def require_scheduler(name: str) -> None:
    """Raises TamingError if diffusers has no scheduler of this class name."""
    if name not in schedulers():
        raise TamingError(f"diffusers has no scheduler '{name}'. Name one of its classes, such as DDIMScheduler.")


def require_encoder_out(out: Path) -> None:
    """Raises TamingError if `out` holds something else than an encoder, for all that is in it will be replaced."""
    if out.exists() and not (out / "model_index.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise TamingError(f"{out} holds something else than an encoder. Name a folder of its own with --out.")


def require_evaluation_out(out: Path) -> None:
    """Raises TamingError if `out` holds something that an evaluation does not leave; hidden files do not count."""
    names = {p.name for p in out.iterdir() if p.name[0] != "."} if out.is_dir() else set[str]()
    if (out.exists() and not out.is_dir()) or names - set(EVALUATION_FILES):
        raise TamingError(f"{out} holds other files than an evaluation. Name a folder of its own with --out.")


def require_files(paths: Iterable[Path]) -> None:
    """Raises TamingError if one of the paths is neither a file nor a folder."""
    for path in paths:
        if not path.exists():
            raise TamingError(f"There is no {path}. Name a file or a folder that is there.")


def require_models(*sections: Section) -> None:
    """Refuse sections of params that name a model by a path where nothing is.

    What may be a published name or a repository of the hub is left to the function that loads it.

    Raises:
        TamingError: naming the key.
    """
    for section in sections:
        for name in MODELS[type(section)]:
            spec = reduce(lambda part, key: part and getattr(part, key), name.split(".")[1:], section)
            if isinstance(spec, str) and looks_local(spec) and not Path(spec).expanduser().exists():
                raise TamingError(f"{name} is {spec}, and there is no such file or folder. Correct it, or set it to "
                                  "mini.")  # fmt: skip


def looks_local(spec: str) -> bool:
    """Whether a model's name can be nothing but a path.

    >>> [looks_local(s) for s in ("mini", "yolo11n-seg", "owner/name", "./clip", "/models/clip", "~/clip", "a/b/c/")]
    [False, False, False, True, True, True, True]
    """
    return spec.startswith((".", "/", "~")) or spec.endswith("/")
