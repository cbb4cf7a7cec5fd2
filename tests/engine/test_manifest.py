"""A manifest is read by shards, also by another process; a large folder is listed by one of its own."""

import os
import pickle
import signal
from functools import partial
from pathlib import Path

import pytest
from small_work import COLUMNS, name_of

from taming_core.engine import manifest
from taming_core.engine.manifest import Listing, Manifest
from taming_core.engine.processes import in_child
from taming_core.engine.work import Sources
from taming_core.errors import TamingError


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (6, 3), (10_000, 32), (10_001, 7000)])
def test_shards_are_the_rows_in_order(tmp_path: Path, count: int, size: int) -> None:
    names = [f"photo {n}.jpg" for n in range(count)]
    assert manifest.write(({"file_name": name} for name in names), COLUMNS, tmp_path / "m.parquet", size) == count
    written: Manifest[str] = Manifest(tmp_path / "m.parquet", size, name_of)
    found = pickle.loads(pickle.dumps(written))
    assert isinstance(found, Sources)
    assert len(found) == count
    assert [found.shard(n) for n in range(found.shard_count())] == list(found.names())
    assert [len(shard) for shard in found.names()] == [size] * (count // size) + [count % size] * (count % size > 0)
    assert [name for shard in found.names() for name in shard] == names


def listing(path: Path, pid_file: Path) -> Listing:
    pid_file.write_text(str(os.getpid()), encoding="utf-8")
    return Listing(path, manifest.write([{"file_name": "a"}], COLUMNS, path, 2), "state", ["a note"])


@pytest.mark.parametrize("is_large", [False, True])
def test_a_large_folder_is_listed_by_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    monkeypatch.setattr(manifest, "LARGE", 1 if is_large else 2)
    for name in ("a/0.jpg", "b/0.jpg"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True)
        (tmp_path / "raw" / name).touch()
    with manifest.listed(
        tmp_path / "raw", tmp_path / "out.parquet", partial(listing, pid_file=tmp_path / "pid")
    ) as found:
        kept = manifest.keep(found, tmp_path / "state", 2, name_of)
    assert (found.count, found.state, found.notes) == (1, "state", ["a note"])
    assert list(kept.names()) == [["a"]]
    assert not found.rows.exists()
    assert ((tmp_path / "pid").read_text(encoding="utf-8") != str(os.getpid())) == is_large


def wrong() -> None:
    raise TamingError("The metadata is wrong. Correct it.")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def environment(name: str) -> str | None:
    return os.environ.get(name)


def test_errors_of_the_child_are_those_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TamingError, match=r"^The metadata is wrong\. Correct it\.$"):
        in_child(wrong)
    with pytest.raises(TamingError, match=r"was killed, .*\. End other programs, and run the same command again\."):
        in_child(killed)
    monkeypatch.setenv("TAMING_TEST", "set after the server of processes has started")
    assert in_child(environment, "TAMING_TEST") == os.environ["TAMING_TEST"]
