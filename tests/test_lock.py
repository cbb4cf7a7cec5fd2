"""requirements.lock, pyproject.toml and the environment that the tests run in agree."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NAME = re.compile(r"[-_.]+")
# What runs pip before any lock is read: it comes with Python.
OURS = {"taming", "pip", "setuptools", "wheel"}


def locked(text: str = LOCK) -> dict[str, str]:
    """Version by package."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


# Of extras that no test installs: weights or a store that they would need cannot be had.
UNLOCKED = {"dreamsim", "gcsfs"}


def requirements() -> Iterator[Requirement]:
    """All that pyproject.toml asks for, for whatever purpose, but this package's own extras."""
    project = PROJECT["project"]
    lines = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    lines += [line for lines in project["optional-dependencies"].values() for line in lines]
    return (r for r in map(Requirement, lines) if r.name not in {"taming", *UNLOCKED})


def disagreements(lock: dict[str, str]) -> list[str]:
    """The requirements that the lock does not fulfil."""
    return [str(r) for r in requirements() if not r.specifier.contains(lock.get(NAME.sub("-", r.name).lower(), "0"))]


def test_the_lock_fulfils_every_requirement_of_the_project() -> None:
    assert disagreements(locked()) == []


@pytest.mark.parametrize("change", [{"torch": "2.13.0"}, {"hatchling": "2.0"}, {"pytest": "0"}])
def test_a_lock_that_disagrees_is_noticed(change: dict[str, str]) -> None:
    assert [Requirement(line).name for line in disagreements(locked() | change)] == list(change)


def test_every_requirement_has_both_ends() -> None:
    """So that a release that nobody has tried is not installed without the lock either."""
    assert all({"<"} <= {s.operator for s in r.specifier} & {"<", ">="} for r in requirements())


def test_the_lock_is_sorted_and_exact() -> None:
    lines = [line for line in LOCK.splitlines() if not line.startswith("#")]
    assert lines == sorted(lines, key=lambda line: line.split("==")[0])
    assert len(lines) > 100
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==\d[a-z0-9.]*", line) for line in lines)


def test_this_environment_is_the_locks() -> None:
    """Whoever runs the tests runs them on what was tested: `make test` installs under the lock."""
    lock = locked()
    found = {NAME.sub("-", d.metadata["Name"]).lower(): d.version.split("+")[0] for d in metadata.distributions()}
    other = {name: (version, lock.get(name)) for name, version in found.items() if version != lock.get(name)}
    headless = other.pop("opencv-python-headless", None)  # in the place of the other where the system has no libGL
    assert headless in (None, (lock["opencv-python"], None))
    assert {name: versions for name, versions in other.items() if name not in OURS} == {}


def test_a_report_of_pip_becomes_a_lock() -> None:
    found = [("ruamel.YAML", "0.19.1"), ("taming", "0.1.0"), ("torch", "2.14.1+cpu"), ("Jinja2", "3.1.6")]
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in found]}
    command = [sys.executable, str(ROOT / ".ci/lock.py")]
    text = subprocess.run(command, input=json.dumps(report), capture_output=True, text=True, check=True).stdout
    assert locked(text) == {"jinja2": "3.1.6", "ruamel-yaml": "0.19.1", "torch": "2.14.1"}


def test_no_command_needs_what_the_extras_bring() -> None:
    """Each of them is asked for where it is used, and nowhere else."""
    extras = {"dvc", "tensorboard", "bitsandbytes", "onnxruntime", "resvg_py"}
    assert extras <= metadata.packages_distributions().keys()  # they are installed, so that this can fail
    code = f"""
import sys
from stages.cli import main
sys.argv = ["taming", "doctor", "--params", {str(ROOT / "params.yaml")!r}, "--device", "cpu"]
try:
    main()
finally:
    print("imported:", *(name for name in {extras!r} if sys.modules.get(name)))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False).stdout
    assert shown.splitlines()[-1] == "imported:"
