"""dvc.yaml, params.yaml and the imports agree, and no module imports one below it."""

import ast
from pathlib import Path

import pytest
import yaml

from taming_core import config

ROOT = Path(__file__).parent.parent
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Params are tracked by value, tables are checked when read, and the rest changes no result.
UNTRACKED = {
    *(f"taming_core/{name}.py" for name in ("__init__", "config", "schema", "errors", "progress")),
    *(f"stages/{name}.py" for name in ("__init__", "options", "cli")),
    "taming_core/pretrained/__init__.py",
}
# Journey order: a module imports only what stands above it.
ORDER = (
    "errors", "seeds", "config", "schema", "shards", "counts", "progress",
    "photo", "objects", "findings", "subjects",
    "lexicon", "nouns", "phrases", "captions", "captioning",
    "triplets", "lookup", "sources", "splits", "rows",
    "attention", "object_encoder", "conditions", "stand_in", "batches",
    "noise", "subject_model", "loss", "training", "checkpoint", "logbook",
    "customize", "images", "sheets", "grid", "fresh", "validation", "encoder_folder",
    "scores", "shape", "evaluation", "verdicts", "plots", "report",
    "provenance", "evaluation_folder", "generation", "cards",
    "world_styles", "world_plan", "world",
)  # fmt: skip


def imported(path: Path) -> set[str]:
    """The project's own files that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {n.replace(".", "/") + ".py" for n in names}
    return {f for f in found if (ROOT / f).is_file()}


def reached(path: str) -> set[str]:
    """All project files that a file needs."""
    seen, todo = set(), [path]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += imported(ROOT / current)
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_the_code_that_a_stage_runs(stage: str) -> None:
    deps = {d for d in STAGES[stage]["deps"] if d.endswith(".py")}
    assert deps == reached(f"stages/{stage}.py") - UNTRACKED


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_tracks_its_own_params_section(stage: str) -> None:
    assert STAGES[stage]["params"] == [stage]
    assert stage in config.Params.model_fields


def test_stages_stand_in_journey_order() -> None:
    assert list(STAGES) == ["detect", "caption", "materialize", "train", "evaluate"]


def test_every_dep_exists_or_is_made_by_an_earlier_stage() -> None:
    made: set[str] = set()
    for stage in STAGES.values():
        missing = [d for d in stage["deps"] if d not in made and not (ROOT / d).exists()]
        assert missing == []
        made |= {name for out in stage["outs"] for name in ([out] if isinstance(out, str) else out)}


@pytest.mark.parametrize("name", [p.stem for p in sorted((ROOT / "taming_core").glob("*.py")) if p.stem != "__init__"])
def test_no_module_imports_one_below_it(name: str) -> None:
    above = ORDER[: ORDER.index(name)]
    own = {Path(f).stem for f in imported(ROOT / "taming_core" / f"{name}.py") if Path(f).parent.name == "taming_core"}
    assert own - {"__init__"} <= set(above)


def test_pretrained_models_know_nothing_of_stages_or_pipelines() -> None:
    for path in (ROOT / "taming_core" / "pretrained").glob("*.py"):
        assert not {f for f in imported(path) if f.startswith(("stages", "pipelines"))}
