"""`taming init` writes a project that works, for every profile and every size of GPU."""

import json
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo
from typer.testing import CliRunner

from pipelines import memory_table
from stages.cli import app
from taming_core.errors import TamingError
from taming_core.params.load import Params, load_params
from taming_core.projects import profiles, project
from taming_core.projects.memory import GIB
from taming_core.tables import schema

ROOT = Path(__file__).parents[2]
PRESETS = [(profile, memory) for profile in profiles.PROFILES for memory in (None, *profiles.memory_presets(profile))]

# What makes the paper's method, and how the denoiser learns it.
METHOD = {
    "encoder", "injection", "tune", "denoiser_rate", "regularization", "prior", "captions", "object_drop",
    "identity_weight", "identity_max_timestep", "identity_network",
}  # fmt: skip
TUNING = {"lora"}
WITHOUT_IDENTITY = {(8, None), (16, None)}  # GB where decoding the predicted image does not fit


def taming(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def params_of(tmp_path: Path, profile: str, memory: int | None) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(profiles.params_text(profile, memory))
    return load_params(path)


@pytest.mark.parametrize(("profile", "memory"), PRESETS)
def test_every_preset_is_valid_and_says_what_it_changes(tmp_path: Path, profile: str, memory: int | None) -> None:
    params = params_of(tmp_path, profile, memory).model_dump()
    for section, values in (profiles.memory_presets(profile)[memory] if memory else {}).items():
        assert {key: params[section][key] for key in values} == values


@pytest.mark.parametrize(("profile", "memory"), [p for p in PRESETS if p[1]])
def test_a_preset_changes_nothing_else(tmp_path: Path, profile: str, memory: int) -> None:
    plain, preset = (params_of(tmp_path, profile, m).model_dump() for m in (None, memory))
    for section, values in profiles.memory_presets(profile)[memory].items():
        for key in values:
            preset[section][key] = plain[section][key]
    assert preset == plain


def test_a_preset_keeps_every_comment() -> None:
    plain, preset = (profiles.params_text("sdxl", memory) for memory in (None, 16))
    assert plain.count("#") == preset.count("#") > 5
    assert len(plain.splitlines()) == len(preset.splitlines())


@pytest.mark.parametrize("profile", [*profiles.BASES, *profiles.IP_ADAPTERS])
def test_a_profile_judges_with_no_network_that_trained(tmp_path: Path, profile: str) -> None:
    for memory in (None, *profiles.memory_presets(profile)):
        p = params_of(tmp_path, profile, memory)
        judges = {p.evaluate.judge, p.evaluate.strict_judge, p.evaluate.text_judge}
        assert p.train.encoder is not None
        assert not judges & {p.train.identity_network, p.train.encoder.tower}


@pytest.mark.parametrize("base", profiles.BASES)
def test_the_two_kinds_of_a_base_differ_in_the_keys_of_the_method_alone(tmp_path: Path, base: str) -> None:
    """So that they are made of the same photos and judged by the same judges."""
    ours, adapter = (params_of(tmp_path, profile, None) for profile in (base, f"{base}-ip-adapter"))
    assert ours.caption.attributes is not None
    plain = ours.caption.model_copy(update={"attributes": None})
    assert ours.model_copy(update={"train": adapter.train, "caption": plain}) == adapter
    before, after = adapter.train.model_dump(), ours.train.model_dump()
    differing = {key for key in before if before[key] != after[key]}
    assert differing <= METHOD | TUNING
    assert differing >= METHOD


@pytest.mark.parametrize("base", profiles.BASES)
def test_a_base_trains_by_the_papers_method_in_every_size(tmp_path: Path, base: str) -> None:
    for memory in (None, *profiles.memory_presets(base)):
        p = params_of(tmp_path, base, memory).train
        assert (p.captions, p.background, p.start) == ("object_token", "removed", None)
        assert min(p.regularization, p.object_drop, p.text_drop, p.cross_reference, p.denoiser_rate) > 0
        assert p.tune in ("whole", "lora")
        assert p.prior is not None
        assert (p.identity_network == "facebook/dinov2-base") or (memory, p.identity_network) in WITHOUT_IDENTITY


@pytest.mark.parametrize("base", profiles.BASES)
def test_an_ip_adapter_leaves_the_base_as_it_is(tmp_path: Path, base: str) -> None:
    for memory in (None, *profiles.memory_presets(f"{base}-ip-adapter")):
        p = params_of(tmp_path, f"{base}-ip-adapter", memory).train
        assert (p.tune, p.injection, p.captions) == ("adapter", "decoupled", "class_noun")


@pytest.mark.parametrize("profile", [*profiles.BASES, *profiles.IP_ADAPTERS])
def test_the_readme_of_a_profile_has_the_memory_of_every_preset(profile: str) -> None:
    """Its settings are those of the presets, its sums fit the GPU, and docs/how-to/memory.md has the same lines."""
    lines = [line for line in (profiles.folder(profile) / "README.md").read_text().splitlines() if "GB |" in line]
    assert lines == [line for line in memory_table.PAGE.read_text().splitlines() if line.startswith(f"| `{profile}` |")]
    for line, memory in zip(lines, profiles.memory_presets(profile), strict=True):
        _, name, gpu, *cells, total, _ = (cell.strip() for cell in line.split("|"))
        assert (name, gpu) == (f"`{profile}`", f"{memory} GB")
        assert cells[: len(memory_table.SETTINGS)] == memory_table.settings(
            memory_table.preset_params(profile, memory).train
        )
        assert float(total) < memory * 1e9 / GIB


@pytest.mark.slow
@pytest.mark.parametrize("profile", [*profiles.BASES, *profiles.IP_ADAPTERS])
def test_the_memory_of_a_profile_is_what_is_computed(profile: str) -> None:
    page = (profiles.folder(profile) / "README.md").read_text()
    # In a process of its own: its tokenizers are no tokenizers, which the suite's type checks refuse.
    code = f"import json; from pipelines.memory_table import rows_of; print(json.dumps(list(rows_of({profile!r}))))"
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    rows = json.loads(printed.splitlines()[-1])
    assert len(rows) == len(profiles.memory_presets(profile))
    for row in rows:
        assert f"| {' | '.join(row)} |" in page


def test_the_wheel_holds_every_profile() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    held = {name for name in build["force-include"] if name.startswith("pipelines/")}
    assert held == {f"pipelines/{name}" for name in (*profiles.BASES, *profiles.IP_ADAPTERS, "project")}


@pytest.mark.parametrize(
    ("profile", "memory", "message"),
    [
        ("flux-ip-adapter", 8, "The smallest is 80 GB: use --memory 80"),
        ("sdxl", 8, "The smallest is 16 GB"),
        ("sd15", 48, "Use --memory 8 or 16 or 24 or 80"),
        ("mini", 8, "needs no GPU"),
        ("sd2", None, "There is no profile sd2. Use --profile mini or sd15 or sdxl or sd3 or flux or sd15-ip"),
    ],
)
def test_what_does_not_fit_is_refused(profile: str, memory: int | None, message: str) -> None:
    with pytest.raises(TamingError) as caught:
        project.project_files(profile, memory)
    assert message in str(caught.value)


@pytest.mark.parametrize("there", ["params.yaml", "dvc.yaml", ".gitignore"])
def test_nothing_is_overwritten_and_then_nothing_written(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(TamingError, match="exists"):
        project.write_project(tmp_path, project.project_files("mini", None))
    assert [p.name for p in tmp_path.rglob("*")] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_the_graph_is_the_projects_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC reads it, in journey order, and it names no code."""
    taming("init", str(tmp_path), "--profile", "mini")
    monkeypatch.chdir(tmp_path)
    stages = {s.name: s for s in Repo.init(no_scm=True).index.stages}
    assert list(stages) == ["package", "detect", "caption", "materialize", "train", "evaluate"]
    deps = {str(d) for s in stages.values() for d in s.deps if ".py" in str(d) or "taming_core" in str(d)}
    assert deps == set()
    outs = [str(out) for s in stages.values() for out in s.outs]
    assert len(outs) == len(set(outs))


def test_the_graph_makes_what_the_package_does() -> None:
    """The project's stages have the commands, outs and params of the checkout's own."""
    ours = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    theirs = yaml.safe_load((profiles.folder("project") / "dvc.yaml").read_text())["stages"]
    for name, stage in ours.items():
        command = stage["cmd"].replace(" --regularization data/regularization", "")
        assert theirs[name]["cmd"] == command
        assert theirs[name]["outs"] == stage["outs"]
        assert set(theirs[name]["params"]) >= set(stage["params"])


def test_a_project_of_mini_runs_by_its_own_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    assert str(folder) in taming("init", str(folder), "--profile", "mini")
    for identity in ("robot-fluent3d", "socks-openmoji"):
        (folder / "data/raw" / identity).mkdir()
        for photo in sorted((ROOT / "data/raw" / identity).glob("*.jpg"))[:2]:
            shutil.copy(photo, folder / "data/raw" / identity)
    monkeypatch.chdir(folder)
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    for name in ("detect", "caption", "materialize"):
        taming(*shlex.split(stages[name]["cmd"])[1:])
    found = [r for b in schema.iter_rows(Path("data/captions.parquet"), schema.CAPTIONS, 64) for r in b]
    assert len({r["file_name"] for r in found}) == 4  # the README is no photo
    assert list(Path("data/rows").glob("*.parquet"))
