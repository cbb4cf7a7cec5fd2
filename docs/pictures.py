"""The pictures of the documentation, made by the code that they show.

python docs/pictures.py               writes docs/hero.png, triplet.png and objects.png: a minute on a CPU
python docs/pictures.py report        writes docs/report.png from data/evaluation of `make demo`; needs Chromium
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from typer.testing import CliRunner

from stages.cli import app
from taming_core.figures.image_grid import Cell, grid
from taming_core.tables.rows import load_rows

DOCS = Path(__file__).parent
RAW = DOCS.parent / "data/raw"
UNSEEN = ("cherries-fluent3d", "hibiscus-twemoji", "headstone-twemoji", "nest-with-eggs-fluent3d")
PROMPTS = ("a photo of a <object> on the beach", "a photo of a <object> in outer space",
           "a photo of a <object> underwater", "a pixel art of a <object> in a city at night")  # fmt: skip
REPORT = (1339, 1130)  # pixels


def taming(*arguments: str) -> None:
    """Run a command in this process; its errors are raised."""
    CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@contextmanager
def project(identities: Iterator[str]) -> Iterator[Path]:
    """A folder with the photos of some identities, which is the working directory meanwhile."""
    with TemporaryDirectory() as folder, chdir(folder):
        for name in identities:
            shutil.copytree(RAW / name, Path("data/raw") / name)
        yield Path(folder)


def hero() -> None:
    """Objects that no model has seen, in new scenes."""
    with project(iter(UNSEEN)):
        photos = [f"data/raw/{name}/{int(name == 'headstone-twemoji')}.jpg" for name in UNSEEN]
        asked = [*(("--object", photo) for photo in photos), *(("--prompt", prompt) for prompt in PROMPTS)]
        taming("generate", "--encoder", "mini", "--out", "out", *chain(*asked))
        shutil.copyfile("out/sheet.png", DOCS / "hero.png")


def objects() -> None:
    """The contact sheet of all photos of the demo."""
    with project(path.name for path in sorted(RAW.iterdir()) if path.is_dir()):
        taming("detect")
        taming("inspect", "data/objects.parquet", "--out", "sheet.png")
        shutil.copyfile("sheet.png", DOCS / "objects.png")


def triplet() -> None:
    """A training sample: the target with its mask, and the subject from another photo of the same object."""
    with project(iter(("robot-fluent3d", *UNSEEN))):
        taming("detect")
        taming("caption", "--objects", "data/objects.parquet")
        taming("materialize")
        rows = load_rows(Path("data/rows"), "train")
        found = {row["row_id"]: row for row in (rows[i] for i in range(len(rows)))}
        target = next(row for row in found.values() if row["references"])
        other = found[target["references"][0]]
        image, mask, subject = (
            Image.open(BytesIO(data)) for data in (target["image"], target["mask"], other["subject"])
        )
        photo = Image.open(Path("data/raw") / other["file_name"])
        cells = [Cell(image, target["object_caption"]), Cell(mask), Cell(photo), Cell(subject)]
        columns = ["x: the target, with its caption c", "m: where the object is", "another photo of the object",
                   "o: the subject, which the encoder sees"]  # fmt: skip
        grid("A training sample", columns, [cells], 144).save(DOCS / "triplet.png")


def report() -> None:
    """The top of the report of `make demo`."""
    page = (DOCS.parent / "data/evaluation/report.html").resolve()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    flags = ("--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={REPORT[0]},{REPORT[1]}")
    command = [chromium, *flags, f"--screenshot={DOCS / 'report.png'}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    for picture in (report,) if "report" in sys.argv[1:] else (hero, triplet, objects):
        picture()
