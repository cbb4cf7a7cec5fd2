"""`taming eval` with a vision-language model behind a server: what is asked, kept, written, and after a failure."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_api import FakeApi, serving
from small_rows import write_rows
from typer.testing import CliRunner

from stages.cli import app
from taming_core.params.load import packaged_params

KEY = "a-secret-key"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    yield from serving(monkeypatch, lambda prompt: f"Fine.\nScore: {len(prompt) % 5}")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", KEY)
    write_rows(tmp_path / "rows", held_out=2, seen=1)
    return tmp_path


def evaluate(out: str, vlm: dict[str, Any] | None) -> tuple[int, str]:
    everything = yaml.safe_load(packaged_params().read_text(encoding="utf-8"))
    small = {"objects": 2, "control_objects": 1, "scenes": ["on the beach"], "styles": ["a black and white photo of"]}
    everything["evaluate"] |= {**small, "strict_judge": None, "vlm": vlm}
    everything["evaluate"]["sampling"] |= {"steps": 1}
    Path("params.yaml").write_text(yaml.safe_dump(everything), encoding="utf-8")
    command = ["eval", "--encoder", "mini", "--in", "rows", "--out", out, "--device", "cpu"]
    result = CliRunner().invoke(app, command)
    return result.exit_code, str(result.exception or result.output)


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(out) / "scores.jsonl").read_text(encoding="utf-8").splitlines()]


def test_an_evaluation_asks_each_question_once_and_continues_after_a_failure(project: Path, api: FakeApi) -> None:
    vlm = {"model": f"{api.url}#tiny", "api_key_env": "MY_KEY", "retries": 0, "at_once": 1}
    api.open_until = 5
    code, message = evaluate("first", vlm)
    assert (code, "503 overloaded" in message, (project / "first").exists()) == (1, True, False)
    api.open_until = 10**6
    code, message = evaluate("first", {**vlm, "at_once": 7, "timeout": 60.0})
    assert code == 0, message
    # 2 objects in a scene and a style, 1 other object's tokens, 1 without: CP and PF; 2 real photos: CP
    assert len(api.requests) == 1 + 2 * (2 * 2 + 1 + 1) + 2
    assert "concept preservation" in message
    metrics = json.loads((project / "first/metrics.json").read_text(encoding="utf-8"))
    assert {"cp", "pf", "cp_pf", "vlm_answered"} <= set(metrics["ours"])
    assert metrics["real_photos"]["vlm_answered"] == 1.0
    assert "pf" not in metrics["real_photos"]
    assert all({"cp", "cp_answer", "vlm_answered"} <= set(row) for row in rows("first"))
    assert "tiny" in (project / "first/report.html").read_text(encoding="utf-8")
    asked = len(api.requests)
    assert evaluate("second", vlm)[0] == 0
    assert len(api.requests) == asked
    for name in ("metrics.json", "intervals.json", "scores.jsonl"):
        assert (project / "first" / name).read_bytes() == (project / "second" / name).read_bytes()
    written = [p for p in project.rglob("*") if p.is_file()]
    assert not [p for p in written if KEY.encode() in p.read_bytes()]


def test_what_is_wrong_is_said_before_an_image_is_drawn(project: Path, api: FakeApi) -> None:
    assert (
        "evaluate.vlm.api_key_env is NO_SUCH" in evaluate("out", {"model": f"{api.url}#x", "api_key_env": "NO_SUCH"})[1]
    )
    assert "or set evaluate.vlm to null" in evaluate("out", {"model": "./nothing"})[1]
    assert "does not answer" in evaluate("out", {"model": "http://127.0.0.1:9/v1#tiny"})[1]
    assert not list((project / "runs").rglob("*.png"))
    assert not api.requests
