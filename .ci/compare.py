"""Compare the results of two commits, file by file: tables, losses, weights, images, scores and exports.

    python .ci/compare.py BEFORE AFTER [--keep FOLDER]

Each commit runs the demo's chain (`dvc repro`, `taming generate`, `taming export`) and, on tiny models of every base
family, training, generation and export, in a clone of its own with fixed seeds. A refactoring must leave all of it
identical. Prose may differ, so model cards, the report and sheets with headings are listed but not compared.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
UNSEEN = ("cherries-fluent3d", "hibiscus-twemoji", "headstone-twemoji", "nest-with-eggs-fluent3d")
PROMPTS = ("a photo of a <object> on the beach", "a pixel art of a <object> in a city at night")
FAMILIES = {
    "sd15": ("decoupled", "resampler"),
    "sdxl": ("decoupled", "linear"),
    "sd3": ("concat", "resampler"),
    "flux": ("decoupled", "linear"),
}
# In a clone, whose tests bring the tiny models: a project on the base of one family, trained.
BASE_CHAIN = """
import sys
from pathlib import Path
root, folder, family, injection, projector = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
found = next((root / "tests").rglob("test_base_chain.py"))
sys.path[:0] = [str(root / "tests"), str(found.parent), str(root)]
import torch
torch.manual_seed(0)
import test_base_chain
from stages.train import train
test_base_chain.project(folder, family, projector, injection=injection)
train(Path("data/rows"), Path("data/encoder"), Path("params.yaml"), "cpu")
"""
# Names that changed: as they are in BEFORE -> as they are compared.
RENAMED = {"general": "regularization", "general_rows": "regularization_rows", "stand_in": "augmentation"}
PROSE = ("README.md", "report.html", "sheet.png", "export.json", "model_index.json", "generation.json", "training.json")
SECONDS, SPEED = ("timings.json",), ("images_per_second",)
INPUTS = ("journey/raw/", "journey/general/", "journey/regularization/")


def run(clone: Path, out: Path) -> None:
    """Everything that is compared, by the code of a clone."""
    env = {**os.environ, "PYTHONPATH": str(clone), "HF_HUB_OFFLINE": "1",
           "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip

    def call(*command: str, folder: Path = clone) -> None:
        print("  ", *command[:6])
        subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)

    objects = [word for name in UNSEEN for word in ("--object", f"data/raw/{name}/0.jpg")]
    prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    call("dvc", "repro", "--quiet")
    call("taming", "generate", *objects, *prompts, "--out", "out/demo")
    call("taming", "export", "--encoder", "data/encoder", "--to", "diffusers", "--out", "out/diffusers")
    for family, (injection, projector) in FAMILIES.items():
        folder = out / family
        folder.mkdir(parents=True)
        call(sys.executable, "-c", BASE_CHAIN, str(clone), str(folder), family, injection, projector, folder=folder)
        photo = str(clone / "data/raw" / UNSEEN[0] / "0.jpg")
        call("taming", "generate", "--object", photo, "--mask", str(mask_of(Path(photo), folder)), *prompts,
             "--out", "images", "--params", "params.yaml", folder=folder)  # fmt: skip
        call("taming", "export", "--to", "diffusers", "--dtype", "fp32", "--out", "diffusers", folder=folder)
    (out / "journey").symlink_to(clone / "data")
    (out / "made").symlink_to(clone / "out")


def mask_of(photo: Path, folder: Path) -> Path:
    """A mask of the middle of a photo."""
    width, height = Image.open(photo).size
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder / "mask.png"


def files_of(out: Path) -> dict[str, Path]:
    """What a commit made, by name."""
    found = (Path(parent, name) for parent, _, names in os.walk(out, followlinks=True) for name in names)
    by_name = {path.relative_to(out).as_posix(): path for path in found if not path.name.startswith("events.out.")}
    return {rename(name): path for name, path in by_name.items() if not name.startswith(INPUTS)}


def rename(name: str) -> str:
    """A name without the fingerprint of a run's params, and with current names of folders."""
    return "/".join(RENAMED.get(part, part) for part in re.sub(r"(?<=/train-)[0-9a-f]{16}", "", name).split("/"))


def content(path: Path) -> Any:
    """What counts of a file, comparable by ==."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return {RENAMED.get(name, name): table.column(name).to_pylist() for name in table.column_names}
    if path.suffix == ".safetensors":
        return {name: (w.dtype.str, w.shape, w.tobytes()) for name, w in load_file(path).items()}
    if path.suffix in (".png", ".jpg"):
        image = Image.open(path)
        return image.mode, image.size, image.tobytes()
    if path.suffix == ".jsonl":
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return [{key: value for key, value in row.items() if key not in SPEED} for row in rows]
    return json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else path.read_bytes()


def differences(before: Path, after: Path) -> Iterator[tuple[str, str, str]]:
    """Name, kind and verdict of every file of either."""
    first, second = files_of(before), files_of(after)
    for name in sorted(first.keys() | second.keys()):
        kind = Path(name).suffix.lstrip(".") or "other"
        if Path(name).name in PROSE or "/sheets/" in name or "params.yaml" in name:
            yield name, "prose", "not compared"
        elif Path(name).name in SECONDS:
            yield name, "seconds", "not compared"
        elif name not in first or name not in second:
            yield name, kind, "only before" if name in first else "only after"
        else:
            yield name, kind, "identical" if content(first[name]) == content(second[name]) else "DIFFERENT"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--keep", type=Path, help="folder for clones and results; what is there is not run again")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp())
    for name in ("before", "after"):
        clone, out = folder / f"{name}-clone", folder / name
        if out.is_dir():
            continue
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        subprocess.run(["git", "checkout", "--quiet", getattr(args, name)], cwd=clone, check=True)
        print(name, getattr(args, name))
        run(clone, out)
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    bad = []
    for name, kind, verdict in differences(folder / "before", folder / "after"):
        counts[kind][verdict] += 1
        if verdict not in ("identical", "not compared"):
            bad.append(f"{verdict}: {name}")
    for kind, verdicts in sorted(counts.items()):
        print(f"{kind:12}", ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()))
    print(*bad, sep="\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
