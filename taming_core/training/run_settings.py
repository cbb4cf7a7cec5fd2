"""What a run was started with, kept in its folder: whether it is finished, and why another run begins at step 1."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from taming_core.bases.record import MINI, record_of
from taming_core.files import is_complete, read_json, write_json
from taming_core.params.train import TrainParams
from taming_core.storage.paths import AnyPath
from taming_core.training.checkpoint import WITHOUT, saved_states
from taming_core.training.encoder_folder import read_training
from taming_core.training.start import Training

FILE = "settings.json"  # in the folder of a run
INPUTS = {"rows": "the rows", "weights": "the weights that training starts from"}

Settings = Mapping[str, Any]


def settings_of(training: Training, p: TrainParams, out: AnyPath) -> Settings:
    """The params of a run, digests of its rows and of the weights before its first step, and its output."""
    params = p.model_dump(mode="json", exclude=set(WITHOUT))
    return {"out": place_of(out), "params": {"train": params}, "rows": training.origin.rows,
            "weights": training.origin.weights}  # fmt: skip


def place_of(out: AnyPath) -> str:
    """What names an output from any working directory."""
    return str(out.absolute() if isinstance(out, Path) else out)


def finished(training: Training, out: AnyPath, standalone: bool) -> str | None:
    """What to print if `out` is the encoder of this very run, in the form that `standalone` asks for; else None."""
    if not is_complete(out, "model_index.json") or read_training(out).get("run") != training.state.name:
        return None
    record, whole = training.pipeline.base, record_of(read_json(out / "model_index.json")) is None
    if whole != (standalone or record is None or record.name == MINI):
        return None
    return (f"{out} is finished: this training has done all its {read_training(out)['last']['step']} steps. To train "
            "anew, change a key of train, or remove the folder.")  # fmt: skip


def announce(training: Training, p: TrainParams, out: AnyPath) -> str | None:
    """Record the settings of a run that is about to train, and return why it begins at step 1 if one could wonder.

    Returns None for a resumed run, and for the first one with this output.
    """
    now, earlier = settings_of(training, p, out), latest(training.state, out)
    write_json(training.state / FILE, now)
    if training.run.step or earlier is None:
        return None
    changed = list(differences(read_json(earlier), now))
    resumes = "; with those settings it would be resumed" if saved_states(earlier.parent) else ""
    return (f"{out}: a new run, from step 1. It is not {earlier.parent}, the last with this output{resumes}: "
            f"{', '.join(changed)}.")  # fmt: skip


def latest(state: Path, out: AnyPath) -> Path | None:
    """The settings file of the run with the output `out` that began last, other than the run in `state`."""
    files = (path for path in state.parent.glob(f"train-*/{FILE}") if path.parent != state)
    same = [path for path in files if read_json(path)["out"] == place_of(out)]
    return max(same, key=lambda path: path.stat().st_mtime_ns, default=None)


def differences(before: Settings, now: Settings) -> Iterator[str]:
    """What two runs do not have in common, in words.

    >>> before, now = ({"params": {"train": {"steps": n, "ema": None}}, "rows": r} for n, r in ((4, "a"), (6, "b")))
    >>> list(differences(before, now))
    ['train.steps is 6 and was 4', 'the rows have changed']
    """
    old, new = (dict(keys_of(settings["params"])) for settings in (before, now))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{key} is {shown(new.get(key))} and was {shown(old.get(key))}"
    for name, words in INPUTS.items():
        if before.get(name) != now.get(name):
            yield f"{words} have changed"


def keys_of(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of nested sections by its full name, with its value.

    >>> dict(keys_of({"train": {"steps": 4, "lora": {"rank": 2}}}))
    {'train.steps': 4, 'train.lora.rank': 2}
    """
    for key, value in section.items():
        if isinstance(value, dict):
            yield from keys_of(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def shown(value: Any) -> str:
    """A value as params.yaml has it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
