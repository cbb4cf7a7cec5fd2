"""Compiled blocks compute what uncompiled ones do, are compiled once, and are refused where shapes change."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from pydantic import ValidationError

from taming_core.errors import TamingError
from taming_core.training.distributed import require_divisible
from taming_core.training.start import continued_pipeline

TESTS = Path(__file__).parents[1]


def run(folder: Path, *words: str) -> Any:
    tiny.write_rows(folder)
    paths = {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    command = [sys.executable, TESTS / "compiled_runs.py", folder, *words]
    subprocess.run(command, env={**os.environ, **paths}, check=True)
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(tmp_path_factory.mktemp("rows"))


@pytest.mark.parametrize("name", ["lora", "adapter"])
def test_compiled_blocks_train_as_uncompiled_ones_do(found: Any, name: str) -> None:
    one = found[name]
    assert one["compiled"] == pytest.approx(one["plain"], rel=1e-3)
    assert one["before"] == 0
    assert 0 < one["count"] <= one["blocks"]  # once and not in every step


def test_a_validation_grid_compiles_nothing(found: Any) -> None:
    assert found["grid"]["within"] == 0 < found["grid"]["then"]


def test_designs_whose_shapes_change_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"train.compile must be false where train.injection is concat"):
        tiny.train_params(compile=True, start=None, base="mini", injection="concat", background="removed",
                          encoder={"tower": "mini", "projector": "full", "tokens": 4, "tower_blocks": 0})  # fmt: skip
    with pytest.raises(TamingError, match=r"train.compile must be false.*\(concat\)"):
        continued_pipeline(tiny.pipeline("concat"), tiny.train_params(compile=True))
    continued_pipeline(tiny.pipeline("gated"), tiny.train_params(compile=True))


def test_sharded_blocks_are_refused() -> None:
    p = tiny.train_params(compile=True)
    require_divisible(2, p, shard=False, injection="gated")
    with pytest.raises(TamingError, match=r"--shard cannot .* Set train.compile to false"):
        require_divisible(2, p, shard=True, injection="gated")


@pytest.mark.slow
def test_generated_code_trains_as_torch_does(tmp_path: Path) -> None:
    found = run(tmp_path, "inductor")
    assert found["compiled"] == pytest.approx(found["plain"], rel=1e-3)
