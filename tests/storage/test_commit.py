"""Folders in a store: whole or not at all, whatever ends the process that writes them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest
import tiny
from object_store import ObjectStore
from upath import UPath

from taming_core import files
from taming_core.errors import TamingError
from taming_core.storage import commit
from taming_core.tables.row_files import rows_state
from taming_core.tables.rows import load_rows

KILLED = """
import os, signal, sys
from pathlib import Path
from upath import UPath
from taming_core import files
from taming_core.storage import commit

made, out, kind, point = Path(sys.argv[1]), UPath(sys.argv[2]), sys.argv[3], sys.argv[4]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if point == "marker":  # all files are there
    commit.commit = die
elif point == "removal":  # the marker is there
    commit.remove_objects = die
else:
    fs = commit.filesystem(out)
    put, count = fs.put_file, iter(range(int(point)))
    fs.put_file = lambda *names: put(*names) if next(count, None) is not None else die()
if kind == "rows":
    files.replace_folder(made, out)
"""


def made(path: Path, identities: int) -> Path:
    """A folder of rows, of which no file is that of another number of identities."""
    return tiny.write_rows(path, identities=identities, validation=identities - 1)


def rows_of(folder: Path | UPath) -> list[object]:
    rows = load_rows(folder, "train")
    return [rows[i] for i in range(len(rows))]


@pytest.mark.parametrize("point", ["0", "1", "marker", "removal"])
def test_rows_can_be_read_whenever_their_replacing_is_killed(tmp_path: Path, bucket: UPath, point: str) -> None:
    before, after = made(tmp_path / "before", 2), made(tmp_path / "after", 3)
    earlier, later, out = rows_of(before), rows_of(after), bucket / "rows"
    files.replace_folder(before, out)
    command = [sys.executable, "-c", KILLED, str(after), str(out), "rows", point]
    assert subprocess.run(command, check=False, env=os.environ).returncode == -signal.SIGKILL
    assert rows_of(out) == (later if point == "removal" else earlier)
    files.replace_folder(after, out)  # the same command again
    assert rows_of(out) == later
    assert set(commit.list_objects(out)) == {*commit.committed(out), commit.MARKER}  # nothing else is left
    assert not after.exists()


def test_rows_in_a_store_are_those_on_disk(tmp_path: Path, bucket: UPath) -> None:
    local, copy = made(tmp_path / "rows", 3), made(tmp_path / "copy", 3)
    files.replace_folder(copy, bucket / "rows")
    assert rows_of(bucket / "rows") == rows_of(local)
    assert rows_state(bucket / "rows") == rows_state(local)
    stored = ds.dataset((bucket / "rows").path, filesystem=commit.filesystem(bucket))  # as other programs read them
    assert stored.count_rows() == ds.dataset(local).count_rows()


def test_what_was_uploaded_before_a_crash_is_not_uploaded_again(
    tmp_path: Path, bucket: UPath, object_store: ObjectStore
) -> None:
    for name in ("a", "b"):
        folder = made(tmp_path / name, 2)
        object_store.fail()
        files.replace_folder(folder, bucket / "rows")
        puts = [request for request in object_store.requests() if request.startswith("PUT") and ".parquet" in request]
        assert bool(puts) == (name == "a")


def test_a_folder_of_fixed_names_says_that_it_is_half_replaced(tmp_path: Path, bucket: UPath) -> None:
    out = bucket / "encoder"
    with files.replacing_folder(out) as part:
        (part / "unet").mkdir()
        (part / "unet" / "config.json").write_text("{}", encoding="utf-8")
        (part / "old.json").write_text("{}", encoding="utf-8")
    assert set(commit.committed(out)) == {"unet/config.json", "old.json"}
    commit.write_marker(out, None)  # where a killed process leaves it
    with pytest.raises(TamingError, match=r"encoder is being replaced, or that was interrupted\. Wait for"):
        commit.committed(out)
    assert not files.is_complete(out, "old.json")
    files.require_replaceable(out, lambda _: False, "an encoder")  # the same command may go on
    with files.replacing_folder(out) as part:
        (part / "new.json").write_text("{}", encoding="utf-8")
    assert set(commit.list_objects(out)) == {"new.json", commit.MARKER}


def test_a_folder_that_something_else_changed_is_refused(tmp_path: Path, bucket: UPath) -> None:
    files.replace_folder(made(tmp_path / "rows", 2), bucket / "rows")
    victim = next(name for name in commit.committed(bucket / "rows") if name.startswith("train"))
    (bucket / "rows" / victim).write_bytes(b"cut")
    with pytest.raises(TamingError, match=r"has 3 bytes, not \d+, which _SUCCESS there lists\. Run the command again"):
        load_rows(bucket / "rows", "train")
    (bucket / "rows" / victim).unlink()
    with pytest.raises(TamingError, match="is missing, which _SUCCESS there lists"):
        load_rows(bucket / "rows", "train")


def test_an_output_in_a_store_is_no_input_and_no_place_that_is_only_read(bucket: UPath) -> None:
    with pytest.raises(TamingError, match=r"rows is in s3://.*, which the command reads\. Name another place"):
        files.require_out(bucket / "data/rows", [bucket / "data", Path("data")])
    with pytest.raises(TamingError, match=r"only reads from hf://\. Name another place with --out"):
        files.require_out(UPath("hf://datasets/owner/name/rows"))


def test_errors_of_a_store_name_the_url_and_what_to_do(tmp_path: Path, bucket: UPath) -> None:
    with pytest.raises(TamingError, match=r"absent-bucket/rows.* cannot be found: .*\. Check the URL, and"):
        files.write_text(UPath("s3://absent-bucket/rows/a.txt"), "text")
    files.write_text(bucket / "rows/train-00000.parquet", "text")
    with pytest.raises(TamingError, match=r"is not a Parquet file, or is damaged\. Run the command again"):
        load_rows(bucket / "rows", "train")
