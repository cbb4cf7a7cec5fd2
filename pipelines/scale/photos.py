"""Generated photos for the measurement, with files among them that a stage has to set aside."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.scale.processes import run

EVERY = 100  # photos per file that is no good photo
SPOIL: dict[str, Callable[[bytes], bytes]] = {
    "copy": bytes,
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "text": lambda _: b"not a photo\n",
}


def make(count: int, folder: Path, params: Path) -> Path:
    """`count` photos of `taming world` below a folder, and a hundredth as many spoilt files; goes on after a crash."""
    photos, metadata = folder / "photos", folder / "photos" / "metadata.jsonl"
    if not metadata.exists():
        words = ("--photos", str(count), "--split", "train", "--params", str(params.resolve()))
        run(("world", "--out", str(photos.resolve()), *words), folder)
    for path, data in spoilt(metadata):
        if not path.exists():
            path.write_bytes(data)
    return photos


def spoilt(metadata: Path) -> Iterator[tuple[Path, bytes]]:
    """Files beside every hundredth photo: in turns a copy, half of its bytes, none of them, and text."""
    kinds = list(SPOIL)
    with metadata.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % EVERY == 0:
                photo = metadata.parent / json.loads(line)["file_name"]
                kind = kinds[number // EVERY % len(kinds)]
                yield photo.with_name(f"{photo.stem}-{kind}{photo.suffix}"), SPOIL[kind](photo.read_bytes())
