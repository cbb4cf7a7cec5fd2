"""dvc.yaml, params.yaml and the imports agree; packages stand in an order, and no module imports one below it."""

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import packages
import pytest
import yaml
from packages import CORE, ORDER, ROOT

from taming_core.params import load

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# What changes no result: params are tracked by value, and the rest is how files are written and errors read.
UNTRACKED = {"params", "errors", "progress", "files", "locks", "fingerprints"}


def code_of(paths: Iterable[Path]) -> set[str]:
    """What a stage that runs these files must name as deps: files as they are, of taming_core whole packages."""
    found = set()
    for path in packages.reached(paths):
        if path.name == "__init__.py" or (path.is_relative_to(ROOT / "stages") and path not in paths):
            continue
        if path.is_relative_to(CORE):
            name = packages.package_of(path)
            found |= set() if name in UNTRACKED else {f"taming_core/{name}{'' if (CORE / name).is_dir() else '.py'}"}
        else:
            found.add(path.relative_to(ROOT).as_posix())
    return found


def code_in(deps: Iterable[str]) -> set[str]:
    """The deps that are code, without weights and data."""
    return {d for d in deps if d.endswith(".py") or any((ROOT / d).glob("*.py"))}


def test_every_package_has_its_place_in_the_order() -> None:
    assert set(ORDER) == set(packages.modules())
    assert len(set(ORDER)) == len(ORDER)


def test_no_package_imports_one_below_it() -> None:
    assert [(name, other) for name, other in packages.arrows() if ORDER.index(other) >= ORDER.index(name)] == []


@pytest.mark.parametrize("package", ORDER)
def test_no_files_of_a_package_import_each_other_in_a_circle(package: str) -> None:
    files = packages.modules()[package]
    for path in files:
        below = {f for f in packages.imported(path) if f in files}
        assert path not in packages.reached(below), f"{path.stem} is imported by what it imports"


def test_nothing_in_the_library_imports_commands_or_chains() -> None:
    outside = [f for files in packages.modules().values() for path in files for f in packages.imported(path)
               if not f.is_relative_to(CORE)]  # fmt: skip
    assert outside == []


def test_the_picture_of_the_packages_is_current() -> None:
    assert packages.PICTURE.read_text() == packages.picture(), "run `python docs/packages.py`"


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_the_code_that_a_stage_runs(stage: str) -> None:
    assert code_in(STAGES[stage]["deps"]) == code_of([ROOT / f"stages/{stage}.py"])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_tracks_the_params_that_it_reads(stage: str) -> None:
    """By value; `settings.detect` in the file of a stage reads the section `detect`."""
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text())
    read = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in load.Params.model_fields}
    assert set(STAGES[stage]["params"]) == read
    assert stage in read


def test_stages_stand_in_journey_order() -> None:
    assert list(STAGES) == ["detect", "caption", "materialize", "train", "evaluate"]


def test_every_dep_exists_or_is_made_by_an_earlier_stage() -> None:
    made: set[str] = set()
    for stage in STAGES.values():
        missing = [d for d in stage["deps"] if d not in made and not (ROOT / d).exists()]
        assert missing == []
        made |= {name for out in stage["outs"] for name in ([out] if isinstance(out, str) else out)}


CHAINS = {name: yaml.safe_load((ROOT / "pipelines" / name / "dvc.yaml").read_text())["stages"]
          for name in ("mini", "ablation", "benchmark")}  # fmt: skip
MINI_STAGES, ABLATION_STAGES, BENCHMARK_STAGES = (CHAINS[name] for name in ("mini", "ablation", "benchmark"))


def file_run_by(command: str) -> Path:
    """The file that `python -m MODULE ...` or `taming COMMAND ...` runs."""
    program, first, second, *_ = command.split()
    if program == "python":
        assert first == "-m"
        return ROOT / f"{second.replace('.', '/')}.py"
    return ROOT / "stages" / f"{'evaluate' if first == 'eval' else first}.py"


@pytest.mark.parametrize(("chain", "stage"), [(chain, stage) for chain, stages in CHAINS.items() for stage in stages])
def test_deps_of_a_chain_name_the_code_that_a_stage_runs(chain: str, stage: str) -> None:
    definition = CHAINS[chain][stage]
    assert code_in(definition["deps"]) == code_of([file_run_by(definition["cmd"])])


def test_no_two_modules_of_a_chain_import_each_other_in_a_circle() -> None:
    for path in sorted((ROOT / "pipelines").rglob("*.py")):
        assert path not in packages.reached(packages.imported(path)), f"{path.stem} is imported by what it imports"


@pytest.mark.parametrize("stages", [STAGES, BENCHMARK_STAGES], ids=["journey", "benchmark"])
def test_the_journey_and_the_benchmark_read_nothing_that_the_chain_of_mini_declares(stages: dict[str, Any]) -> None:
    """Else `dvc repro` at the top would start to train models."""
    made = {out if isinstance(out, str) else next(iter(out)) for d in MINI_STAGES.values() for out in d.get("outs", [])}
    read = {dep for stage in stages.values() for dep in stage["deps"]}
    assert not [(m, r) for m in made for r in read if f"{m}/".startswith(f"{r}/") or f"{r}/".startswith(f"{m}/")]


def test_stages_of_the_ablation_name_files_that_exist_or_are_made_by_an_earlier_one() -> None:
    """`${train.base}` may be any base model; the folders of all cells are made below out/ablation."""
    made: set[str] = set()
    for stage in ABLATION_STAGES.values():
        known = (*made, "${train.base}")
        unmade = [d for d in stage["deps"] if not (ROOT / d).exists() and not any(m.startswith(d) for m in known)]
        assert [d for d in unmade if not any(d.startswith(f"{m}/") for m in made)] == []
        made |= {next(iter(out)) for out in stage["outs"]}


def test_no_two_chains_make_the_same() -> None:
    outs = [
        next(iter(o))
        for d in (*MINI_STAGES.values(), *ABLATION_STAGES.values(), *BENCHMARK_STAGES.values())
        for o in d.get("outs", [])
    ]
    assert len(set(outs)) == len(outs)
