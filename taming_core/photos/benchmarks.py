"""The folders of published benchmarks, read as they are downloaded: DreamBooth's dataset (DreamBench) and DreamBench++.

Their photos are of the split test: a benchmark is never trained on.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taming_core.drop_reasons import STYLE_PICTURE
from taming_core.photos.files import name_of
from taming_core.photos.metadata import PhotoMetadata
from taming_core.photos.text import read_text
from taming_core.photos.tree import Tree
from taming_core.storage.paths import AnyPath
from taming_core.storage.reading import map_reads

# Source: github.com/google/dreambooth, dataset/.
CLASSES, LICENCES = "prompts_and_classes.txt", "references_and_licenses.txt"
# Source: github.com/yuangpeng/dreambench_plus, dreambench_plus_dataset.py: images/CATEGORY/00.jpg, and in
# captions/CATEGORY/00.txt its class and then its prompts, a line each; captions_zh has the same in Chinese.
CATEGORIES = ("live_subject/animal", "live_subject/human", "object", "style")
STYLE = "style"  # the category whose pictures show no object


@dataclass(frozen=True)
class Benchmark:
    """A benchmark in a folder of photos."""

    name: str
    photos: dict[str, PhotoMetadata]  # by file name
    texts: frozenset[Path]  # its text files, which are no captions of photos; relative
    prompts: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])  # by identity

    def __str__(self) -> str:
        """In words: how many subjects it has here, and their split."""
        count = len({row.identity for row in self._subjects()})
        return f"{self.name} layout, {count} subject{'' if count == 1 else 's'} in the split test"

    @property
    def without_class(self) -> list[str]:
        """The identities whose class it does not say."""
        return sorted({row.identity for row in self._subjects() if row.identity and not row.noun})

    def _subjects(self) -> Iterator[PhotoMetadata]:
        return (row for row in self.photos.values() if row.left_out is None)


def find_benchmarks(photos: Sequence[Path], texts: Sequence[Path], tree: Tree) -> list[Benchmark]:
    """The benchmarks among the photos and text files of a folder, by their layouts."""
    lists = (path for path in texts if path.name.lower() == CLASSES)
    bases = defaultdict[Path, dict[Path, str]](dict)
    for photo in photos:
        for base, category in _places(photo):
            bases[base][photo] = category
    found = (*(_dreambench(path, photos, texts, tree) for path in lists),
             *(_dreambench_plus(base, categories, texts, tree) for base, categories in bases.items()))  # fmt: skip
    return [benchmark for benchmark in found if benchmark is not None]


def _dreambench(path: Path, photos: Sequence[Path], texts: Sequence[Path], tree: Tree) -> Benchmark | None:
    """The benchmark whose classes a file lists; None if it lists none, or no folder of a subject is beside it."""
    base, classes = path.parent, read_classes(tree.path(path))
    subjects = {
        photo: photo.relative_to(base).parts[0] for photo in photos if base in photo.parents and base != photo.parent
    }
    if not classes or not subjects:
        return None
    # Beside other photos the folder is part of the identity: `cat` may be the user's.
    prefix = "" if len(subjects) == len(photos) or base == Path() else f"{name_of(base)}/"
    rows = {
        name_of(photo): PhotoMetadata(prefix + name, classes.get(name), split="test")
        for photo, name in subjects.items()
    }
    own = (text for text in texts if text.parent == base and text.name.lower() in (CLASSES, LICENCES))
    return Benchmark("DreamBench", rows, frozenset(own))


def read_classes(path: AnyPath) -> dict[str, str]:
    """The class of each subject in `prompts_and_classes.txt`: its lines `subject,class` before those of the prompts."""
    lines = _lines(path)
    pairs = [line.split(",") for line in lines[: lines.index("Prompts") if "Prompts" in lines else None]]
    named = {pair[0].strip(): pair[1].strip() for pair in pairs if len(pair) == 2}
    return {subject: noun for subject, noun in named.items() if noun and subject != "subject_name"}


def _places(photo: Path) -> Iterator[tuple[Path, str]]:
    """The folder of DreamBench++ that a photo's path would be in, and its category there; none for another path."""
    parts = photo.parent.parts
    for i, part in enumerate(parts):
        if part == "images" and "/".join(parts[i + 1 :]) in CATEGORIES:
            yield Path(*parts[:i]), "/".join(parts[i + 1 :])


def _dreambench_plus(base: Path, categories: Mapping[Path, str], texts: Sequence[Path], tree: Tree) -> Benchmark | None:
    """The benchmark in a folder, of photos with their categories; None if no text has a class and prompts of one."""
    own = frozenset(t for t in texts if base in t.parents and t.relative_to(base).parts[0].startswith("captions"))
    text_of = {photo: base / "captions" / category / f"{photo.stem}.txt" for photo, category in categories.items()}
    known = {photo: text for photo, text in text_of.items() if text in own}
    read = dict(zip(known, map_reads(_lines, [tree.path(text) for text in known.values()]), strict=True))
    lines = {photo: read.get(photo, []) for photo in categories}
    if all(len(found) < 2 for found in lines.values()):
        return None
    rows = {photo: _subject(photo, categories[photo], found[:1]) for photo, found in lines.items()}
    prompts = {str(row.identity): tuple(lines[photo][1:]) for photo, row in rows.items() if row.left_out is None}
    return Benchmark("DreamBench++", {name_of(photo): row for photo, row in rows.items()}, own, prompts)


def _subject(photo: Path, category: str, noun: Sequence[str]) -> PhotoMetadata:
    """What the benchmark says of a photo; the identity is its own code's, such as live_subject_animal_00_kitten."""
    words = [category.replace("/", "_"), photo.stem, *(n.lower().replace(" ", "_") for n in noun)]
    left_out = STYLE_PICTURE if category == STYLE else None
    return PhotoMetadata("_".join(words), next(iter(noun), None), split="test", left_out=left_out)


def _lines(path: AnyPath) -> list[str]:
    """The lines of a text file that hold something; none of a file that cannot be read."""
    try:
        text, _ = read_text(path)
    except (OSError, ValueError):
        return []
    return [line.strip() for line in text.split("\n") if line.strip()]
