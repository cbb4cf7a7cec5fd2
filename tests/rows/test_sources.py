"""The index of what rows are made of: written whole or not at all, found again, and read by any process."""

import errno
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from taming_core.errors import TamingError
from taming_core.params.engine import EngineOptions
from taming_core.params.load import load_params
from taming_core.photos.files import photo_id_of
from taming_core.photos.masks import encode_mask
from taming_core.rows import database
from taming_core.rows.making import RowMaker
from taming_core.rows.sources import CaptionedPhoto, MaterializeInputs, PhotoObjects, RowSources, list_sources
from taming_core.tables import schema
from taming_core.tables.row_ranges import range_reader

P = load_params(Path(__file__).parents[2] / "params.yaml").materialize.model_copy(update={"shard_size": 2})


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MaterializeInputs:
    """Three photos: two objects; one kept and one dropped; none, but a caption."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    objects, captions = list[dict[str, Any]](), list[dict[str, Any]]()
    for number, reasons in enumerate([(None, None), (None, "too small: 0.1"), ()]):
        name = f"{number}.png"
        Image.new("RGB", (64, 64), (80 * number, 90, 120)).save(tmp_path / "raw" / name)
        known = {"photo_id": photo_id_of(tmp_path / "raw" / name), "file_name": name}
        photo = {**dict.fromkeys(schema.OBJECTS.names), **known, "photo_width": 64, "photo_height": 64}
        caption = {**dict.fromkeys(schema.CAPTIONS.names), **known, "caption": "a cup", "object_caption": "a <object>"}
        found = {"box_xyxy": [10, 10, 40, 40], "mask_png": encode_mask(np.ones((64, 64), bool)), "class": "cup"}
        ids = [f"{known['photo_id']}-{i}" for i in range(len(reasons))]
        objects += [{**photo, **found, "object_id": i, "drop_reason": r} for i, r in zip(ids, reasons, strict=True)]
        objects += [] if ids else [{**photo, "drop_reason": "no object"}]
        captions += [{**caption, "object_id": i} for i in ids] or [caption]
    for name, expected, rows in (("objects", schema.OBJECTS, objects), ("captions", schema.CAPTIONS, captions)):
        schema.write([schema.table([row], expected) for row in rows], expected, tmp_path / name)
    return MaterializeInputs(tmp_path / "raw", tmp_path / "objects", tmp_path / "captions", None)


def listed(inputs: MaterializeInputs) -> RowSources:
    return list_sources(Path("runs/some"), inputs, P, EngineOptions())


def test_sources_are_photos_with_what_becomes_rows(inputs: MaterializeInputs) -> None:
    sources = pickle.loads(pickle.dumps(listed(inputs)))
    shards = [sources.shard(number) for number in range(sources.shard_count())]
    photos = [[len(s.objects) for s in shard if isinstance(s, PhotoObjects)] for shard in shards]
    assert photos == [[2], [1], []]  # of five rows, and of five captions all but one are of objects
    assert [isinstance(s, CaptionedPhoto) for s in shards[-1]] == [True]
    assert [sources.count(n) for n in range(len(shards))] == [len(shard) for shard in shards]
    assert len(sources) == 3


def test_the_index_is_found_again(inputs: MaterializeInputs) -> None:
    before = Path(str(listed(inputs).index)).stat().st_mtime_ns
    assert Path(str(listed(inputs).index)).stat().st_mtime_ns == before


def test_rows_are_made_of_a_photo_at_once_and_a_killed_worker_leaves_dropped_ones(inputs: MaterializeInputs) -> None:
    sources = listed(inputs)
    maker = pickle.loads(pickle.dumps(RowMaker(inputs.raw, None, sources.index, P)))
    (photo,) = sources.shard(0)
    rows = maker.prepare(photo)
    assert [(r["drop_reason"], r["caption"]) for r in rows] == [(None, "a cup")] * 2
    dropped = maker.load()([(photo, rows), (photo, "photo kills its worker")])[2:]
    assert [(r["row_id"], r["split"], r["drop_reason"]) for r in dropped] == [
        (o["object_id"], "dropped", "photo kills its worker") for o in photo.objects
    ]


def test_a_full_disk_is_an_error_of_the_system_that_names_the_file_and_leaves_none(tmp_path: Path) -> None:
    def overfill() -> None:
        with database.writing(tmp_path / "index.sqlite") as db:
            db.execute("pragma max_page_count = 8")
            db.execute("create table numbers (n blob)")
            db.executemany("insert into numbers values (?)", [(bytes(4096),)] * 100)

    with pytest.raises(OSError, match="No space left on device") as raised:
        overfill()
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "index.sqlite"))
    assert not list(tmp_path.iterdir())


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(TamingError, match=r"index.sqlite is damaged\. Remove its folder, and run the same command"):
        database.reading(tmp_path / "index.sqlite")


def test_ranges_of_rows_are_read_across_row_groups(tmp_path: Path) -> None:
    rows = [{**dict.fromkeys(schema.CAPTIONS.names), "photo_id": str(n), "file_name": f"{n}.jpg"} for n in range(12)]
    parts = (rows[:3], rows[3:3], rows[3:4], rows[4:12])
    schema.write([schema.table(part, schema.CAPTIONS) for part in parts], schema.CAPTIONS, tmp_path / "captions")
    read = range_reader(tmp_path / "captions", schema.CAPTIONS, ["photo_id"])
    for start in range(12):
        for stop in range(start + 1, 13):
            assert [int(row["photo_id"]) for row in read(start, stop)] == list(range(start, stop))
