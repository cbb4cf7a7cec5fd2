"""From tables to rows: everything is accounted for, nothing straddles, a crash changes nothing, datasets opens it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.materialize import materialize
from taming_core.errors import TamingError
from taming_core.params.load import load_params
from taming_core.photos.decode import PhotoError, read_photo
from taming_core.photos.files import photo_id_of
from taming_core.photos.masks import encode_mask
from taming_core.photos.view_hash import difference_hash, thumbnail
from taming_core.rows.index import fill, split_of_photo
from taming_core.tables import schema
from taming_core.tables.rows import dropped_table, load_rows

ROOT = Path(__file__).parents[2]
RAW = ROOT / "data" / "raw"
PHOTOS = sorted(p.relative_to(RAW).as_posix() for p in RAW.glob("*/[0-3].jpg"))
BOX = (40, 60, 200, 220)
P = load_params(ROOT / "params.yaml").materialize


def object_row(name: str, raw: Path = RAW, **values: Any) -> dict[str, Any]:
    """A kept object of one photo, its mask an ellipse."""
    photo_id, (x0, y0, x1, y1) = photo_id_of(raw / name), BOX
    y, x = np.mgrid[:256, :256]
    mask = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 < 1
    known = {"photo_id": photo_id, "file_name": name, "photo_width": 256, "photo_height": 256}
    found = {"object_id": f"{photo_id}-0", "class": "toy", "box_xyxy": list(BOX), "mask_png": encode_mask(mask)}
    empty = dict.fromkeys(schema.OBJECTS.names)
    return {**empty, **known, **found, "identity": name.split("/")[0], **values}


def caption_row(o: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A kept caption of an object."""
    known = {key: o[key] for key in ("photo_id", "file_name", "object_id", "class")}
    said = {"caption": "a photo of a toy in a room", "object_caption": "a photo of <object> in a room"}
    return {**dict.fromkeys(schema.CAPTIONS.names), **known, **said, **values}


def write_tables(folder: Path, objects: list[dict[str, Any]], captions: list[dict[str, Any]]) -> None:
    schema.write([schema.table(objects, schema.OBJECTS)], schema.OBJECTS, folder / "objects.parquet")
    schema.write([schema.table(captions, schema.CAPTIONS)], schema.CAPTIONS, folder / "captions.parquet")


def run(
    folder: Path, raw: Path = RAW, regularization: Path | None = None, params: Path = ROOT / "params.yaml"
) -> list[dict[str, Any]]:
    """Materialize the tables in `folder`; all rows, the dropped ones too."""
    materialize(raw, folder / "objects.parquet", folder / "captions.parquet", regularization, folder / "rows", params)
    return all_rows(folder)


def all_rows(folder: Path) -> list[dict[str, Any]]:
    paths = [*sorted((folder / "rows").glob("*.parquet")), dropped_table(folder / "rows")]
    return [r for path in paths for r in pq.read_table(path).to_pylist()]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of all demo photos and of the regularization set."""
    folder = tmp_path_factory.mktemp("journey")
    objects = [object_row(name) for name in PHOTOS]
    write_tables(folder, objects, [caption_row(o) for o in objects])
    home = Path.cwd()
    os.chdir(folder)
    run(folder, regularization=ROOT / "data" / "regularization")
    os.chdir(home)
    return folder


def test_datasets_opens_the_rows_as_they_are(journey: Path, tmp_path: Path) -> None:
    code = (
        "from datasets import load_dataset\n"
        "d = load_dataset('parquet', data_dir='rows')\n"
        "row = next(r for r in d['test'] if not r['regularization'])\n"
        "print({s: len(d[s]) for s in d}, row['image'].mode, row['image'].size, row['mask'].mode, row['subject'].mode,"
        " row['object_caption'], d['train'].features == d['test'].features, sep='|')"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    out = subprocess.check_output([sys.executable, "-c", code], cwd=journey, env=env, text=True)
    lengths = {split: len(load_rows(journey / "rows", split)) for split in ("train", "validation", "test")}
    assert out.strip() == f"{lengths}|RGB|(128, 128)|L|RGBA|a photo of <object> in a room|True"
    assert sum(lengths.values()) == len(PHOTOS) + 48


def test_the_folder_holds_kept_rows_alone_whoever_reads_it(tmp_path: Path) -> None:
    import pandas as pd
    import polars as pl

    objects = [object_row(name) for name in PHOTOS[:12]]
    write_tables(tmp_path, objects, [caption_row(o) for o in objects[:9]])
    kept = [r["row_id"] for r in run(tmp_path) if r["drop_reason"] is None]
    assert len(kept) == 9
    rows = tmp_path / "rows"
    read = {
        "pandas": pd.read_parquet(rows)["row_id"],
        "polars": pl.read_parquet(rows)["row_id"],
        "polars, glob": pl.read_parquet(rows / "**/*.parquet")["row_id"],
        "pyarrow": ds.dataset(rows).to_table()["row_id"].to_pylist(),
    }
    assert {name: sorted(ids) for name, ids in read.items()} == dict.fromkeys(read, sorted(kept))
    dropped = pq.read_table(dropped_table(rows))
    assert (dropped["drop_reason"].to_pylist(), dropped.schema.names) == (["no caption"] * 3, schema.ROWS.names)


def test_all_rows_dropped_is_said_where_they_are_needed(tmp_path: Path) -> None:
    o = object_row(PHOTOS[0])
    write_tables(tmp_path, [o], [])
    assert [r["drop_reason"] for r in run(tmp_path)] == ["no caption"]
    with pytest.raises(TamingError, match=r"rows holds no rows: all were dropped\. `taming inspect .*rows` shows why"):
        load_rows(tmp_path / "rows", "train")


def test_rows_of_before_with_dropped_ones_among_them_are_replaced(tmp_path: Path) -> None:
    o = object_row(PHOTOS[0])
    write_tables(tmp_path, [o], [caption_row(o)])
    (tmp_path / "rows").mkdir()
    schema.write([schema.table([], schema.ROWS)], schema.ROWS, tmp_path / "rows/dropped-00000.parquet")
    run(tmp_path)
    assert len(list((tmp_path / "rows").iterdir())) == 1


def test_features_are_read_alike_by_every_version_of_datasets() -> None:
    from datasets import Features

    ours = json.loads(schema.ROWS.metadata[b"huggingface"])["info"]["features"]
    assert list(ours) == schema.ROWS.names
    # Version 3 and older know no `List`, which version 4 and newer read `Sequence` as.
    assert {feature["_type"] for feature in ours.values()} == {"Value", "Image", "Sequence"}
    current = {n: {**f, "_type": "List"} if f["_type"] == "Sequence" else f for n, f in ours.items()}
    assert Features.from_dict(ours).to_dict() == current


def test_no_identity_straddles_and_references_are_other_photos(journey: Path) -> None:
    rows = {r["row_id"]: r for r in all_rows(journey)}
    splits = defaultdict(set)
    for r in rows.values():
        splits[r["identity"]].add(r["split"])
        for other in (rows[i] for i in r["references"]):
            assert other["identity"] == r["identity"]
            assert other["photo_id"] != r["photo_id"]
    del splits[None]  # regularization rows
    assert {len(s) for s in splits.values()} == {1}
    assert all(r["references"] for r in rows.values() if not r["regularization"])


def test_pictures_agree_with_one_another(journey: Path) -> None:
    rows = load_rows(journey / "rows", "test")
    image, mask, subject = (decoded(rows[int(rows.objects[0])][name]) for name in ("image", "mask", "subject"))
    assert (image.shape, mask.shape, subject.shape) == ((128, 128, 3), (128, 128), (128, 128, 4))
    assert set(np.unique(mask)) == {0, 255}
    ys, xs = np.nonzero(mask)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == tuple(v // 2 for v in BOX)
    x0, y0, x1, y1 = (v // 2 for v in BOX)
    middle = np.abs(image[y0 + 30 : y1 - 30, x0 + 30 : x1 - 30].mean((0, 1)) - subject[44:84, 44:84, :3].mean((0, 1)))
    assert middle.max() < 20


def decoded(data: bytes) -> np.ndarray:
    import io

    return np.asarray(Image.open(io.BytesIO(data)))


def test_general_rows_have_a_caption_and_nothing_of_an_object(journey: Path) -> None:
    regularization = [r for r in all_rows(journey) if r["regularization"]]
    assert len(regularization) == 48
    for r in regularization:
        assert r["caption"]
        assert r["image"]["bytes"]
        assert r["split"] == "train"
        assert [r[c] for c in ("mask", "subject", "object_caption", "class", "identity")] == [None] * 5


def test_everything_is_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = PHOTOS[:9]
    objects = [object_row(name) for name in names]
    captions = [caption_row(o) for o in objects]
    changed, missing, silent, doubtful, lost = objects[1], objects[2], 3, 4, objects[5]
    changed["photo_id"] = "0" * 16
    missing["file_name"] = "alien-openmoji/9.jpg"
    captions[doubtful]["drop_reason"] = "caption does not match: 0.02"
    lost["drop_reason"] = "too small: 0.010"
    bare = object_row(names[6], object_id=None, drop_reason="no object")
    mute = object_row(names[7], object_id=None, drop_reason="no object")
    broken = object_row("broken/empty.jpg", object_id=None, photo_width=None, drop_reason="empty file")
    stray = caption_row(object_row(names[8]), object_id="f" * 16 + "-0")
    objects[6:] = [bare, mute, broken]
    captions[6:] = [caption_row(bare), stray]
    del captions[silent]
    write_tables(tmp_path, objects, captions)
    rows = run(tmp_path)
    assert Counter(r["drop_reason"] for r in rows) == {
        None: 2,
        "photo changed since detection": 1,
        "unreadable: No such file or directory": 1,
        "no caption": 1,
        "caption does not match: 0.02": 1,
        "no object": 1,
        "empty file": 1,
        "object is not in the objects table": 1,
    }
    assert {r["file_name"]: r["regularization"] for r in rows if not r["drop_reason"]} == {
        names[0]: False,
        names[6]: True,
    }
    assert {r["split"] for r in rows if r["drop_reason"]} == {"dropped"}
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 train, 0 validation, 0 test; 1 of them with a caption only" in printed
    assert "2 kept" in printed
    assert "1 object dropped by detect" in printed


def test_an_object_without_a_usable_mask_is_a_row_with_the_reason(tmp_path: Path) -> None:
    empty, absent, damaged, boxless, sound = (object_row(name) for name in PHOTOS[:5])
    empty["mask_png"] = encode_mask(np.zeros((256, 256), bool))
    absent["mask_png"] = None
    damaged["mask_png"] = damaged["mask_png"][:20]
    boxless["box_xyxy"] = None
    second = sound["object_id"][:-1] + "1"
    again = {**sound, "object_id": second, "identity": second, "box_xyxy": None}
    objects = [empty, absent, damaged, boxless, sound, again]
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    assert {r["row_id"]: r["drop_reason"] for r in run(tmp_path)} == {
        empty["object_id"]: "unusable mask: empty",
        absent["object_id"]: "unusable mask: mask or box is missing",
        damaged["object_id"]: "unusable mask: damaged",
        boxless["object_id"]: "unusable mask: mask or box is missing",
        again["object_id"]: "unusable mask: mask or box is missing",
        sound["object_id"]: None,
    }


def test_a_camera_photo_gives_a_sharp_target_and_a_sharp_subject(tmp_path: Path) -> None:
    """Masks are at the working size, boxes in pixels of the photo, and a small object keeps the file's detail."""
    raw, box = tmp_path / "raw" / "cup", (2400, 1500, 2520, 1620)
    raw.mkdir(parents=True)
    photo = np.full((4000, 5000, 3), 90, np.uint8)
    photo[box[1] : box[3], box[0] : box[2]] = 0
    photo[box[1] : box[3], box[0] : box[2] : 2] = 255
    Image.fromarray(photo).save(raw / "0.png")
    mask = np.zeros((1638, 2048), bool)
    mask[614:664, 983:1032] = True
    found = {"photo_width": 5000, "photo_height": 4000, "box_xyxy": list(box), "mask_png": encode_mask(mask)}
    o = object_row("cup/0.png", raw.parent, **found)
    write_tables(tmp_path, [o], [caption_row(o)])
    (row,) = run(tmp_path, raw.parent)
    assert (row["photo_width"], row["photo_height"], row["crop_left"], row["crop_top"]) == (5000, 4000, 16, 0)
    ys, xs = np.nonzero(decoded(row["mask"]["bytes"]))
    scale = P.size / 4000
    expected = ((2400 - 500) * scale, 1500 * scale, (2520 - 500) * scale, 1620 * scale)
    assert np.abs(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) - expected).max() <= 1
    subject = decoded(row["subject"]["bytes"])[40:88, 40:88, 0].astype(int)
    assert np.abs(np.diff(subject, axis=1)).mean() > 100


def test_a_second_object_stays_in_the_split_of_its_photo(tmp_path: Path) -> None:
    objects = []
    for name in PHOTOS[:24]:
        first = object_row(name)
        second = first["object_id"][:-1] + "1"
        objects += [first, {**first, "object_id": second, "identity": second}]
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    rows = run(tmp_path)
    assert len(rows) == 48
    splits = defaultdict(set)
    for r in rows:
        splits[r["file_name"]].add(r["split"])
        assert (r["references"] == []) == (r["identity"] == r["row_id"])
    assert {len(s) for s in splits.values()} == {1}
    assert set.union(*splits.values()) == {"train", "validation", "test"}


def test_the_objects_of_a_photo_have_one_image(tmp_path: Path) -> None:
    wide = tmp_path / "raw" / "two" / "0.png"
    wide.parent.mkdir(parents=True)
    Image.new("RGB", (400, 256), (90, 120, 150)).save(wide)
    first = object_row("two/0.png", tmp_path / "raw")
    boxes = [(20, 60, 80, 140), (150, 60, 230, 160)]
    objects = []
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        mask = np.zeros((256, 400), bool)
        mask[y0:y1, x0:x1] = True
        objects.append({**first, "object_id": f"{first['photo_id']}-{i}", "box_xyxy": list(boxes[i]),
                        "mask_png": encode_mask(mask), "photo_width": 400})  # fmt: skip
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    one, other = run(tmp_path, tmp_path / "raw")
    assert one["image"]["bytes"] == other["image"]["bytes"]
    assert one["mask"]["bytes"] != other["mask"]["bytes"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abcdefgh") | st.none()), min_size=1))
def test_neither_identity_nor_photo_straddles(tmp_path: Path, shown: list[tuple[int, str | None]]) -> None:
    blank = dict.fromkeys(schema.OBJECTS.names)
    objects = [
        {**blank, "photo_id": f"{photo:016x}", "file_name": f"{photo}.jpg", "object_id": f"{i}", "identity": identity}
        for i, (photo, identity) in enumerate(shown)
    ]
    write_tables(tmp_path, objects, [])
    db = sqlite3.connect(":memory:")
    fill(db, tmp_path / "objects.parquet", tmp_path / "captions.parquet", P)
    splits = defaultdict(set)
    for o in objects:
        try:
            split = split_of_photo(db, o["photo_id"])
        except PhotoError:  # dropped
            continue
        splits[o["photo_id"]].add(split)
        splits[o["identity"] or o["photo_id"]].add(split)
    assert all(len(found) == 1 for found in splits.values())


def test_a_photo_of_things_from_two_splits_is_dropped(tmp_path: Path) -> None:
    alone = object_row(PHOTOS[4], given_split="test")
    first = object_row(PHOTOS[0], given_split="train")
    second = {**first, "object_id": first["object_id"][:-1] + "1", "identity": alone["identity"], "given_split": None}
    objects = [alone, {**first, "given_split": None}, second, object_row(PHOTOS[1], given_split="train")]
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    reasons = {r["row_id"]: r["drop_reason"] for r in run(tmp_path)}
    assert [reasons[o["object_id"]] for o in objects] == [
        None,
        *["shows objects of different splits: test, train"] * 2,
        None,
    ]


def test_near_duplicates_are_no_other_view(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "cup"
    raw.mkdir(parents=True)
    photo = Image.open(RAW / PHOTOS[0])
    photo.save(raw / "0.png")
    photo.save(raw / "1.jpg", quality=80)
    Image.open(RAW / PHOTOS[1]).save(raw / "2.png")
    objects = [object_row(f"cup/{name}", raw.parent) for name in ("0.png", "1.jpg", "2.png")]
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    first, near, other = sorted(run(tmp_path, raw.parent), key=lambda r: r["file_name"])
    assert first["references"] == near["references"] == [other["row_id"]]
    assert sorted(other["references"]) == sorted([first["row_id"], near["row_id"]])


def copies_of(names: list[str], raw: Path) -> list[dict[str, Any]]:
    """Objects of photos that are their own identities, each photo as it is, compressed again, and half as large."""
    raw.mkdir(parents=True)
    objects = []
    for n, name in enumerate(names):
        photo = Image.open(RAW / name).convert("RGB")
        photo.save(raw / f"{n}-0.png")
        photo.save(raw / f"{n}-1.jpg", quality=85)
        photo.resize((128, 128), Image.Resampling.LANCZOS).resize((256, 256)).save(raw / f"{n}-2.png")
        for path in sorted(raw.glob(f"{n}-*")):
            objects.append({**object_row(path.name, raw, **hashes_of(path)), "identity": photo_id_of(path)})
    return objects


def hashes_of(path: Path) -> dict[str, Any]:
    """What tells near-duplicates of a photo."""
    image = read_photo(path).image
    return {"photo_hash": f"{difference_hash(image):016x}", "photo_thumbnail": thumbnail(image)}


def splits_by_number(rows: list[dict[str, Any]]) -> dict[str, set[str]]:
    """The splits of the copies of each photo."""
    splits = defaultdict(set)
    for r in rows:
        splits[r["file_name"].split("-")[0]].add(r["split"])
    return splits


def test_near_duplicates_do_not_straddle_where_a_photo_is_its_identity(tmp_path: Path) -> None:
    objects = copies_of(PHOTOS[::8], tmp_path / "raw")
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    splits = splits_by_number(run(tmp_path, tmp_path / "raw"))
    assert len(splits) == len(PHOTOS[::8])
    assert {len(found) for found in splits.values()} == {1}
    assert len(set.union(*splits.values())) == 3  # and they are not all in one
    for o in objects:
        o["photo_hash"] = None
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    alone = splits_by_number(run(tmp_path, tmp_path / "raw"))
    assert any(len(found) > 1 for found in alone.values())  # by their names they would


def test_a_split_that_metadata_gives_holds_for_near_duplicates(tmp_path: Path) -> None:
    objects = copies_of(PHOTOS[:24:8], tmp_path / "raw")
    for o in objects:
        o["given_split"] = "validation" if o["file_name"].startswith("1-2") else None
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    assert splits_by_number(run(tmp_path, tmp_path / "raw"))["1"] == {"validation"}


def test_a_near_duplicate_of_a_held_out_photo_does_not_come_in_as_general(tmp_path: Path) -> None:
    (objects := copies_of(PHOTOS[:1], tmp_path / "raw"))[0]["given_split"] = "test"
    regularization = tmp_path / "regularization"
    regularization.mkdir()
    Image.open(RAW / PHOTOS[0]).save(regularization / "again.jpg", quality=70)
    (regularization / "other.jpg").write_bytes((RAW / PHOTOS[9]).read_bytes())
    lines = [{"file_name": name, "caption": "a photo of a toy"} for name in ("again.jpg", "other.jpg")]
    (regularization / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    rows = run(tmp_path, tmp_path / "raw", regularization)
    reasons = {r["file_name"]: r["drop_reason"] for r in rows if r["file_name"] in ("again.jpg", "other.jpg")}
    assert reasons == {"again.jpg": "near-duplicate of a photo of another split", "other.jpg": None}


def under_two_names(raw: Path) -> list[dict[str, Any]]:
    """Objects of eight named identities, two photos of each; the first photo of each odd one is one of the even."""
    objects = []
    for n in range(8):
        (folder := raw / f"toy {n}").mkdir(parents=True)
        Image.open(RAW / PHOTOS[4 * n + 1]).save(folder / "1.png")
        shown = Image.open(RAW / PHOTOS[4 * (n - n % 2)])
        shown.save(folder / "0.jpg", quality=95) if n % 2 == 0 else brighter(shown).save(folder / "0.jpg", quality=60)
        for path in sorted(folder.iterdir()):
            objects.append(object_row(f"toy {n}/{path.name}", raw, **hashes_of(path)))
    return objects


def brighter(photo: Image.Image) -> Image.Image:
    return photo.resize((200, 200)).point(lambda v: min(255, v * 1.1)).resize((256, 256))


def test_one_picture_under_two_names_does_not_straddle(tmp_path: Path) -> None:
    objects = under_two_names(tmp_path / "raw")
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    rows = run(tmp_path, tmp_path / "raw")
    splits = {r["identity"]: r["split"] for r in rows}
    assert set(splits.values()) == {"train", "validation", "test"}
    assert all(splits[f"toy {n}"] == splits[f"toy {n + 1}"] for n in range(0, 8, 2))
    seen = {r["file_name"]: r["near_duplicate_of"] for r in rows if r["near_duplicate_of"]}
    assert seen == {f"toy {n}/0.jpg": f"toy {n + 1 - 2 * (n % 2)}/0.jpg" for n in range(8)}


def test_one_file_under_two_names_is_kept_once(tmp_path: Path) -> None:
    names = [n for n in PHOTOS if not n.startswith("canoe")][:24]
    objects = [object_row(n) for n in names]
    empty = dict.fromkeys(schema.OBJECTS.names)
    copy = {**empty, "photo_id": objects[0]["photo_id"], "file_name": "zebra/0.jpg", "identity": "zebra"}
    copies = [{**copy, "drop_reason": f"copy of another photo: {names[0]}"}]
    copies += [object_row(n, identity="zebra") for n in PHOTOS if n.startswith("canoe")]
    write_tables(tmp_path, [*objects, *copies], [caption_row(o) for o in [*objects, *copies[1:]]])
    for seed in range(4):
        text = (ROOT / "params.yaml").read_text().replace("  seed: 4\n  dup", f"  seed: {seed}\n  dup")
        (tmp_path / "params.yaml").write_text(text)
        rows = run(tmp_path, params=tmp_path / "params.yaml")
        assert {r["file_name"]: r["drop_reason"] for r in rows if r["drop_reason"]} == {
            "zebra/0.jpg": f"copy of another photo: {names[0]}"
        }
        assert len({r["split"] for r in rows if r["identity"] in ("zebra", names[0].split("/")[0])}) == 1


def test_of_one_picture_under_two_names_the_second_can_be_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = under_two_names(tmp_path / "raw")
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    (tmp_path / "params.yaml").write_text(
        (ROOT / "params.yaml").read_text().replace("duplicates: keep", "duplicates: drop")
    )
    rows = run(tmp_path, tmp_path / "raw", params=tmp_path / "params.yaml")
    reasons = {r["file_name"]: r["drop_reason"] for r in rows if r["drop_reason"]}
    reason = "near-duplicate of a photo of another identity"
    assert reasons == {f"toy {n}/0.jpg": f"{reason}: toy {n - 1}/0.jpg" for n in range(1, 8, 2)}
    assert f"4 {reason}" in " ".join(capsys.readouterr().out.split())


def test_of_near_duplicates_with_given_splits_that_differ_the_held_out_one_stays(tmp_path: Path) -> None:
    objects = under_two_names(tmp_path / "raw")[:4]
    for o, split in zip(objects, ("train", "train", "test", "test"), strict=True):
        o["given_split"] = split
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    found = {r["file_name"]: (r["split"], r["drop_reason"]) for r in run(tmp_path, tmp_path / "raw")}
    assert found == {
        "toy 0/0.jpg": ("dropped", "near-duplicate of a photo of another split"), "toy 0/1.png": ("train", None),
        "toy 1/0.jpg": ("test", None), "toy 1/1.png": ("test", None),
    }  # fmt: skip


def test_photos_with_one_hash_by_chance_are_no_near_duplicates(tmp_path: Path) -> None:
    """Of things on a plain background, most bits of the hash are those of the background."""
    raw = tmp_path / "raw"
    objects = []
    for n, grey in enumerate((0, 60, 120, 180)):
        (raw / f"toy {n}").mkdir(parents=True)
        image = np.full((256, 256, 3), 255, np.uint8)
        image[40 + 32 * n : 90 + 20 * n, 96:128] = grey
        image[200:230, 100 : 200 - 30 * n] = grey
        Image.fromarray(image).save(raw / f"toy {n}/0.png")
        hashes = {**hashes_of(raw / f"toy {n}/0.png"), "photo_hash": "0" * 16}
        objects.append(object_row(f"toy {n}/0.png", raw, **hashes))
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    assert [r["near_duplicate_of"] for r in run(tmp_path, raw)] == [None] * 4


def test_a_given_split_wins_for_the_whole_identity(tmp_path: Path) -> None:
    split = "validation"
    objects = [object_row(name) for name in PHOTOS[:4]]
    objects[2]["given_split"] = split
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    assert {r["split"] for r in run(tmp_path)} == {split}
    objects[3]["given_split"] = "test"
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    with pytest.raises(TamingError, match="puts 'alien-openmoji' into test and"):
        run(tmp_path)
    objects[3]["given_split"] = objects[2]["given_split"] = "holdout"
    write_tables(tmp_path, objects, [caption_row(o) for o in objects])
    with pytest.raises(TamingError, match="Use train, validation, test"):
        run(tmp_path)


def test_a_held_out_photo_does_not_come_in_as_general(tmp_path: Path) -> None:
    regularization = tmp_path / "regularization"
    regularization.mkdir()
    (regularization / "copy.jpg").write_bytes((RAW / PHOTOS[0]).read_bytes())
    (regularization / "silent.jpg").write_bytes((ROOT / "data" / "regularization" / "000.jpg").read_bytes())
    (regularization / "torn.jpg").write_bytes((ROOT / "data" / "regularization" / "001.jpg").read_bytes()[:3000])
    lines = [{"file_name": name, "caption": "a photo of a toy"} for name in ("copy.jpg", "torn.jpg")]
    (regularization / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    o = object_row(PHOTOS[0])
    write_tables(tmp_path, [o], [caption_row(o)])
    reasons = {r["file_name"]: r["drop_reason"] for r in run(tmp_path, regularization=regularization)}
    assert reasons[PHOTOS[0]] is None
    assert reasons["copy.jpg"] == "copy of another photo: 0.jpg"
    assert reasons["silent.jpg"] == "no caption"
    assert reasons["torn.jpg"].startswith("unreadable: ")


def test_text_files_beside_photos_are_captions_of_pairs(tmp_path: Path) -> None:
    regularization = tmp_path / "regularization"
    (regularization / "test").mkdir(parents=True)
    source = ROOT / "data" / "regularization"
    for name, photo in ((b"plain", "002.jpg"), (b"caf\xe9", "003.jpg"), (b"test/held-out", "004.jpg")):
        path = regularization / os.fsdecode(name)
        path.with_suffix(".jpg").write_bytes((source / photo).read_bytes())
        path.with_suffix(".txt").write_text(f"a photo, {photo}")
    (regularization / os.fsdecode(b"caf\xe9z.jpg")).write_bytes((source / "003.jpg").read_bytes())
    o = object_row(PHOTOS[0])
    write_tables(tmp_path, [o], [caption_row(o)])
    rows = [r for r in run(tmp_path, regularization=regularization) if r["file_name"] != PHOTOS[0]]
    assert {(r["file_name"], r["caption"], r["split"], r["drop_reason"]) for r in rows} == {
        ("plain.jpg", "a photo, 002.jpg", "train", None),
        ("caf\\xe9.jpg", "a photo, 003.jpg", "train", None),
        ("caf\\xe9z.jpg", None, "dropped", "copy of another photo: caf\\xe9.jpg"),
        ("test/held-out.jpg", "a photo, 004.jpg", "test", None),
    }


def test_a_crash_changes_no_byte(journey: Path, tmp_path: Path) -> None:
    arguments = ["--in", RAW, "--objects", journey / "objects.parquet", "--captions", journey / "captions.parquet"]
    arguments += ["--regularization", ROOT / "data" / "regularization", "--params", params_with_small_shards(tmp_path)]
    code = "from stages.cli import main; main()"
    command = [sys.executable, "-c", code, "materialize", *map(str, arguments), "--out", "rows"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    crashed, calm = tmp_path / "crashed", tmp_path / "calm"
    crashed.mkdir()
    calm.mkdir()
    for progress in ("shards/*.parquet", "rows/*.parquet"):
        process = subprocess.Popen(command, cwd=crashed, env=env)
        while len(list(crashed.glob(f"runs/*/{progress}"))) < 3:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (crashed / "rows").exists()
    for folder in (crashed, calm):
        subprocess.run(command, cwd=folder, env=env, check=True)
    assert len(files_of(calm)) > 40
    assert files_of(crashed) == files_of(calm)


def params_with_small_shards(folder: Path) -> Path:
    text = (ROOT / "params.yaml").read_text()
    small = text.replace(f"shard_size: {P.shard_size}\n\ntrain", "shard_size: 2\n\ntrain")
    assert small != text
    (folder / "params.yaml").write_text(small)
    return folder / "params.yaml"


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below `folder`; state that a crash left behind would be among them."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_tables_of_another_version_are_refused(tmp_path: Path) -> None:
    o = object_row(PHOTOS[0])
    write_tables(tmp_path, [o], [caption_row(o)])
    old = schema.CAPTIONS.with_metadata({**schema.CAPTIONS.metadata, b"taming.version": b"0"})
    schema.write([schema.table([caption_row(o)], schema.CAPTIONS)], old, tmp_path / "captions.parquet")
    with pytest.raises(TamingError, match="Run `taming caption` again"):
        run(tmp_path)


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    o = object_row(PHOTOS[0])
    write_tables(tmp_path, [o], [caption_row(o)])
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "thesis.docx").touch()
    with pytest.raises(TamingError, match="holds something else than rows"):
        run(tmp_path)
    (tmp_path / "rows" / "thesis.docx").unlink()
    (tmp_path / "rows-dropped.parquet").write_bytes(b"theirs")
    with pytest.raises(TamingError, match=r"rows-dropped.parquet, which would be replaced, is something else"):
        run(tmp_path)
    assert (tmp_path / "rows-dropped.parquet").read_bytes() == b"theirs"
    (tmp_path / "rows-dropped.parquet").unlink()
    theirs = tmp_path / "rows/train-00000-of-00001.parquet"  # as the files of most data sets are called
    pq.write_table(pa.table({"text": ["a"]}), theirs)
    with pytest.raises(TamingError, match=r"train-00000-of-00001.parquet, which would be replaced, is something else"):
        run(tmp_path)
    theirs.unlink()
    assert len(run(tmp_path)) == len(run(tmp_path)) == 1
