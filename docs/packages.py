"""The packages of taming_core, what each imports, and the picture of both in docs/explanation/architecture.md.

    python docs/packages.py          writes docs/packages.svg

A new package is named in ORDER. tests/test_graph.py checks that the order holds and that the picture is current.
"""

import ast
from collections.abc import Iterable
from functools import cache
from html import escape
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).parents[1]
CORE = ROOT / "taming_core"
PICTURE = Path(__file__).with_suffix(".svg")

# Lowest first: a package, or a module outside of all packages, imports only what stands before it.
ORDER = (
    "errors", "seeds", "progress", "storage", "files", "locks", "fingerprints", "drop_reasons", "params", "photos",
    "tables", "engine", "language", "overrides", "weights", "vlm", "figures", "objects", "curation", "captions", "rows",
    "bases", "model", "images", "training", "baselines", "evaluation", "inspection", "generation", "exports",
    "projects", "world", "benchmarks", "studio",
)  # fmt: skip

ROW, LEFT, FILES, CELL, TOP, LETTERS = 22, 118, 560, 20, 108, 88  # pixels; letters of file names in a line


@cache
def imported(path: Path) -> frozenset[Path]:
    """The project's own files that a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    found = (ROOT / f"{name.replace('.', '/')}.py" for name in names)
    return frozenset(file for file in found if file.is_file())


def reached(paths: Iterable[Path]) -> set[Path]:
    """The files, and all of the project's own that they need."""
    seen, todo = set[Path](), list(paths)
    while todo:
        if (current := todo.pop()) not in seen:
            seen.add(current)
            todo += imported(current)
    return seen


def package_of(path: Path) -> str:
    """The package of a file below taming_core, or its own name where it is in none."""
    first = path.relative_to(CORE).parts[0]
    return first.removesuffix(".py")


def modules() -> dict[str, list[Path]]:
    """The files of every package, by its name."""
    found: dict[str, list[Path]] = {}
    for path in sorted(CORE.rglob("*.py")):
        if path.name != "__init__.py":
            found.setdefault(package_of(path), []).append(path)
    return found


def arrows() -> set[tuple[str, str]]:
    """Pairs of packages, of which the first imports the second."""
    pairs = {(name, package_of(to)) for name, files in modules().items() for f in files
             for to in imported(f) if to.is_relative_to(CORE)}  # fmt: skip
    return {(name, other) for name, other in pairs if name != other}


def picture() -> str:
    """The packages with their files, lowest first, and a dot for each import of one by another (SVG)."""
    files, pairs = modules(), arrows()
    columns = [LEFT + FILES + CELL * n + CELL / 2 for n in range(len(ORDER))]
    body, y = [], float(TOP)
    middles: list[float] = []
    for name in ORDER:
        names = [path.stem for path in files[name]]
        lines = [] if names == [name] else wrap(", ".join(names), LETTERS)
        height = max(ROW, 15 * len(lines) + 7)
        middles.append(y + height / 2)
        if len(middles) % 2:
            body.append(f'<rect y="{y:g}" width="{columns[-1] + CELL:g}" height="{height}" fill="#f5f6f8"/>')
        body.append(f'<text x="10" y="{y + 15:g}" class="p">{name}</text>')
        body += [
            f'<text x="{LEFT}" y="{y + 15 + 15 * n:g}" class="f">{escape(line)}</text>' for n, line in enumerate(lines)
        ]
        y += height
    for name, x, middle in zip(ORDER, columns, middles, strict=True):
        body.append(f'<text transform="translate({x + 4:g} {TOP - 6}) rotate(-60)" class="c">{name}</text>')
        body.append(f'<rect x="{x - 5:g}" y="{middle - 5:g}" width="10" height="10" fill="#c9cdd3"/>')
    for name, other in sorted(pairs):
        x, middle = columns[ORDER.index(other)], middles[ORDER.index(name)]
        colour = "#2f6db3" if ORDER.index(other) < ORDER.index(name) else "#c0392b"
        body.append(f'<circle cx="{x:g}" cy="{middle:g}" r="4" fill="{colour}"/>')
    width = LEFT + FILES + CELL * len(ORDER) + 70
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 12:g}" '
        f'viewBox="0 0 {width} {y + 12:g}" font-family="DejaVu Sans, Helvetica, Arial, sans-serif">\n'
        "<style>.p{font-size:13px;font-weight:bold;fill:#1d2025}.f{font-size:11.5px;fill:#5c626b}"
        ".c{font-size:11.5px;fill:#1d2025}</style>\n"
        f'<rect width="{width}" height="{y + 12:g}" fill="#ffffff"/>\n'
        '<text x="10" y="28" font-size="16" font-weight="bold" fill="#1d2025">The packages of taming_core</text>\n'
        '<text x="10" y="50" class="f">A package imports only what stands above it. '
        f"A dot: the package of the row imports that of the column; {len(pairs)} in all.</text>"
    )
    return "\n".join([head, *body, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
