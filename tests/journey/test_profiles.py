"""Every profile goes the whole way on tiny models: the project that `taming init` writes, from photos to an export."""

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_bases
import yaml
from accelerate.state import AcceleratorState
from base_pipelines import tower
from diffusers import DiffusionPipeline
from typer.testing import CliRunner

from stages.cli import app
from taming_core.projects import profiles
from taming_core.tables import schema

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "params.yaml").read_text())
IDENTITIES = ("robot-fluent3d", "socks-openmoji", "cherries-fluent3d", "dragon-face-noto")  # the last two are held out
QUICK = ("sd15", "flux-ip-adapter")
# LoRA and 8-bit AdamW are those of a preset; two of the bases take them from one.
PRESETS = {"sdxl": 24, "sd3-ip-adapter": 16}


@pytest.fixture(autouse=True)
def _own_precision() -> Iterator[None]:
    """Accelerate allows one precision in a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def taming(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def shrink(path: Path, profile: str) -> dict[str, Any]:
    """Put tiny models and sizes into the params of a project; what makes the method stays as it is."""
    params = yaml.safe_load(path.read_text())
    train, family = params["train"], profile.removesuffix("-ip-adapter")
    attributes = params["caption"]["attributes"] and {**params["caption"]["attributes"], "model": "mini"}
    params |= {"detect": DEFAULT["detect"], "caption": {**DEFAULT["caption"], "attributes": attributes}}  # of mini
    params["materialize"] |= {key: DEFAULT["materialize"][key] for key in ("validation", "test", "seed")}
    params["materialize"] |= {"size": tiny.SIDE, "buckets": params["materialize"]["buckets"] and [[32, 32], [48, 32]]}
    train["encoder"] |= {"tower": tower(), "tokens": 4, "tower_blocks": min(1, train["encoder"]["tower_blocks"])}
    train |= {"base": tiny_bases.saved(family, path.parent / "base"), "steps": 4, "warmup": 0, "save_every": 2}
    train |= {"batch_size": 4, "micro_batch_size": 2, "prior": train["prior"] and 2, "offload": False}
    if train["identity_network"]:
        train["identity_network"] = tiny.dinov2(path.parent / "dinov2")
    small = {"steps": 1, "batch_size": 2}
    train["validation"] |= {"every": 4, "objects": 1, "sampling": train["validation"]["sampling"] | small}
    params["evaluate"] |= {key: DEFAULT["evaluate"][key] for key in ("judge", "strict_judge", "text_judge", "scores")}
    params["evaluate"] |= {"objects": 1, "images_per_prompt": 1, "scenes": ["on the beach"], "styles": []}
    params["evaluate"] |= {"control_objects": 0, "sampling": params["evaluate"]["sampling"] | small}
    path.write_text(yaml.safe_dump(params))
    return params


@pytest.mark.parametrize(
    "profile",
    [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in (*profiles.BASES, *profiles.IP_ADAPTERS)],
)
def test_a_profile_goes_the_whole_way(profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = ["--memory", str(PRESETS[profile])] if profile in PRESETS else []
    taming("init", str(tmp_path), "--profile", profile, *memory)
    p = shrink(tmp_path / "params.yaml", profile)["train"]
    for identity in IDENTITIES:
        (tmp_path / "data/raw" / identity).mkdir()
        for photo in sorted((ROOT / "data/raw" / identity).glob("*.jpg"))[:2]:
            shutil.copy(photo, tmp_path / "data/raw" / identity)
    monkeypatch.chdir(tmp_path)
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    for name in ("detect", "caption", "materialize", "train", "evaluate"):
        taming(*shlex.split(stages[name]["cmd"])[1:])

    captions = [r for b in schema.iter_rows(Path("data/captions.parquet"), schema.CAPTIONS, 9) for r in b]
    assert any(r["attributes"] for r in captions) == (not profile.endswith("-ip-adapter"))
    rows = [
        r for path in Path("data/rows").glob("*.parquet") for b in schema.iter_rows(path, schema.ROWS, 9) for r in b
    ]
    assert not any(r["regularization"] for r in rows)  # the base draws them
    trained = json.loads(Path("data/encoder/training.json").read_text())
    steps = [json.loads(line) for line in next(Path("runs").glob("train-*/metrics.jsonl")).read_text().splitlines()]
    assert trained["last"]["step"] == len(steps) == p["steps"]
    assert any(step["identity"] for step in steps) == (p["identity_weight"] > 0)
    assert bool(list(Path("runs").glob("prior-*/*.parquet"))) == (p["prior"] is not None)
    assert Path("data/encoder/lora").is_dir() == (p["tune"] == "lora")
    assert json.loads(Path("data/evaluation/metrics.json").read_text())

    taming("export", "--to", "diffusers", "--out", "exported")
    stock: Any = DiffusionPipeline.from_pretrained("exported")
    assert type(stock) is tiny_bases.STOCK[profile.removesuffix("-ip-adapter")]
