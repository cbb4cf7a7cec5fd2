"""Checks of command-line arguments that import nothing heavy, so that mistakes are reported at once."""

import ast
import os
import re
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache, reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from taming_core.errors import TamingError
from taming_core.files import names_in, read_json, require_out, require_replaceable
from taming_core.params.caption import VLM, CaptionParams
from taming_core.params.sections import DetectParams, EvaluateParams, EvaluationScores, Section, is_salient
from taming_core.params.train import TrainParams
from taming_core.storage.filesystem import exists
from taming_core.storage.paths import AnyPath

PRECISIONS = ("fp32", "bf16", "fp16")
EVALUATION_FILES = (
    "images", "plots", "scores.jsonl", "report.html", "sheet.png", "timings.json", "protocol.json", "strata.json",
    "intervals.json", "metrics.json",
)  # fmt: skip
JUDGE_CHECK_FILES = ("judge_check.json", "judge_check.csv", "judge_check.png")  # with evaluate.judge_check, too
ENCODER_FILES = (
    "model_index.json", "training.json", "README.md", "metrics.jsonl", "losses.png", "validation", "lora",
    "placeholder.safetensors",
)  # fmt: skip
BASELINE_RECORD = "baseline.json"
BASELINE_FILES = ("learned_embeds.safetensors", "learned_embeds_2.safetensors", "pytorch_lora_weights.safetensors")
EXPORT_RECORD = "export.json"
# `taming materialize` once wrote dropped rows into the same folder.
ROWS_FILE = re.compile(r"(train|validation|test|dropped)(-.*)?\.parquet")
CHECKPOINT = re.compile(r"step-\d+")  # of a baseline
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
MODELS: dict[type[Section], tuple[str, ...]] = {  # keys of params.yaml that name a model
    DetectParams: ("detect.detector", "detect.segmenter", "detect.classifier"),
    CaptionParams: ("caption.captioner", "caption.matcher", "caption.attributes.model"),
    TrainParams: ("train.start", "train.base", "train.encoder.tower", "train.identity_network"),
    EvaluateParams: (
        "evaluate.judge",
        "evaluate.strict_judge",
        "evaluate.text_judge",
        "evaluate.scores.dino",
        "evaluate.scores.dinov2",
        "evaluate.scores.clip_b32",
        "evaluate.scores.clip_l14",
        "evaluate.vlm.model",
    ),
}
SCHEDULER = re.compile(r"^class (\w+)\(.*\bSchedulerMixin\b", re.MULTILINE)


def require_device(name: str) -> None:
    """Raises TamingError if the name is not that of a device; `pick_device` checks whether this machine has it."""
    if not DEVICE.fullmatch(name):
        raise TamingError(f"There is no device {name}. Use --device auto, cpu, cuda, cuda:1 or mps.")


def require_studio(folder: Path) -> None:
    """Raises TamingError if there is no such folder, or `taming studio` lacks the package that serves its page."""
    if not folder.is_dir():
        raise TamingError(f"There is no folder {folder}. Name a project, or create one with `taming init {folder}`.")
    if find_spec("gradio") is None:
        raise TamingError("`taming studio` needs the package gradio. Run `pip install 'taming[studio]'`.")


def require_free_port(port: int) -> None:
    """Raises TamingError if a port of this machine is taken, or may not be used."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise TamingError(f"Port {port} cannot be used: {error.strerror}. Name another with --port.") from error


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


def require_trainable(p: EvaluateParams, precision: str, offload: bool) -> None:
    """Raises TamingError if baselines are to be trained, and with these arguments cannot be."""
    if (offload or precision == "fp16") and set(p.baselines) - {"class-noun"}:
        raise TamingError(f"{'--offload' if offload else '--precision fp16'} cannot train the baselines of "
                          "evaluate.baselines. Leave one of them out.")  # fmt: skip


def require_training_precision(precision: str) -> None:
    """Raises TamingError if a precision is unknown, or is fp16, whose range is too small for gradients."""
    if precision not in ("fp32", "bf16"):
        raise TamingError(f"Baselines cannot be trained in {precision}. Use --precision fp32 or bf16.")


def diffusers_folder() -> Path:
    """Where diffusers is installed; importing it takes seconds."""
    spec = find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@cache
def schedulers() -> Mapping[str, Path]:
    """The source files of diffusers' schedulers by class name."""
    files = diffusers_folder().glob("schedulers/**/scheduling_*.py")
    return {name: file for file in files for name in SCHEDULER.findall(file.read_text(encoding="utf-8"))}


def require_scheduler(name: str) -> None:
    """Raises TamingError if diffusers has no scheduler of this class name."""
    if name not in schedulers():
        raise TamingError(f"diffusers has no scheduler '{name}'. Name one of its classes, such as DDIMScheduler.")
    if package := missing_package(name):
        raise TamingError(f"{name} needs the package {package}. Run `pip install {package}`, or name another.")


def missing_package(scheduler: str) -> str | None:
    """The optional package of diffusers that a scheduler needs, if it is not installed."""
    for file in sorted(diffusers_folder().glob("utils/dummy_torch_and_*_objects.py")):
        package = file.stem.removeprefix("dummy_torch_and_").removesuffix("_objects")
        if f"class {scheduler}(" in file.read_text(encoding="utf-8") and find_spec(package) is None:
            return package
    return None


def scheduler_options(name: str) -> set[str]:
    """The names of a scheduler's options, read from its source file."""
    classes = (n for n in ast.parse(schedulers()[name].read_text(encoding="utf-8")).body if isinstance(n, ast.ClassDef))
    body = next(c.body for c in classes if c.name == name)
    start = next(n for n in body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    return {argument.arg for argument in start.args.args}


def require_fitting_scheduler(name: str, model: str, config: Mapping[str, Any]) -> None:
    """Require a scheduler that fits a model's noise schedule.

    Args:
        name: its class name.
        model: the class name of the model's own scheduler.
        config: of the model's own scheduler.

    Raises:
        TamingError: diffusers has no such scheduler, or only one of the two is for flow matching.
    """
    require_scheduler(name)
    flow_matching, options = is_flow_matching(model, config), scheduler_options(name)
    for_flow_matching = name.startswith("FlowMatch")
    if flow_matching and not for_flow_matching and "use_flow_sigmas" not in options:
        raise TamingError(f"{name} does not support flow-matching models. Name FlowMatchEulerDiscreteScheduler or "
                          "DPMSolverMultistepScheduler.")  # fmt: skip
    if flow_matching and config.get("use_dynamic_shifting") and "use_dynamic_shifting" not in options:
        raise TamingError(f"{name} does not support dynamic shifting, which this model needs. Name "
                          "FlowMatchEulerDiscreteScheduler or DPMSolverMultistepScheduler.")  # fmt: skip
    if for_flow_matching and not flow_matching:
        raise TamingError(f"{name} is for flow-matching models, and this is none. Name another, such as "
                          "DDIMScheduler.")  # fmt: skip


def is_flow_matching(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a scheduler is for flow matching (Lipman et al., 2023) rather than for a diffusion process (DDPM).

    Args:
        name: its class name.
        config: its config.
    """
    return name.startswith("FlowMatch") or bool(config.get("use_flow_sigmas", False))


def require_encoder_out(out: AnyPath, *inputs: AnyPath | None) -> None:
    """Raises TamingError if `out` cannot be written beside the inputs, or holds something else than an encoder."""
    require_out(out, inputs)
    require_replaceable(out, is_encoder, "an encoder")


def is_encoder(folder: AnyPath) -> bool:
    """Whether a folder is what `taming train` wrote, and nothing was put into it; a downloaded model is not."""
    components = _json_of(folder / "model_index.json")
    return "object_encoder" in components and names_in(folder) <= {*ENCODER_FILES, *components}


def is_export(folder: AnyPath) -> bool:
    """Whether a folder is what `taming export` wrote, and nothing was put into it."""
    record = _json_of(folder / EXPORT_RECORD)
    return "to" in record and names_in(folder) <= {EXPORT_RECORD, *record.get("files", names_in(folder))}


def is_baseline(folder: Path) -> bool:
    """Whether a folder is what `taming baseline` wrote, and nothing was put into it."""
    record, components = _json_of(folder / BASELINE_RECORD), _json_of(folder / "model_index.json")
    files = {name for name in names_in(folder) if not CHECKPOINT.fullmatch(name)}
    return "photos" in record and files <= {BASELINE_RECORD, *BASELINE_FILES, "model_index.json", *components}


def _json_of(path: AnyPath) -> dict[str, Any]:
    """A JSON object in a file; empty if there is none."""
    with suppress(OSError, TamingError):
        value: Any = read_json(path)
        return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return {}


def require_evaluation_out(out: AnyPath, *inputs: AnyPath | None) -> None:
    """Raises TamingError if `out` cannot be written beside the inputs, or holds something else than an evaluation.

    Hidden files do not count.
    """
    require_out(out, inputs)
    files = {*EVALUATION_FILES, *JUDGE_CHECK_FILES}
    require_replaceable(out, lambda folder: names_in(folder) <= files, "an evaluation")


def require_judge_check_out(out: AnyPath, *inputs: AnyPath | None) -> None:
    """Raises TamingError if `out` cannot be written beside the inputs, or holds something else than such a check.

    Hidden files do not count.
    """
    require_out(out, inputs)
    require_replaceable(out, lambda folder: names_in(folder) <= set(JUDGE_CHECK_FILES), "a check of judges")


def require_comparison_out(out: AnyPath, *inputs: AnyPath | None) -> None:
    """Raises TamingError if `out` cannot be written beside the inputs, or holds something else than a comparison."""
    require_out(out, inputs)
    require_replaceable(out, lambda folder: names_in(folder) <= {"compare.json", "compare.csv"}, "a comparison")


def require_no_effect(option: str, given: Mapping[str, bool]) -> None:
    """Raises TamingError if one of the other options was given, which have no effect beside `option`."""
    if found := [name for name, is_given in given.items() if is_given]:
        raise TamingError(f"{', '.join(found)} has no effect with {option}. Leave it out.")


def require_rows_out(out: AnyPath, *inputs: AnyPath | None) -> None:
    """Raises TamingError if `out` cannot be written beside the inputs, or holds something else than files of rows."""
    require_out(out, inputs)
    require_replaceable(out, lambda folder: all(map(ROWS_FILE.fullmatch, names_in(folder))), "rows")


def require_baseline_out(out: Path, method: str, photos: str, *inputs: AnyPath | None) -> None:
    """Check the output of `taming baseline`.

    Args:
        out: the folder.
        method: the method.
        photos: the digest of the object's photos.
        inputs: what the command reads.

    Raises:
        TamingError: `out` cannot be written beside the inputs, or holds something else than a baseline, or that of
            another object or by another method.
    """
    require_out(out, inputs)
    require_replaceable(out, is_baseline, "a baseline")
    record = _json_of(out / BASELINE_RECORD)
    if record and (record["method"], record["photos"]) != (method, photos):
        what = "of another object" if record["photos"] != photos else f"by {record['method']}"
        raise TamingError(f"{out} holds a baseline {what}. Name a folder of its own with --out.")


def require_export_out(out: AnyPath, *inputs: AnyPath | None) -> None:
    """Raises TamingError if `out` cannot be written beside the inputs, or holds something else than an export."""
    require_out(out, inputs)
    require_replaceable(out, is_export, "an export")


def folder_of(spec: str | None) -> Path | None:
    """The file or folder that a model's name means, for the check of an output; None for another kind of name."""
    path = None if spec is None or spec == "mini" else Path(spec).expanduser()
    return path if path is not None and path.exists() else None


def require_files(paths: Iterable[AnyPath]) -> None:
    """Raises TamingError if one of the paths does not exist."""
    for path in paths:
        if not exists(path):
            raise TamingError(f"There is no {path}. Name an existing file or folder.")


def require_models(*sections: Section) -> None:
    """Check the models that sections of params name by a path.

    Published names and hub repositories are checked by the functions that load them.

    Raises:
        TamingError: a path does not exist, or a model's package; the message names its key.
    """
    for section in sections:
        if isinstance(section, DetectParams):
            require_onnxruntime(section.segmenter)
        named = [(name, reduce(_get, name.split(".")[1:], section)) for name in MODELS[type(section)]]
        for name, spec in named + (score_models(section) if isinstance(section, DetectParams) else []):
            path = spec.removeprefix(VLM) if isinstance(spec, str) and "://" not in spec else ""
            if looks_local(path) and not Path(path).expanduser().exists():
                other = "set evaluate.vlm to null" if name == "evaluate.vlm.model" else "set it to mini"
                raise TamingError(f"{name} is {spec}, and there is no such file or folder. Correct it, or {other}.")


def require_score_packages(p: EvaluationScores) -> None:
    """Raises TamingError if a score needs a package that is not installed."""
    for key, spec, package in (("dreamsim", p.dreamsim, "dreamsim"), ("lpips", p.lpips, "torchmetrics")):
        if spec is not None and find_spec(package) is None:
            raise TamingError(f"evaluate.scores.{key} is {spec}, which needs the package {package}. Run "
                              f"pip install 'taming[eval]', or set {key} to null.")  # fmt: skip


def require_onnxruntime(segmenter: str) -> None:
    """Raises TamingError if the segmenter needs onnxruntime, and it is not installed."""
    if is_salient(segmenter) and find_spec("onnxruntime") is None:
        raise TamingError(f"detect.segmenter is {segmenter}, which needs the package onnxruntime. Run "
                          "pip install 'taming[onnx]', or set detector and segmenter to mini.")  # fmt: skip


def require_api_key(name: str | None, key: str) -> None:
    """Raises TamingError if the environment has no variable of this name, which `key` of the params holds."""
    if name is not None and not os.environ.get(name):
        raise TamingError(f"{key} is {name}, and there is no such environment variable. Export the server's API key in "
                          "it, or remove the key.")  # fmt: skip


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
