"""A journey as a newcomer sees it: an empty home, nothing configured, and every line that is printed is one of ours."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project_copy import copy_tracked

from taming_core.params.load import packaged_params

OURS = tuple(
    re.compile(pattern)
    for pattern in (
        r"data/\w+\.parquet: \d+ photos(, <object> by .+)?",
        r"not photos: README\.md",
        r"\d+ of \d+ identities in the split test have one view: .+",
        r"data/rows: \d+ train, \d+ validation, \d+ test; .+",
        r" +\d+  [a-z ]+ +\d+\.\d%",
        r"data/encoder: 2 steps, loss \d\.\d{4}",
        r" +\d+ (rows with an object|regularization rows)",
        r"data/evaluation: \d+ images of \d+ held-out objects",
        r" +(\d+ %|-?\d\.\d\d)  [a-z ]+  ?another object's tokens .+",
        r" +\d+ %  right style",
        r"tokens: cosine \d\.\d\d with those of the mirrored subject; column read with R² -?\d+\.\d\d, row with R² .+",
        r"protocol of the params, fingerprint [0-9a-f]{16}",
        r"\d+\.\d\d seconds and \d+ KB per object",
        r"\S+/report.html and \S+/sheet.png show them",
        r"1 images in out, with the encoder data/encoder; out/sheet.png shows them",
        r"data/rows: \d+ rows",
        r"sheet.png shows \d+ of them",
        r"exported: diffusers of data/encoder",
        r"Stock diffusers loads it as a text-to-image model; objects need TamingPipeline.",
    )
)
PHOTO = "data/raw/robot-fluent3d/0.jpg"
GENERATE = ["generate", "--object", PHOTO, "--prompt", "a photo of a <object>", "--out", "out"]


def small(folder: Path) -> None:
    """A project of `mini` with a few photos and as little work as shows everything."""
    params = yaml.safe_load(packaged_params().read_text())
    params["materialize"] |= {"validation": 0.3, "test": 0.4}
    params["train"] |= {"steps": 2, "batch_size": 2, "micro_batch_size": 1, "regularization": 0.0}
    params["train"]["validation"] |= {"every": 2, "objects": 1}
    params["evaluate"] |= {"objects": 2, "control_objects": 1, "scenes": ["on the beach"]}
    params["evaluate"]["styles"] = params["evaluate"]["styles"][:1]
    for sampling in (params["train"]["validation"], params["evaluate"], params["generate"]):
        sampling["sampling"]["steps"] = 1
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for name in ("robot-fluent3d", "socks-openmoji", "hibiscus-twemoji", "cherries-fluent3d", "scroll-noto"):
        copy_tracked(folder / "data/raw" / name, f"data/raw/{name}")
        for photo in sorted((folder / "data/raw" / name).glob("*.jpg"))[2:]:
            photo.unlink()


@pytest.mark.timeout(300)
def test_no_line_of_a_journey_is_a_librarys(tmp_path: Path) -> None:
    bin_folder = Path(sys.executable).parent
    home = tmp_path / "home"
    home.mkdir()
    env = {"HOME": str(home), "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    def run(*command: str, cwd: Path) -> str:
        done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        return done.stdout

    folder = tmp_path / "mine"
    run("taming", "init", str(folder), cwd=tmp_path)
    small(folder)
    run("dvc", "init", "--no-scm", cwd=folder)
    printed = run("dvc", "repro", "--quiet", cwd=folder)
    printed += run("taming", *GENERATE, cwd=folder)
    printed += run("taming", "inspect", "data/rows", "--out", "sheet.png", cwd=folder)
    printed += run("taming", "export", "--to", "diffusers", "--out", "exported", cwd=folder)
    lines = [line for line in printed.splitlines() if line]
    foreign = [line for line in lines if not any(pattern.fullmatch(line) for pattern in OURS)]
    assert foreign == []
    assert all(any(pattern.fullmatch(line) for line in lines) for pattern in OURS)
    assert "\r" not in printed  # no bar where there is no terminal
