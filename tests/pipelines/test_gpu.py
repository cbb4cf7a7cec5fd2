"""`python -m pipelines.gpu` in tiny sizes on a CPU: that every check and case runs, and what of it is written."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.gpu import __main__ as gpu
from pipelines.gpu import benchmarks, checks
from taming_core.errors import TamingError

ROOT = Path(__file__).parents[2]


def test_its_smoke_run_does_everything(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pipelines.gpu", "--device", "cpu", "--smoke", "--out", tmp_path]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(words, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL, timeout=600)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["left_out"] == {}
    assert [(c["name"], c["result"]) for c in found["checks"]] == [(name, "passed") for name in checks.CHECKS]
    assert [(s["case"], s["loop"]) for s in found["speeds"]] == [
        (case.name, one) for case in benchmarks.SMOKE for one in ("ours", "plain")
    ]
    assert all(s["images_per_second"] > 0 for s in found["speeds"])
    page = (tmp_path / "results.md").read_text()
    assert all(f"| {name} | passed |" in page for name in checks.CHECKS)
    assert page.startswith("cpu; torch ")


def new_results() -> dict[str, Any]:
    return {"checks": [], "speeds": [], "left_out": {}}


def test_what_is_not_done_in_time_is_left_out_and_said() -> None:
    results = new_results()

    def endless() -> None:
        while True:
            pass

    now = gpu.time.perf_counter()
    gpu.attempt("endless", endless, now + 0.2, results)
    gpu.attempt("late", lambda: results["speeds"].append("never"), now, results)
    assert results == {**new_results(), "left_out": {"endless": "no time left", "late": "no time left"}}


def test_one_failure_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    results, end = new_results(), gpu.time.perf_counter() + 60

    def too_large() -> None:
        raise RuntimeError("CUDA out of memory.\nDetails")

    gpu.attempt("large", too_large, end, results)
    assert results["left_out"] == {"large": "CUDA out of memory."}
    monkeypatch.setitem(checks.CHECKS, "odd", lambda *_: checks.require({"difference": float("nan")}, difference=0.1))
    gpu.attempt("odd", lambda: gpu.check("odd", "cpu", gpu.SMALL, results), end, results)
    monkeypatch.setitem(checks.CHECKS, "large", lambda *_: too_large())
    gpu.attempt("large", lambda: gpu.check("large", "cpu", gpu.SMALL, results), end, results)
    assert [(c["name"], c["result"], c["figures"]) for c in results["checks"]] == [
        ("odd", "failed", "difference is nan, above 0.1"), ("large", "failed", "CUDA out of memory."),
    ]  # fmt: skip


def test_the_cases_are_params_that_there_are() -> None:
    found = {case: benchmarks.case_params(case, None) for case in benchmarks.CASES}
    assert {(params.train.tune, params.train.batch_size) for params in found.values()} >= {
        (tune, size) for tune in ("adapter", "lora", "whole") for size in (8, 32)
    }
    assert {c.profile: p.materialize.size for c, p in found.items()} == {
        "sd15-ip-adapter": 512,
        "sdxl-ip-adapter": 1024,
    }
    assert [c.name for c, p in found.items() if p.train.compile] == ["sd15-ip-adapter adapter 8 compiled"]
    assert all(p.train.injection == "decoupled" for p in found.values())


def test_no_gpu_is_a_clear_error(tmp_path: Path) -> None:
    if gpu.torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(TamingError, match="There is no device cuda"):
        gpu.main(tmp_path, "cuda", 1, smoke=True)
