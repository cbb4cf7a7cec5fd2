"""Checks that a machine has what the params need; nothing is downloaded and no weights are loaded."""

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]  (one untyped argument)
from huggingface_hub.errors import LocalEntryNotFoundError
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.table import Table

from taming_core.bases.encoder_files import require_encoder
from taming_core.bases.load import require_base
from taming_core.bases.record import find_base, missing_base, record_of
from taming_core.errors import TamingError
from taming_core.files import read_json
from taming_core.objects.published import DETECTOR, segmenter_role
from taming_core.params.arguments import score_models
from taming_core.params.caption import VLM
from taming_core.params.load import Params
from taming_core.params.sections import is_salient
from taming_core.vlm.chat_server import served_models
from taming_core.weights.locate import (
    PublishedWeights,
    find_local,
    is_hub_name,
    not_found_message,
    published_url,
    weights_folder,
)
from taming_core.weights.mini import BASE, MINI

GB = 1e9
GIB = 2**30
SHOWN = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "ultralytics",
)  # listed even if their versions are right
OPTIONAL = {  # packages that are not required
    "dvc": "`dvc repro` needs it: pip install 'taming[dvc]'",
    "tensorboard": "training writes events for it: pip install 'taming[tensorboard]'",
    "pillow-heif": "photos in HEIC need it: pip install 'taming[heif]'",
    "pillow-jxl-plugin": "photos in JPEG XL need it: pip install 'taming[jxl]'",
    "resvg-py": "only needed to rebuild the artwork of mini",
}
WEIGHTS = (".safetensors", ".pt", ".pth", ".onnx")
DISK = 5 * GB  # minimum free space, for training states


@dataclass(frozen=True)
class Check:
    """One requirement and whether it is met."""

    what: str
    found: str
    ok: bool = True
    remedy: str = ""  # what to do if it is not met


@dataclass(frozen=True)
class NamedModel:
    """A model that a key of params.yaml names."""

    key: str
    spec: str
    what: str
    mini: Path
    role: PublishedWeights | None = None  # if the key can name a published file


def software_checks(params: Params) -> Iterator[Check]:
    """Python and the packages: the main ones, and all whose version is not a tested one."""
    python = metadata.metadata("taming")["Requires-Python"]
    yield Check("python", platform.python_version(), platform.python_version() in SpecifierSet(python),
                f"Use Python {python}.")  # fmt: skip
    for line in metadata.requires("taming") or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            check = package_check(requirement)
            if not check.ok or requirement.name in SHOWN:
                yield check
    if params.train.optimizer == "adamw8bit":
        yield bitsandbytes_check()
    if is_salient(params.detect.segmenter):
        yield onnxruntime_check()
    for name, use in OPTIONAL.items():
        yield Check(name, installed_version(name) or f"not installed; {use}")


def installed_version(name: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_check(requirement: Requirement) -> Check:
    """Whether a package is installed in a tested version."""
    command = f"pip install '{requirement.name}{requirement.specifier}'"
    version = installed_version(requirement.name)
    if version is None:
        return Check(requirement.name, "not installed", ok=False, remedy=command)
    return Check(requirement.name, version, requirement.specifier.contains(version, prereleases=True), command)


def bitsandbytes_check() -> Check:
    """Whether the package of 8-bit optimizers is installed."""
    version = installed_version("bitsandbytes")
    return Check("bitsandbytes", version or "not installed", version is not None,
                 "pip install 'taming[8bit]', or set train.optimizer to adamw.")  # fmt: skip


def onnxruntime_check() -> Check:
    """Whether the package of salient-object segmenters is installed, and what they compute on."""
    if find_spec("onnxruntime") is None:
        return Check("onnxruntime", "not installed", ok=False,
                     remedy="pip install 'taming[onnx]', or set detector and segmenter to mini.")  # fmt: skip
    import onnxruntime

    runtime: Any = onnxruntime  # untyped
    on_gpu = "CUDAExecutionProvider" in runtime.get_available_providers()
    where = "on a GPU" if on_gpu else "on the CPU; its package onnxruntime-gpu computes on a GPU"
    return Check("onnxruntime", f"{runtime.__version__}, {where}")


def machine_checks(device: str, params: Params) -> Iterator[Check]:
    """The training device, its precision, and the disk."""
    yield Check("device", f"{device_name(device)}, {memory_capacity(device) / GIB:.1f} GiB")
    precision = params.train.precision
    if precision == "bf16" and device.startswith("cuda"):
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        yield Check(
            "bf16", "in hardware" if supported else "not in hardware", supported, "Set train.precision to fp16."
        )
    if precision == "fp16" and device == "cpu":
        yield Check("fp16", "not supported on a CPU", ok=False, remedy="Set train.precision to bf16 or fp32.")
    free = shutil.disk_usage(Path()).free
    yield Check("disk", f"{free / GB:.0f} GB free", free > DISK, f"Free {DISK / GB:.0f} GB.")


def device_name(device: str) -> str:
    """The device's name for the table."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device} with {os.cpu_count()} cores"


def memory_capacity(device: str) -> int:
    """Bytes of memory of the device; CPU and MPS use the machine's."""
    if device.startswith("cuda"):
        return cast(Any, torch.cuda).get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def named_models(params: Params) -> list[NamedModel]:
    """Every model that the params name."""
    d, c, t, e = params.detect, params.caption, params.train, params.evaluate
    maybe: list[tuple[str, str | None, str, Path, PublishedWeights | None]] = [
        ("detect.detector", None if d.detector == "none" else d.detector, "detector", MINI / "detector", DETECTOR),
        ("detect.segmenter", None if d.segmenter == "detector" else d.segmenter, "segmenter", MINI / "segmenter",
         segmenter_role(d.segmenter)),
        ("detect.classifier", d.classifier, "classifier", MINI / "classifier", None),
        ("caption.captioner", None if c.server else c.captioner.removeprefix(VLM), "captioner", MINI / "captioner",
         None),
        ("caption.matcher", c.matcher, "matcher", MINI / "matcher", None),
        ("caption.attributes.model", c.attributes and c.attributes.model, "classifier", MINI / "clip", None),
        ("train.start", t.start, "encoder", MINI / "encoder", None),
        ("train.base", t.base, "text-to-image model", BASE, None),
        ("train.encoder.tower", t.encoder and t.encoder.tower, "vision model", MINI / "clip", None),
        ("train.identity_network", t.identity_network, "identity network", MINI / "clip", None),
        ("evaluate.judge", e.judge, "judge", MINI / "judge", None),
        ("evaluate.strict_judge", e.strict_judge, "judge", MINI / "strict_judge", None),
        ("evaluate.text_judge", e.text_judge, "judge", MINI / "clip", None),
        ("evaluate.scores.dino", e.scores.dino, "judge", MINI / "judge", None),
        ("evaluate.scores.dinov2", e.scores.dinov2, "judge", MINI / "judge", None),
        ("evaluate.scores.clip_b32", e.scores.clip_b32, "judge", MINI / "clip", None),
        ("evaluate.scores.clip_l14", e.scores.clip_l14, "judge", MINI / "clip", None),
        ("evaluate.vlm.model", None if e.vlm is None or e.vlm.server else e.vlm.model, "judge", MINI / "judge", None),
    ]  # fmt: skip
    maybe += [(key, spec, "classifier", MINI / "clip", None) for key, spec in score_models(d)]
    return [NamedModel(key, spec, what, mini, role) for key, spec, what, mini, role in maybe if spec is not None]


def model_checks(params: Params) -> Iterator[Check]:
    """Whether the weights of every model are on this machine."""
    for model in named_models(params):
        path = local_path(model)
        if model.key == "train.base" and path is not None:
            yield base_check(model.key, model.spec, path)
        elif path is not None and holds_weights(path):
            yield Check(model.key, model.spec)
        else:
            yield Check(model.key, f"{model.spec}: {'not found' if path is None else 'without weights'}", ok=False,
                        remedy=how_to_fetch(model))  # fmt: skip
    c, vlm = params.caption, params.evaluate.vlm
    if c.server is not None:
        yield server_check("caption.captioner", *c.server, c.vlm_params.api_key_env)
    if vlm is not None and vlm.server is not None:
        yield server_check("evaluate.vlm.model", *vlm.server, vlm.api_key_env)
    if params.train.start not in (None, "mini"):
        yield from start_checks(params.train.start)


def server_check(key: str, url: str, model: str, api_key_env: str | None) -> Check:
    """Whether the server that a key of the params names answers, and has the model."""
    remedy = f"Start the server, set {api_key_env} to its API key" if api_key_env else "Start the server"
    try:
        models = served_models(url, api_key_env)
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        return Check(key, f"{url}: {error}", ok=False, remedy=f"{remedy}, or correct the URL.")
    found = f"{url} has {', '.join(models) or 'no model'}"
    return Check(key, found, model in models, f"Name one of these after #, not {model}.")


def start_checks(spec: str) -> Iterator[Check]:
    """Whether the encoder that training begins with is whole, and its base on this machine."""
    try:
        folder = require_encoder(spec)
    except TamingError as error:
        yield Check("files of train.start", spec, ok=False, remedy=str(error))
        return
    yield from base_checks(folder)


def base_checks(encoder: Path) -> Iterator[Check]:
    """Whether the base is on this machine of an encoder folder that holds only what was trained."""
    index = encoder / "model_index.json"
    if index.is_file() and (record := record_of(read_json(index))) is not None:
        spec = find_base(encoder, record)
        path = local_path(NamedModel("train.base", spec, "text-to-image model", BASE))
        key = "base of train.start"
        yield base_check(key, spec, path) if path else Check(key, spec, ok=False, remedy=missing_base(encoder, spec))


def base_check(what: str, spec: str, path: Path) -> Check:
    """Whether a text-to-image model on this machine is one that training loads."""
    try:
        require_base(spec, path)
    except TamingError as error:
        return Check(what, spec, ok=False, remedy=str(error))
    return Check(what, spec)


def local_path(model: NamedModel) -> Path | None:
    """The file or folder of a model, as its load function would find it offline; None if there is none."""
    if model.spec == "mini":
        return model.mini if model.mini.exists() else None
    path = find_local(model.spec, model.role) if model.role else Path(model.spec).expanduser()
    if path is not None and path.exists():
        return path
    if not is_hub_name(model.spec, model.role.suffixes if model.role else ()):
        return None
    owner, name, *inside = model.spec.split("/")
    try:
        path = Path(snapshot_download(f"{owner}/{name}", local_files_only=True), *inside)
    except LocalEntryNotFoundError:
        return None
    return path if path.exists() else None


def holds_weights(path: Path) -> bool:
    """Whether a path is a file, or a folder in which every network has weights."""
    if path.is_file():
        return True
    configs = [config.parent for config in path.rglob("config.json")] or [path]
    return all(any(p.suffix in WEIGHTS for p in folder.iterdir()) for folder in configs if not index_only(folder))


def index_only(folder: Path) -> bool:
    """Whether a folder is a whole pipeline, whose networks lie in its sub-folders."""
    return (folder / "model_index.json").is_file()


def how_to_fetch(model: NamedModel) -> str:
    """How to get a model onto this machine."""
    if model.role and (url := published_url(model.spec, model.role)):
        return f"Download {url} into {weights_folder()} (licence {model.role.licence})."
    if is_hub_name(model.spec) and not Path(model.spec).expanduser().exists():
        return f"Run `hf download {model.spec}` with a network connection, or set {model.key} to a folder."
    return not_found_message(model.spec, model.what, model.key)


def memory_check(total: float | None, device: str) -> Check:
    """Whether training that needs `total` bytes fits the device; None if the need is unknown."""
    if total is None:
        return Check("training memory", "unknown: no configs of the base", ok=False, remedy="Fetch the base.")
    available = memory_capacity(device)
    return Check("training memory", f"{total / GIB:.1f} of {available / GIB:.1f} GiB, computed", total <= available,
                 "Lower train.micro_batch_size; set train.gradient_checkpointing; set train.cache and "
                 "train.offload; set train.optimizer to adamw8bit. `taming init` has presets.")  # fmt: skip


def print_checks(checks: Sequence[Check]) -> None:
    """Print the checks as a table."""
    table = Table("", "requirement", "found", "what to do", box=None, pad_edge=False)
    for check in checks:
        table.add_row("[green]ok[/]" if check.ok else "[red]no[/]", check.what, check.found,
                      "" if check.ok else check.remedy)  # fmt: skip
    Console().print(table)
