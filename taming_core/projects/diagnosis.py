"""What params need of a machine, and whether it is there; nothing is fetched and no weights are loaded."""

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.table import Table

from taming_core.objects.published import DETECTOR, SEGMENTER
from taming_core.params.load import Params
from taming_core.weights.locate import PublishedWeights, is_hub_name, not_found_message, on_disk, weights_folder
from taming_core.weights.mini import BASE, MINI

GB = 1e9
GIB = 2**30
SHOWN = ("torch", "diffusers", "transformers", "accelerate", "peft", "ultralytics")  # even where nothing is wrong
OPTIONAL = {  # what nothing is missing without
    "dvc": "`dvc repro` needs it: pip install 'taming[dvc]'",
    "tensorboard": "trainings write events where it is: pip install 'taming[tensorboard]'",
    "resvg-py": "only the making of mini's artwork needs it",
}
WEIGHTS = (".safetensors", ".pt", ".pth")
DISK = 5 * GB  # below it, the states of a training may not find room


@dataclass(frozen=True)
class Check:
    """One thing that is needed."""

    what: str
    found: str
    ok: bool = True
    remedy: str = ""  # where it is not well


@dataclass(frozen=True)
class NamedModel:
    """A model that a key of params.yaml names."""

    key: str
    spec: str
    what: str
    mini: Path
    role: PublishedWeights | None = None  # where it may be a published file


def software(params: Params) -> Iterator[Check]:
    """Python and the packages: those that matter most, and all that have another version than was tested."""
    python = metadata.metadata("taming")["Requires-Python"]
    yield Check("python", platform.python_version(), platform.python_version() in SpecifierSet(python),
                f"Use Python {python}.")  # fmt: skip
    for line in metadata.requires("taming") or []:
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate():
            check = package(wanted)
            if not check.ok or wanted.name in SHOWN:
                yield check
    if params.train.optimizer == "adamw8bit":
        yield eight_bit()
    for name, use in OPTIONAL.items():
        yield Check(name, installed(name) or f"not installed; {use}")


def installed(name: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package(wanted: Requirement) -> Check:
    """Whether a package is installed in a version that was tested."""
    do = f"pip install '{wanted.name}{wanted.specifier}'"
    found = installed(wanted.name)
    if found is None:
        return Check(wanted.name, "not installed", ok=False, remedy=do)
    return Check(wanted.name, found, wanted.specifier.contains(found, prereleases=True), do)


def eight_bit() -> Check:
    """The package that keeps an optimizer's averages in 8 bits."""
    found = installed("bitsandbytes")
    return Check("bitsandbytes", found or "not installed", found is not None,
                 "pip install 'taming[8bit]', or set train.optimizer to adamw.")  # fmt: skip


def machine(device: str, params: Params) -> Iterator[Check]:
    """The device that trains, and the disk."""
    yield Check("device", f"{name_of(device)}, {capacity(device) / GIB:.1f} GiB")
    precision = params.train.precision
    if precision == "bf16" and device.startswith("cuda"):
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        yield Check("bf16", "in hardware" if able else "not in hardware", able, "Set train.precision to fp16.")
    if precision == "fp16" and device == "cpu":
        yield Check("fp16", "not on a CPU", ok=False, remedy="Set train.precision to bf16 or fp32.")
    free = shutil.disk_usage(Path()).free
    yield Check("disk", f"{free / GB:.0f} GB free here", free > DISK, f"Free {DISK / GB:.0f} GB.")


def name_of(device: str) -> str:
    """What a person calls the device."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device} with {os.cpu_count()} cores"


def capacity(device: str) -> int:
    """Bytes of memory that the device has; CPU and MPS share the machine's."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def named_models(params: Params) -> list[NamedModel]:
    """Every model that the params name."""
    d, c, t, e = params.detect, params.caption, params.train, params.evaluate
    maybe = [
        ("detect.detector", d.detector, "detector", MINI / "detector", DETECTOR),
        ("detect.segmenter", None if d.segmenter == "detector" else d.segmenter, "segmenter", MINI / "segmenter",
         SEGMENTER),
        ("caption.captioner", c.captioner, "captioner", MINI / "captioner", None),
        ("caption.matcher", c.matcher, "matcher", MINI / "matcher", None),
        ("train.start", t.start, "encoder", MINI / "encoder", None),
        ("train.base", t.base, "text-to-image model", BASE, None),
        ("train.encoder.tower", t.encoder and t.encoder.tower, "vision model", MINI / "clip", None),
        ("train.identity_network", t.identity_network, "identity network", MINI / "clip", None),
        ("evaluate.judge", e.judge, "judge", MINI / "judge", None),
        ("evaluate.strict_judge", e.strict_judge, "judge", MINI / "strict_judge", None),
        ("evaluate.text_judge", e.text_judge, "judge", MINI / "clip", None),
    ]  # fmt: skip
    return [NamedModel(key, spec, *rest) for key, spec, *rest in maybe if spec is not None]


def models(params: Params) -> Iterator[Check]:
    """Whether the weights of every model are here."""
    for model in named_models(params):
        place = local_path(model)
        if place is not None and holds_weights(place):
            yield Check(model.key, model.spec)
        else:
            yield Check(model.key, f"{model.spec}: {'absent' if place is None else 'without weights'}", ok=False,
                        remedy=how_to_fetch(model))  # fmt: skip


def local_path(model: NamedModel) -> Path | None:
    """The file or folder of a model, as its load function would find it without a network."""
    if model.spec == "mini":
        return model.mini if model.mini.exists() else None
    if (path := on_disk(model.spec) if model.role else Path(model.spec).expanduser()) and path.exists():
        return path
    if url := published(model):
        return on_disk(PurePosixPath(url).name)
    if not is_hub_name(model.spec, model.role.suffixes if model.role else ()):
        return None
    owner, name, *inside = model.spec.split("/")
    try:
        place = Path(snapshot_download(f"{owner}/{name}", local_files_only=True), *inside)
    except LocalEntryNotFoundError:
        return None
    return place if place.exists() else None


def published(model: NamedModel) -> str | None:
    """Where the authors have a file that goes by this name."""
    known = model.role.published if model.role else {}
    return known.get(model.spec) or known.get(PurePosixPath(model.spec).stem)


def holds_weights(place: Path) -> bool:
    """Whether a file, or all networks below a folder, have weights."""
    if place.is_file():
        return True
    configs = [path.parent for path in place.rglob("config.json")] or [place]
    return all(any(p.suffix in WEIGHTS for p in folder.iterdir()) for folder in configs if not index_only(folder))


def index_only(folder: Path) -> bool:
    """Whether a config.json stands for a whole pipeline, whose networks lie below it."""
    return (folder / "model_index.json").is_file()


def how_to_fetch(model: NamedModel) -> str:
    """What gets a model here."""
    if (url := published(model)) and "/" not in model.spec:
        return f"Download {url} into {weights_folder()}."
    if is_hub_name(model.spec) and not Path(model.spec).expanduser().exists():
        return f"Run `hf download {model.spec}` where there is a network, or set {model.key} to a folder."
    return not_found_message(model.spec, model.what, model.key)


def fit(total: float | None, device: str) -> Check:
    """Whether a training of so many bytes fits the device; None where nothing could be computed."""
    if total is None:
        return Check("training memory", "unknown: the base's configs are not here", ok=False, remedy="Fetch the base.")
    there = capacity(device)
    return Check("training memory", f"{total / GIB:.1f} of {there / GIB:.1f} GiB, computed", total <= there,
                 "Lower train.micro_batch_size; set train.gradient_checkpointing; fill train.cache and set "
                 "train.offload; set train.optimizer to adamw8bit. `taming init` has presets.")  # fmt: skip


def show(checks: Sequence[Check]) -> None:
    """Print the checks, one a line."""
    table = Table("", "what", "found", "what to do", box=None, pad_edge=False)
    for check in checks:
        table.add_row("[green]ok[/]" if check.ok else "[red]no[/]", check.what, check.found,
                      "" if check.ok else check.remedy)  # fmt: skip
    Console().print(table)
