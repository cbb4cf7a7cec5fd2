"""Rows in a store: what is fetched for a row, with and without a cache, by one process and by several."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import tiny
from object_store import ObjectStore, upload
from upath import UPath

from taming_core.errors import TamingError
from taming_core.storage import cache
from taming_core.tables import rows as module
from taming_core.tables.rows import Rows, load_rows


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process begins: nothing is in memory, and there is no cache."""
    monkeypatch.delenv(cache.CACHE_DIR, raising=False)
    for cached in (module._read_group, module._metadata, module._small_columns):
        cached.cache_clear()


@pytest.fixture
def stored(tmp_path: Path, bucket: UPath) -> tuple[Rows, UPath]:
    """Rows in two files on disk, and the folder of the same in a store."""
    for number, name in enumerate(("a", "b")):
        folder = tiny.write_rows(tmp_path / name, identities=2 + number)
        (tmp_path / "rows").mkdir(exist_ok=True)
        next(folder.glob("train-*")).rename(tmp_path / "rows" / f"train-{number:05d}.parquet")
    return load_rows(tmp_path / "rows", "train"), upload(tmp_path / "rows", bucket / "rows")


def gets(store: ObjectStore) -> list[str]:
    return [request for request in store.requests() if request.startswith("GET") and ".parquet" in request]


def test_a_row_costs_one_request_for_its_group(stored: tuple[Rows, UPath], object_store: ObjectStore) -> None:
    local, folder = stored
    rows = load_rows(folder, "train")
    object_store.fail()
    assert rows[0] == local[0]
    assert len(gets(object_store)) == 1
    assert rows[0] == local[0]  # from memory
    assert len(gets(object_store)) == 1
    assert all("train-00000" in request for request in gets(object_store))  # the other file is not touched


def test_small_columns_of_a_file_are_fetched_once_for_all(
    stored: tuple[Rows, UPath], object_store: ObjectStore
) -> None:
    local, folder = stored
    rows = load_rows(folder, "train")
    object_store.fail()
    for name in ("identity", "row_id", "width", "references"):
        assert rows.column(name) == local.column(name)
    assert len(gets(object_store)) == 2  # the small files' columns lie close together
    assert rows.find(local[3]["row_id"]) == 3
    assert rows.objects.tolist() == local.objects.tolist()


def test_a_cache_holds_the_files_whose_rows_were_needed(
    tmp_path: Path, stored: tuple[Rows, UPath], object_store: ObjectStore
) -> None:
    local, folder = stored
    cache.use_cache_dir(tmp_path / "cache", folder)
    rows = load_rows(folder, "train")
    rows.column("identity")
    assert not list((tmp_path / "cache").glob("*.parquet"))
    assert rows[0] == local[0]
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 1
    assert [rows[i] for i in range(len(rows))] == [local[i] for i in range(len(local))]
    assert len(list((tmp_path / "cache").iterdir())) == 2  # no lock, no part
    module._read_group.cache_clear()
    object_store.fail()
    assert rows[0] == local[0]
    assert gets(object_store) == []


def test_a_file_that_was_written_again_is_fetched_again(tmp_path: Path, stored: tuple[Rows, UPath]) -> None:
    _, folder = stored
    cache.use_cache_dir(tmp_path / "cache", folder)
    assert load_rows(folder, "train")[0]
    other = load_rows(tiny.write_rows(tmp_path / "other", identities=4), "train")
    (folder / "train-00000.parquet").write_bytes(other.files[0].read_bytes())
    assert load_rows(folder, "train")[0] == other[0]


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("cached", [False, True])
def test_processes_read_the_same_rows_at_once(
    tmp_path: Path, stored: tuple[Rows, UPath], object_store: ObjectStore, start: str, cached: bool
) -> None:
    local, folder = stored
    cache.use_cache_dir(tmp_path / "cache" if cached else None, folder)
    rows = load_rows(folder, "train")
    assert rows[0]  # this process has a connection, which the others must not use
    object_store.fail()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(start)) as pool:
        found = list(pool.map(rows.__getitem__, range(len(rows))))
    assert found == [local[i] for i in range(len(local))]
    if cached:
        assert sum("train-00001" in request and "?" not in request for request in gets(object_store)) <= 2


def test_a_cache_for_local_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TamingError, match=r"--cache-dir has no effect on files of this machine\. Leave it out"):
        cache.use_cache_dir(tmp_path / "cache", tmp_path / "rows")
