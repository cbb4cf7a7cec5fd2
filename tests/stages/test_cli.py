"""Help is fast, complete and light; errors read well."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [
    "init", "doctor", "detect", "caption", "materialize", "train", "eval", "generate", "baseline", "export", "inspect",
    "studio", "world", "bench",
]  # fmt: skip
BENCHES = ["bench train", "bench data", "bench generate", "bench start", "bench memory"]
HEAVY = "{'torch', 'diffusers', 'transformers', 'ultralytics', 'pyarrow', 'numpy', 'PIL', 'datasets', 'gradio'}"


def taming(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from stages.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "COLUMNS": "200"})


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, stages.cli; print({HEAVY} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_help_names_every_command() -> None:
    shown = taming("--help").stdout
    assert all(re.search(rf"^  {c} ", shown, re.MULTILINE) for c in COMMANDS)


def examples(command: str) -> list[str]:
    """The commands that a help text gives as examples."""
    return re.findall(r"^\s*(?:Example:\s*)?(taming .+)$", taming(*command.split(), "--help").stdout, re.MULTILINE)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "bench"] + BENCHES)
def test_every_help_has_an_example_of_itself_with_known_options(command: str) -> None:
    shown = taming(*command.split(), "--help").stdout
    assert examples(command)
    for example in examples(command):
        words = shlex.split(example)
        assert words[1 : 1 + len(command.split())] == command.split()
        for option in (w for w in words if w.startswith("--")):
            assert re.search(rf"{option}\b", shown.split("Options:")[1]), f"{option} is not an option of {command}"


def test_a_user_error_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    done = taming("caption", "--in", "absent", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("taming: ")
    assert done.stderr.count("\n") == 1


def test_a_wrong_params_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("detect: {detectr: mini}\n")
    done = taming("detect", "--in", ".", cwd=tmp_path)
    assert done.returncode == 1
    assert "detect." in done.stderr
    assert "Traceback" not in done.stderr
