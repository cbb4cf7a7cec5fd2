"""Contact sheets and drop counts: every object with its picture, its words and its reason."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from coloured_photos import put
from PIL import Image

from taming_core.drop_reasons import reason_of
from taming_core.errors import TamingError
from taming_core.figures.contact_sheet import (
    BOX,
    CARD,
    DROPPED,
    KEPT,
    OUTLINE,
    Card,
    draw_outlines,
    fit_tile,
    font,
    save,
    sheet_html,
    sheet_image,
    wrap_text,
)
from taming_core.inspection import cards as inspection
from taming_core.photos.masks import encode_mask
from taming_core.tables import schema
from taming_core.tables.drop_counts import sort_counts, summary


def colours(picture: Image.Image) -> set[str]:
    """The colours of a picture as #rrggbb."""
    pixels = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
    return {f"#{r:02x}{g:02x}{b:02x}" for r, g, b in pixels.tolist()}


def card(drop_reason: str | None = None, pictures: int = 2) -> Card:
    blue = Image.new("RGB", (30, 20), "#0000ff")
    return Card((blue,) * pictures, "cat 0.93", ("cat/1.jpg", "a photo of <object>"), drop_reason)


def test_outlines_of_mask_and_box_are_drawn_at_the_size_shown():
    mask = np.zeros((60, 120), bool)
    mask[20:40, 40:80] = True
    picture = draw_outlines(np.zeros((60, 120, 3), np.uint8), mask, [10, 10, 120, 60], side=240)
    assert picture.size == (240, 120)
    assert colours(picture) == {"#000000", OUTLINE, BOX}
    assert picture.getpixel((78, 60)) == (0xFF, 0x2F, 0xB3)  # just left of the mask
    assert picture.getpixel((85, 60)) == (0, 0, 0)  # inside of it
    assert picture.getpixel((20, 60)) == picture.getpixel((239, 119)) == (0xFF, 0xE1, 0x4D)


def test_text_is_wrapped_within_its_width_and_loses_nothing():
    text = "a very long sentence about a thingwithanamethatisfartoolongforasingleline and its end"
    lines = wrap_text(text, font(), 120)
    assert max(font().getlength(line) for line in lines) <= 120
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_transparent_picture_lies_on_a_checkerboard():
    tile = fit_tile(Image.new("RGBA", (50, 50), (255, 0, 0, 0)), 100)
    assert {"#ffffff", "#e0e0e0"} <= colours(tile)


def test_the_sheet_has_columns_rows_and_both_verdicts():
    one, many = sheet_image([card()], "one", 100), sheet_image([card(), card("cut off: left")] * 6, "many", 100)
    assert {CARD, KEPT, "#0000ff"} <= colours(one)
    assert DROPPED not in colours(one)
    assert {KEPT, DROPPED, OUTLINE} <= colours(many)  # the placeholder has the colour of the outline
    assert 1000 < many.width <= 1320
    assert one.height < many.height < 4 * one.height


def test_html_is_one_file_with_everything_in_it(tmp_path):
    save([card(), card("cut <off>")], "a & b", 100, tmp_path / "new" / "sheet.html")
    page = (tmp_path / "new" / "sheet.html").read_text()
    assert "a &amp; b" in page
    assert "dropped: cut &lt;off&gt;" in page
    assert "a photo of <mark>&lt;object&gt;</mark>" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert [Image.open(io.BytesIO(base64.b64decode(p))).size for p in pictures] == [(100, 100)] * 4
    assert page == sheet_html([card(), card("cut <off>")], "a & b", 100)


def test_a_sheet_is_png_or_html(tmp_path):
    with pytest.raises(TamingError, match=r"neither a \.png nor a \.html"):
        save([card()], "x", 100, tmp_path / "sheet.pdf")


def test_some_of_every_kind_are_shown_and_half_are_kept():
    kinds = np.array((["kept"] * 50 + ["low score"] * 200 + ["cut off"] * 10) * 2 + ["no object"])
    chosen = inspection.spread_over_kinds(kinds, 24)
    shown = kinds[chosen].tolist()
    assert len(set(chosen)) == 24
    assert shown.count("kept") >= 11
    assert set(shown) == {"kept", "low score", "cut off", "no object"}
    assert shown == sorted(shown, key=["kept", "low score", "cut off", "no object"].index)
    kept = [i for i in chosen if kinds[i] == "kept"]
    assert min(kept) < 50
    assert max(kept) >= 260
    assert sorted(inspection.spread_over_kinds(kinds, 10_000)) == list(range(len(kinds)))


def test_only_rows_of_one_kind():
    kinds = np.array(["kept", "cut off", "kept", "cut off"])
    assert inspection.choose_rows(kinds, 9, "cut off") == [1, 3]
    with pytest.raises(
        TamingError, match=r"No row of the table is 'blurred'\. What --only can show: 'cut off', 'kept'"
    ):
        inspection.choose_rows(kinds, 9, "blurred")


def test_counts_in_order():
    assert sort_counts({"a": 1, "b": 3, "c": 3, "kept": 0}) == [("kept", 0), ("b", 3), ("c", 3), ("a", 1)]
    assert summary({"cut off": 2, "kept": 5}) == "5 kept, 2 cut off"


def row(expected, **values):
    known = {"photo_id": "0" * 16, "file_name": "toy/1.png"} | ({"references": []} if expected == schema.ROWS else {})
    return {**dict.fromkeys(expected.names), **known, **values}


def written(path: Path, expected, rows) -> Path:
    schema.write([schema.table(rows, expected)], expected, path)
    return path


def shown(path: Path, raw: Path) -> list[Card]:
    table, look = inspection.open_table(path)
    return inspection.cards(table, look, range(table.count_rows()), raw)


def test_cards_of_objects(tmp_path):
    put(tmp_path / "toy/1.png", ball=(10, 10, 60, 50))
    mask = np.zeros((80, 100), bool)
    mask[10:50, 10:60] = True
    seen = {"class": "ball", "score": 0.9, "box_xyxy": [10, 10, 60, 50]}
    rows = [
        row(schema.OBJECTS, **seen, mask_png=encode_mask(mask), mask_source="given"),
        row(schema.OBJECTS, **(seen | {"score": 0.1}), drop_reason="low score: 0.10"),
        row(schema.OBJECTS, file_name="toy/absent.png", drop_reason="unreadable: No such file or directory"),
    ]
    path = written(tmp_path / "objects.parquet", schema.OBJECTS, rows)
    good, unsure, absent = shown(path, tmp_path)
    assert (good.title, good.lines, good.drop_reason) == ("ball 0.90", ("toy/1.png", "mask given"), None)
    photo, cutout = good.pictures
    assert {OUTLINE, BOX} <= colours(photo)
    assert (cutout.mode, cutout.getpixel((95, 95))) == ("RGBA", (255, 0, 0, 255))
    assert (unsure.pictures[1].size, unsure.drop_reason) == ((50, 40), "low score: 0.10")
    assert (absent.title, len(absent.pictures)) == ("toy/absent.png", 1)
    kinds = inspection.reasons(inspection.open_table(path)[0])
    assert kinds.tolist() == [reason_of(r["drop_reason"]) for r in rows]


def test_cards_of_captions(tmp_path):
    put(tmp_path / "toy/1.png", ball=(10, 10, 60, 50))
    said = {"caption": "a red ball", "object_caption": "a red <object>", "method": "noun", "match_score": 0.75}
    rows = [row(schema.CAPTIONS, **said, **{"class": "ball"})]
    (found,) = shown(written(tmp_path / "captions.parquet", schema.CAPTIONS, rows), tmp_path)
    assert found.lines == ("a red ball", "a red <object>", "ball, by noun, match 0.75")
    assert found.pictures[0].size == (100, 80)


def stored(picture: Image.Image) -> dict[str, object]:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def test_cards_of_a_folder_of_rows(tmp_path):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (20, 20, 40, 40))
    pictures = {
        "image": stored(Image.new("RGB", (64, 64))),
        "mask": stored(mask),
        "subject": stored(Image.new("RGBA", (64, 64))),
    }
    said = {"caption": "a ball", "object_caption": "an <object>", "split": "train", "identity": "toy", "class": "ball"}
    first = row(schema.ROWS, row_id="1", regularization=False, references=["2", "3"], **pictures, **said)
    second = row(
        schema.ROWS, row_id="2", regularization=True, split="train", caption="a street", image=pictures["image"]
    )
    third = row(schema.ROWS, row_id="3", regularization=False, split="dropped", drop_reason="unreadable: damaged")
    (tmp_path / "rows").mkdir()
    for number, one in enumerate((first, second, third)):
        written(tmp_path / f"rows/{number}.parquet", schema.ROWS, [one])
    subject, regularization, dropped = shown(tmp_path / "rows", tmp_path)
    assert (subject.title, subject.lines) == ("toy", ("an <object>", "train, ball, 2 other views"))
    assert colours(subject.pictures[0]) == {"#000000", OUTLINE}
    assert subject.pictures[1].mode == "RGBA"
    assert (regularization.lines, len(regularization.pictures)) == (("a street", "train, regularization"), 1)
    assert (dropped.drop_reason, len(dropped.pictures)) == ("unreadable: damaged", 1)


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(TamingError, match="does not exist"):
        inspection.open_table(tmp_path / "absent.parquet")
    with pytest.raises(TamingError, match="does not exist or holds no"):
        inspection.open_table(tmp_path)
    (tmp_path / "text.parquet").write_text("not a table")
    with pytest.raises(TamingError, match="not a Parquet table"):
        inspection.open_table(tmp_path / "text.parquet")
    with pytest.raises(TamingError, match=r"text.parquet is not a Parquet table, or is damaged"):
        inspection.open_table(tmp_path)
    foreign = schema.OBJECTS.with_metadata({b"taming.table": b"wallets"})
    schema.write([schema.table([row(schema.OBJECTS)], foreign)], foreign, tmp_path / "x.parquet")
    with pytest.raises(TamingError, match="not a table of this program"):
        inspection.open_table(tmp_path / "x.parquet")
