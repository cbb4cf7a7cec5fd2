"""Writes are checked both ways; tables of another version are refused with the command to run again."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taming_core.errors import TamingError
from taming_core.tables import schema


def row(**values: Any) -> dict[str, Any]:
    """A caption row."""
    empty = dict.fromkeys(schema.CAPTIONS.names)
    return {**empty, "photo_id": "0" * 16, "file_name": "a.jpg", **values}


def test_every_column_is_described() -> None:
    for s in (schema.OBJECTS, schema.CAPTIONS, schema.ROWS):
        assert all(f.metadata[b"description"] for f in s)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown \['captoin'\], missing \[\]"):
        schema.table([row(captoin="a dog")], schema.CAPTIONS)


def test_a_missing_key_is_refused() -> None:
    short = row()
    del short["caption"]
    with pytest.raises(ValueError, match=r"unknown \[\], missing \['caption'\]"):
        schema.table([short], schema.CAPTIONS)


def test_a_null_in_a_required_column_is_refused() -> None:
    with pytest.raises(ValueError, match=r"null in required \['photo_id'\]"):
        schema.table([row(photo_id=None)], schema.CAPTIONS)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = [row(caption="a dog"), row(drop_reason="unreadable: truncated")]
    stamped = schema.add_fingerprint(schema.CAPTIONS, "f00")
    schema.write([schema.table(rows, schema.CAPTIONS)], stamped, tmp_path / "captions.parquet")
    assert [r for b in schema.iter_rows(tmp_path / "captions.parquet", schema.CAPTIONS, 1) for r in b] == rows
    assert pq.read_schema(tmp_path / "captions.parquet").metadata[b"taming.params"] == b"f00"
    assert list(tmp_path.iterdir()) == [tmp_path / "captions.parquet"]


def test_an_absent_table_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match="Run `taming detect` first"):
        schema.open_table(tmp_path / "objects.parquet", schema.OBJECTS)


def test_a_table_of_another_version_names_the_command(tmp_path: Path) -> None:
    old = schema.OBJECTS.with_metadata({**schema.OBJECTS.metadata, b"taming.version": b"0"})
    schema.write([], old, tmp_path / "objects.parquet")
    with pytest.raises(TamingError, match=r"table version 0, this is version \w+\. Run `taming detect` again"):
        schema.open_table(tmp_path / "objects.parquet", schema.OBJECTS)


def test_a_table_without_a_column_names_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"photo_id": ["a"]}), tmp_path / "objects.parquet")
    with pytest.raises(TamingError, match="has no column 'file_name'"):
        schema.open_table(tmp_path / "objects.parquet", schema.OBJECTS)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "objects.parquet").write_text("hello")
    with pytest.raises(TamingError, match="is not a Parquet file"):
        schema.open_table(tmp_path / "objects.parquet", schema.OBJECTS)


def test_a_damaged_table_is_named_and_may_not_be_an_output(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    schema.write([schema.table([row()], schema.CAPTIONS)], schema.CAPTIONS, path)
    whole = path.read_bytes()
    footer = bytes(b ^ 0x5A for b in whole[-400:-8]) + whole[-8:]
    for damaged in (b"", whole[:4], whole[: len(whole) // 2], whole[:-400] + footer, bytes(len(whole))):
        path.write_bytes(damaged)
        with pytest.raises(TamingError, match=r"captions.parquet is not a Parquet file, or is damaged\. Remove it"):
            schema.open_table(path, schema.CAPTIONS)
        with pytest.raises(TamingError, match=r"or is damaged\. Name a new file with --out, or remove this one\."):
            schema.require_out(path, schema.CAPTIONS)
