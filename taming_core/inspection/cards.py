"""Rows of the tables between stages as cards of a contact sheet: which rows are shown, and how."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray
from PIL import Image
from upath import UPath

from taming_core.errors import TamingError
from taming_core.figures.contact_sheet import Card, draw_outlines, text_tile
from taming_core.photos.decode import Photo, PhotoError, read_photo
from taming_core.photos.files import photo_path
from taming_core.photos.masks import cutout, decode_mask, fit_mask, scale_box
from taming_core.storage.cache import cache_dir, local_copy
from taming_core.storage.filesystem import filesystem, list_folder, object_state
from taming_core.storage.paths import AnyPath
from taming_core.tables import schema
from taming_core.tables.parquet import reading
from taming_core.tables.row_files import row_files
from taming_core.tables.rows import dropped_table

Row = Mapping[str, Any]
End = Literal["lowest", "highest", "spread"]

MASK_SOURCES = {"given": "mask given", "alpha": "mask given by the alpha channel"}
CUTOUT_FILL = 0.94  # share of its tile; display only


@dataclass(frozen=True)
class SheetLayout:
    """How the rows of one kind of table are shown."""

    expected: Any  # pyarrow.Schema
    side: int  # of each picture in pixels
    card: Callable[[Row, AnyPath, int], Card]


def open_table(path: AnyPath) -> tuple[ds.Dataset, SheetLayout]:
    """Open a table file or a folder of shards; returns the table and its layout.

    Raises:
        TamingError: there is no such file or folder, or it holds no table of this version.
    """
    if not isinstance(path, Path):
        files, fs = _remote_files(path)
    else:
        files, fs = ([*sorted(path.rglob("*.parquet")), *_dropped(path)] if path.is_dir() else [path]), None
    if not files or (fs is None and not Path(files[0]).is_file()):
        raise TamingError(f"{path} does not exist or holds no .parquet file. Name a table, or run the stage first.")
    try:
        table = ds.dataset([str(file) for file in files], filesystem=fs)
    except (ValueError, OSError) as error:  # what pyarrow raises for files that are not Parquet
        wrong = path if fs else next((file for file in files if schema.name_of(Path(file)) is None), path)
        raise TamingError(f"{wrong} is not a Parquet table, or is damaged. Name objects.parquet, captions.parquet or "
                          "rows/, or remove it and run the command again that wrote it.") from error  # fmt: skip
    kind = (table.schema.metadata or {}).get(b"taming.table", b"").decode()
    if kind not in LAYOUTS:
        raise TamingError(f"{path} is not a table of this program. Name objects.parquet, captions.parquet or rows/.")
    schema.check(table.schema, LAYOUTS[kind].expected, path)
    return table, LAYOUTS[kind]


def _remote_files(path: UPath) -> tuple[Sequence[str | Path], Any]:
    """The files of a table or of rows in a store, or their local copies; and the file system that they are of."""
    found = [(cast(UPath, file.path), file.state) for file in row_files(path)]
    place = cast(UPath, dropped_table(path)) if found else path
    info = list_folder(place.parent).get(place.name)
    found += [] if info is None else [(place, object_state(info))]
    if (cache := cache_dir()) is not None:
        return [local_copy(file, state, cache) for file, state in found], None
    return [file.path for file, _ in found], filesystem(path)


def _dropped(folder: Path) -> list[Path]:
    """The table of dropped rows of a folder, if there is one."""
    return [table for table in (dropped_table(folder),) if isinstance(table, Path) and table.is_file()]


def reasons(table: ds.Dataset) -> NDArray[Any]:
    """The countable part of each row's drop reason, `kept` if it has none; see `drop_reasons.reason_of`."""
    compute = cast(Any, pc)  # partly untyped
    with reading(place_of(table)):
        texts = compute.fill_null(table.to_table(columns=["drop_reason"]).column(0), "kept")
    parts = compute.call_function("split_pattern", [texts], pc.SplitPatternOptions(":", max_splits=1))
    return np.asarray(compute.call_function("list_element", [parts, 0]).to_numpy(), dtype=np.str_)


def spread_over_kinds(kinds: NDArray[Any], count: int) -> list[int]:
    """The rows to show: some of every kind, at least half of them kept rows if there are as many, evenly spaced.

    Kept rows come first, then the dropped ones, kind by kind. `kinds` holds a string per row.

    >>> spread_over_kinds(np.array(["kept"] * 8 + ["cut off"] * 2 + ["no object"]), 6)
    [1, 3, 5, 7, 9, 10]
    """
    names, sizes = np.unique(kinds, return_counts=True)
    available: dict[str, int] = dict(zip(names.tolist(), sizes.tolist(), strict=True))
    weight = available | {"kept": max(available.get("kept", 0), len(kinds) - available.get("kept", 0))}
    order = sorted(available, key=lambda name: (name != "kept", -available[name], name))
    shares = dict.fromkeys(order, 0)
    for _ in range(min(count, len(kinds))):
        # D'Hondt's method, kinds without a row first.
        free = (name for name in order if shares[name] < available[name])
        shares[max(free, key=lambda name: (shares[name] == 0, weight[name] / (shares[name] + 1)))] += 1
    return [int(i) for name in order for i in _evenly_spaced(np.flatnonzero(kinds == name), shares[name])]


def _evenly_spaced(items: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """`count` items at equal distances."""
    return items[(2 * np.arange(count) + 1) * len(items) // max(2 * count, 1)]


def choose_rows(kinds: NDArray[Any], count: int, only: str | None) -> list[int]:
    """The rows to show: spread over all kinds, or rows of the kind `only`.

    Raises:
        TamingError: there is no row of that kind.
    """
    candidates = np.arange(len(kinds)) if only is None else np.flatnonzero(kinds == only)
    if not len(candidates):
        names = ", ".join(f"'{k}'" for k in np.unique(kinds)) or "nothing"
        raise TamingError(f"No row of the table is '{only or 'there'}'. What --only can show: {names}.")
    return [int(candidates[i]) for i in spread_over_kinds(kinds[candidates], count)]


def values_of(table: ds.Dataset, name: str) -> NDArray[np.float64]:
    """A number per row, NaN where it has none: a numeric column, or a score of `detect.curation` by its name.

    Raises:
        TamingError: the table has no such numbers; the message lists those it has.
    """
    numeric = [f.name for f in cast(Any, table.schema) if pa.types.is_floating(f.type) or pa.types.is_integer(f.type)]
    if name in numeric:
        with reading(place_of(table)):
            column = cast(Any, table.to_table(columns=[name]).column(0)).cast(pa.float64())
        return column.to_numpy(zero_copy_only=False)
    scored = table.to_table(columns=["scores"]).column(0).to_pylist() if "scores" in table.schema.names else []
    scores = [{s["name"]: s["score"] for s in of_row or ()} for of_row in scored]
    names = sorted({key for of_row in scores for key in of_row})
    if name not in names:
        raise TamingError(f"The table has no numbers named {name}. What --sort can name: {', '.join(numeric + names)}.")
    return np.array([of_row.get(name, np.nan) for of_row in scores], np.float64)


def choose_sorted(values: NDArray[np.float64], candidates: NDArray[np.bool_], count: int, end: End) -> list[int]:
    """The rows with a value in its order: the lowest, the highest (from above), or evenly spread over all ranks.

    >>> values = np.array([3.0, np.nan, 1.0, 2.0, 5.0, 4.0])
    >>> [choose_sorted(values, values < 9, 3, end) for end in ("lowest", "highest", "spread")]
    [[2, 3, 0], [4, 5, 0], [2, 0, 4]]

    Raises:
        TamingError: no candidate has a value.
    """
    order = np.argsort(values, kind="stable")
    order = order[(candidates & ~np.isnan(values))[order]]
    if not len(order):
        raise TamingError("No row that --only leaves has a value to sort by. Name another one, or leave --only out.")
    shown = min(count, len(order))
    if end == "spread":
        return [int(i) for i in order[np.linspace(0, len(order) - 1, shown).round().astype(np.intp)]]
    return [int(i) for i in (order if end == "lowest" else order[::-1])[:shown]]


def object_card(row: Row, raw: AnyPath, side: int) -> Card:
    """The photo with box and mask, and the cut-out."""
    name = row["class"] or row["file_name"]
    title = name if row["score"] is None else f"{name} {row['score']:.2f}"
    lines = [] if name == row["file_name"] else [row["file_name"]]
    lines += [f"a person: {', '.join(row['override'])}"] if row["override"] else []
    lines += [row["override_caption"]] if row["override_caption"] else []
    lines += [MASK_SOURCES[row["mask_source"]]] if row["mask_source"] in MASK_SOURCES else []
    measures = [] if row["sharpness"] is None else [f"sharpness {row['sharpness']:.0f}"]
    measures += [f"{s['name']} {s['score']:.2f}" for s in row["scores"] or ()]
    lines += [", ".join(measures)] if measures else []
    photo = _photo(row, raw)
    if isinstance(photo, str):
        return Card((text_tile(photo, side),), title, tuple(lines), row["drop_reason"])
    with _decoding("mask_png"):
        mask = decode_mask(row["mask_png"]) if row["mask_png"] else None
    size = photo.image.shape[1], photo.image.shape[0]
    box = scale_box(row["box_xyxy"], (photo.width, photo.height), size) if row["box_xyxy"] else None
    pictures = [draw_outlines(photo.image, mask, box, side)]
    if mask is not None and mask.any():
        pictures.append(Image.fromarray(cutout(photo.image, fit_mask(mask, *size), side, CUTOUT_FILL)))
    elif box:
        pictures.append(Image.fromarray(photo.image).crop(box))
    return Card(tuple(pictures), title, tuple(lines), row["drop_reason"])


def caption_card(row: Row, raw: AnyPath, side: int) -> Card:
    """The photo, its caption, and the caption with `<object>`."""
    photo = _photo(row, raw)
    picture = text_tile(photo, side) if isinstance(photo, str) else Image.fromarray(photo.image)
    score = None if row["match_score"] is None else f"match {row['match_score']:.2f}"
    method = None if row["method"] is None else f"by {row['method']}"
    details = ", ".join(text for text in (row["class"], method, score) if text)
    lines = tuple(text for text in (row["caption"], row["object_caption"], details) if text)
    return Card((picture,), row["file_name"], lines, row["drop_reason"])


def training_card(row: Row, _raw: AnyPath, side: int) -> Card:
    """The target image with its mask, the subject, and the conditions of training."""
    if row["image"] is None:
        return Card((text_tile(row["drop_reason"] or "no image", side),), row["file_name"], (), row["drop_reason"])
    pictures = _training_pictures(row, side)
    caption = row["object_caption"] or row["caption"] or ""
    kind = "regularization" if row["regularization"] else f"{row['class']}, {len(row['references'])} other views"
    lines = caption, f"{row['split']}, {kind}"
    return Card(tuple(pictures), row["identity"] or row["file_name"], lines, row["drop_reason"])


def _training_pictures(row: Row, side: int) -> list[Image.Image]:
    """The target image with its mask, and the subject if there is one; raises DamagedImageError."""
    image, mask, subject = (open_image(row, name) for name in ("image", "mask", "subject"))
    assert image is not None
    outlined = draw_outlines(np.asarray(image.convert("RGB")), mask and np.asarray(mask) > 127, None, side)
    return [outlined] if subject is None else [outlined, subject]


def _photo(row: Row, raw: AnyPath) -> Photo | str:
    """The photo of a row, or why it cannot be read."""
    try:
        return read_photo(photo_path(raw, row["file_name"]))
    except PhotoError as error:
        return str(error)


class DamagedImageError(Exception):
    """An image of a row that cannot be decoded."""


@contextmanager
def _decoding(name: str) -> Generator[None]:
    """Turns what Pillow's decoders raise in the block into a DamagedImageError that names the column."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, TypeError) as error:
        raise DamagedImageError(f"{name} is damaged: {error}") from error


def open_image(row: Row, name: str) -> Image.Image | None:
    """An image of a row; None where the row has none."""
    if row[name] is None:
        return None
    with _decoding(name):
        image = Image.open(BytesIO(row[name]["bytes"]))
        image.load()
    return image


LAYOUTS = {
    "objects": SheetLayout(schema.OBJECTS, 190, object_card),
    "captions": SheetLayout(schema.CAPTIONS, 240, caption_card),
    "rows": SheetLayout(schema.ROWS, 190, training_card),
}


def cards(table: ds.Dataset, layout: SheetLayout, chosen: Sequence[int], raw: AnyPath) -> list[Card]:
    """The cards of the chosen rows, in that order; that of a row with a damaged image says so."""
    with reading(place_of(table)):
        rows = table.take(pa.array(chosen)).to_pylist()
    return [_card(row, layout, raw) for row in rows]


def _card(row: Row, layout: SheetLayout, raw: AnyPath) -> Card:
    try:
        return layout.card(row, raw, layout.side)
    except DamagedImageError as error:
        return Card((text_tile(str(error), layout.side),), row["file_name"], (str(error),), row["drop_reason"])


def place_of(table: ds.Dataset) -> Path:
    """The file of a table, or the folder of its files."""
    files = [Path(file) for file in cast(Any, table).files]
    return files[0] if len(files) == 1 else files[0].parent
