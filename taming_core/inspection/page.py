"""The data page as one file: photos with boxes, masks and captions, to filter, sort and enlarge without a server."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from taming_core.drop_reasons import PHOTO_CHANGED, reason_of
from taming_core.errors import TamingError
from taming_core.evaluation.report import pictures
from taming_core.evaluation.report.pictures import BUDGET, SIDES
from taming_core.files import require_out_file
from taming_core.inspection import cards, items
from taming_core.inspection.album import Album, Load, album
from taming_core.inspection.items import Item
from taming_core.inspection.outline import outline
from taming_core.photos.decode import PhotoError, read_photo
from taming_core.photos.files import photo_path
from taming_core.photos.masks import Mask, decode_mask
from taming_core.storage.paths import AnyPath
from taming_core.tables.parquet import reading

FOLDER = Path(__file__).parent
REPORT = Path(pictures.__file__).parent  # whose style the page has
PROGRAM = "taming inspect --html"  # that pages name as the one that made them
MOST = 5000  # items of a page, which a browser filters at once
UNUSED = ("photo_thumbnail",)  # columns


class Shown(NamedTuple):
    """An item with its pictures: keys of what loads them."""

    item: Item
    picture: str
    mask: Mask | None
    subject: str | None  # of a row of training


def require_page_out(out: Path, *inputs: AnyPath) -> None:
    """Check before the work that a page can be written, and that it replaces nothing but such a page.

    Raises:
        TamingError: as `files.require_out_file`, or the name has another ending, or `out` is another file.
    """
    if out.suffix != ".html":
        raise TamingError(f"{out} is no .html file. Name the page with --html data.html.")
    require_out_file(out, "data.html", inputs)
    if out.exists() and PROGRAM.encode() not in out.read_bytes()[:1000]:
        raise TamingError(f"{out} is another file than a data page. Name a new file with --html.")


class Beside(NamedTuple):
    """What the data page joins to a table of objects; neither need exist."""

    captions: AnyPath
    rows: AnyPath


def beside(objects: AnyPath) -> Beside:
    """The tables of later stages that lie beside a table of objects, under their usual names."""
    return Beside(objects.with_name("captions.parquet"), objects.with_name("rows"))


def html(table: ds.Dataset, chosen: Sequence[int], raw: AnyPath, title: str, subtitle: str, later: Beside) -> str:
    """The page of some rows of a table.

    Args:
        table: of `cards.open_table`.
        chosen: numbers of its rows, in their order on the page.
        raw: the folder of its photos.
        title: of the page.
        subtitle: counts.
        later: tables that are joined to one of objects.

    Raises:
        TamingError: a table is damaged.
    """
    kind = (table.schema.metadata or {})[b"taming.table"].decode()
    columns = [name for name in table.schema.names if name not in UNUSED]
    with reading(cards.place_of(table)):
        rows = table.take(pa.array(chosen), columns=columns).to_pylist()
    loads: dict[str, Load] = {}
    if kind == "rows":
        shown = [_training(row, loads) for row in rows]
    elif kind == "captions":
        shown = [_photo(row, items.caption_item(row), raw, None, loads) for row in rows]
    else:
        keys = {row["object_id"] or row["file_name"] for row in rows}
        found = items.join(later.captions, later.rows, keys)
        shown = [_photo(row, items.object_item(row, found), raw, row["mask_png"], loads) for row in rows]
    return render(shown, loads, (title, subtitle), table.count_rows())


def _photo(row: Mapping[str, Any], item: Item, raw: AnyPath, mask: bytes | None, loads: dict[str, Load]) -> Shown:
    """A row about a photo of the folder."""
    loads.setdefault(item.file_name, partial(_load_photo, raw, item.file_name, row["photo_id"]))
    try:
        return Shown(item, item.file_name, decode_mask(mask) if mask else None, None)
    except (OSError, SyntaxError):  # what Pillow raises for damaged PNG files
        return Shown(item, item.file_name, None, None)


def _load_photo(raw: AnyPath, name: str, photo_id: str) -> Image.Image | str:
    try:
        photo = read_photo(photo_path(raw, name), side_of=lambda _width, _height: SIDES[0])
    except PhotoError as error:
        return str(error)
    return Image.fromarray(photo.image) if photo.photo_id == photo_id else PHOTO_CHANGED


def _training(row: Mapping[str, Any], loads: dict[str, Load]) -> Shown:
    """A row of training, whose pictures are in it."""
    item = items.training_item(row)
    loads[item.key] = partial(_load_column, row, "image")
    mask = None
    if row["subject"] is not None:
        loads[f"{item.key} subject"] = partial(_load_column, row, "subject")
        mask = _load_column(row, "mask")
    traced = None if mask is None or isinstance(mask, str) else np.asarray(mask.convert("L")) > 127
    return Shown(item, item.key, traced, f"{item.key} subject" if row["subject"] is not None else None)


def _load_column(row: Mapping[str, Any], name: str) -> Image.Image | str:
    try:
        return cards.open_image(row, name) or row["drop_reason"] or "no image"
    except cards.DamagedImageError as error:
        return str(error)


def render(
    shown: Sequence[Shown], loads: Mapping[str, Load], heading: tuple[str, str], total: int, budget: int = BUDGET
) -> str:
    """The page with title and subtitle; `total` counts the rows of the table, of which some are shown."""
    made = album(loads, budget)
    base, own, script = (
        path.read_text("utf-8") for path in (REPORT / "page.css", FOLDER / "page.css", FOLDER / "page.js")
    )
    templates = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    records = [record(one, made) for one in shown]
    return templates.get_template("page.html").render(
        program=PROGRAM,
        title=heading[0],
        subtitle=heading[1],
        style=Markup(base + own),
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data={"items": records, "pictures": made.urls},
        count=len(records),
        total=total,
    )


def record(shown: Shown, made: Album) -> dict[str, Any]:
    """An item as the page's script reads it; what is unknown is left out."""
    item = shown.item
    place = made.places[shown.picture]
    path, size = ("", None) if shown.mask is None else outline(shown.mask)
    subject = made.places.get(shown.subject or "")
    values: dict[str, Any] = {
        "key": item.key, "file": item.file_name, "class": item.noun, "identity": item.identity, "split": item.split,
        "reason": reason_of(item.drop_reason), "dropped": item.drop_reason, "caption": item.caption,
        "words": item.object_caption, "override": list(item.override), "numbers": _rounded(item.numbers),
        "picture": place if isinstance(place, int) else None, "note": item.note,
        "missing": place if isinstance(place, str) else None,
        "box": item.box_xyxy, "size": item.size, "mask": path, "space": size,
        "subject": subject if isinstance(subject, int) else None,
    }  # fmt: skip
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers in four significant digits, which is more than is seen of them."""
    return {name: float(f"{value:.4g}") for name, value in numbers.items()}
