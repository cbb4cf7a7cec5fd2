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
    *(f"taming_core/{name}.py" for name in ("__init__", "sections", "train_params", "config", "schema")),
    *(f"taming_core/{name}.py" for name in ("arguments", "errors", "progress")),
    *(f"stages/{name}.py" for name in ("__init__", "options", "cli", "process")),
    "taming_core/pretrained/__init__.py",
    "taming_core/bases/__init__.py",
}
# Journey order: a module imports only what stands above it.
ORDER = (
    "errors", "seeds", "sections", "train_params", "config", "arguments", "schema", "shards", "cache_files", "counts",
    "progress", "provenance", "photo", "objects", "findings", "subjects",
    "lexicon", "nouns", "phrases", "captions", "captioning",
    "triplets", "lookup", "sources", "splits", "rows",
    "attention", "conditions", "bases/family", "bases/stable_diffusion", "bases/stable_diffusion_xl",
    "bases/transformer", "bases/stable_diffusion_3", "bases/flux", "bases/families", "contexts", "object_encoder",
    "stand_in", "order", "batches", "noise", "subject_model", "loss", "objective", "lora", "recompute", "average",
    "optimizers", "processes", "training", "checkpoint", "cache", "logbook",
    "guidance", "taming_pipeline", "customize", "image_orders", "images", "drawings", "prior", "sheets", "grid",
    "fresh", "validation", "curves", "encoder_folder",
    "scores", "shape", "evaluation", "verdicts", "plots", "report",
    "evaluation_folder", "generation", "cards",
    "projects/profiles", "projects/project", "projects/architectures", "projects/memory", "projects/fit",
    "projects/diagnosis", "exports/hub", "exports/wish", "exports/ip_adapter", "exports/lora_extraction",
    "exports/base_change", "exports/model_card",
    "exports/usage", "exports/export", "bench_plain", "bench", "bench_start",
    "world/styles", "world/wording", "world/artwork", "world/plan", "world/render", "world/photos", "world/folder",
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


MINI = ROOT / "pipelines" / "mini"
MINI_STAGES = yaml.safe_load((MINI / "dvc.yaml").read_text())["stages"]


def scripts(name: str, folder: Path = MINI) -> set[str]:
    """The scripts beside a script that it needs, itself among them."""
    seen, todo = set(), [name]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            for node in ast.walk(ast.parse((folder / f"{current}.py").read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                todo += [n for n in names if (folder / f"{n}.py").is_file()]
    return seen


@pytest.mark.parametrize("stage", [s for s, d in MINI_STAGES.items() if d["cmd"].startswith("python")])
def test_deps_name_the_scripts_that_a_stage_of_mini_runs(stage: str) -> None:
    run = Path(MINI_STAGES[stage]["cmd"].split()[1]).stem
    deps = {Path(d).stem for d in MINI_STAGES[stage]["deps"] if d.startswith("pipelines/mini/") and d.endswith(".py")}
    assert deps == scripts(run)


def test_the_journey_reads_nothing_that_the_chain_of_mini_declares() -> None:
    """Else `dvc repro` at the top would start to train models."""
    made = {out if isinstance(out, str) else next(iter(out)) for d in MINI_STAGES.values() for out in d.get("outs", [])}
    read = {dep for stage in STAGES.values() for dep in stage["deps"]}
    assert not [(m, r) for m in made for r in read if f"{m}/".startswith(f"{r}/") or f"{r}/".startswith(f"{m}/")]


ABLATION = ROOT / "pipelines" / "ablation"
ABLATION_STAGES = yaml.safe_load((ABLATION / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("stage", [s for s, d in ABLATION_STAGES.items() if d["cmd"].startswith("python")])
def test_deps_name_the_scripts_that_a_stage_of_the_ablation_runs(stage: str) -> None:
    run = Path(ABLATION_STAGES[stage]["cmd"].split()[1])
    deps = {Path(d).stem for d in ABLATION_STAGES[stage]["deps"] if d.startswith(f"{run.parent}/") and d[-3:] == ".py"}
    assert deps == scripts(run.stem, ROOT / run.parent)


def test_stages_of_the_ablation_name_files_that_exist_or_are_made_by_an_earlier_one() -> None:
    """`${train.base}` may be any base model; the folders of all cells are made below out/ablation."""
    made: set[str] = set()
    for stage in ABLATION_STAGES.values():
        known = (*made, "${train.base}")
        assert [d for d in stage["deps"] if not (ROOT / d).exists() and not any(m.startswith(d) for m in known)] == []
        made |= {next(iter(out)) for out in stage["outs"]}


def test_no_two_chains_make_the_same() -> None:
    outs = [next(iter(o)) for d in (*MINI_STAGES.values(), *ABLATION_STAGES.values()) for o in d.get("outs", [])]
    assert len(set(outs)) == len(outs)


def modules() -> dict[str, str]:
    """Name in ORDER -> file, of every module but those of `pretrained`, which stand beside the order."""
    core = ROOT / "taming_core"
    folders = "", "bases/", "exports/", "projects/", "world/"
    files = [f.relative_to(core) for folder in folders for f in sorted(core.glob(f"{folder}*.py"))]
    return {f.with_suffix("").as_posix(): f"taming_core/{f.as_posix()}" for f in files if f.stem != "__init__"}


@pytest.mark.parametrize("name", modules())
def test_no_module_imports_one_below_it(name: str) -> None:
    above = {modules()[n] for n in ORDER[: ORDER.index(name)]}
    assert imported(ROOT / modules()[name]) & set(modules().values()) <= above


def test_pretrained_models_know_nothing_of_stages_or_pipelines() -> None:
    for path in (ROOT / "taming_core" / "pretrained").glob("*.py"):
        assert not {f for f in imported(path) if f.startswith(("stages", "pipelines"))}
