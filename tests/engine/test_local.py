"""Shards are made once, in order, to the same bytes whatever prepares their sources; and joined whole."""

from pathlib import Path

import pytest
from small_work import Pairs, rows_of, work

from taming_core.drop_reasons import KILLS_WORKER
from taming_core.engine import local
from taming_core.engine.work import ShardWork
from taming_core.errors import TamingError
from taming_core.tables import schema, shards
from taming_core.tables.parquet import read_rows

NAMES = list("abcde")


def made(work: ShardWork[str, str], workers: int = 0) -> list[tuple[int, int, dict[str, int]]]:
    return [(done.number, done.sources, dict(done.reasons)) for done in local.run(work, workers)]


def joined(work: ShardWork[str, str], out: Path, names: list[list[str]] | None = None) -> bytes:
    found = [work.sources.shard(n) for n in range(work.sources.shard_count())] if names is None else names
    shards.join(work.folder, work.expected, out, found, len(found))
    return out.read_bytes()


def test_a_finished_shard_is_final_and_the_rest_goes_on(tmp_path: Path) -> None:
    seen: list[str] = []

    def breaks(pairs: Pairs) -> list[schema.Row]:
        if pairs[0][0] == "c":
            raise KeyboardInterrupt
        return rows_of(pairs)

    def notes(pairs: Pairs) -> list[schema.Row]:
        seen.extend(name for name, _ in pairs)
        return rows_of(pairs)

    with pytest.raises(KeyboardInterrupt):
        made(work(tmp_path, NAMES, breaks))
    again = work(tmp_path, NAMES, notes)
    assert made(again) == [(0, 2, {"kept": 2}), (1, 2, {"late": 2}), (2, 1, {"late": 1})]
    assert seen == ["c", "d", "e"]
    whole = work(tmp_path / "whole", NAMES)
    made(whole)
    assert joined(again, tmp_path / "again.parquet") == joined(whole, tmp_path / "whole.parquet")
    assert not (tmp_path / "state").exists()


def test_nothing_is_loaded_when_all_is_made(tmp_path: Path) -> None:
    def never(_: Pairs) -> list[schema.Row]:
        raise AssertionError

    first = made(work(tmp_path, NAMES))
    assert made(work(tmp_path, NAMES, never)) == first


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_do_not_cross_shards(tmp_path: Path, batch_size: int) -> None:
    sizes: list[int] = []

    def notes(pairs: Pairs) -> list[schema.Row]:
        sizes.append(len(pairs))
        return rows_of(pairs)

    made(work(tmp_path, NAMES, notes, size=4, batch_size=batch_size))
    assert sizes == {1: [1] * 5, 2: [2, 2, 1], 5: [4, 1]}[batch_size]


def test_worker_processes_make_the_same_bytes(tmp_path: Path) -> None:
    names = [f"{n:03d}" for n in range(60)]
    tables = []
    for workers in (0, 1, 2):
        shares = work(tmp_path / str(workers), names, size=7, batch_size=3)
        assert sum(done.sources for done in local.run(shares, workers)) == 60
        tables.append(joined(shares, tmp_path / f"{workers}.parquet"))
    assert tables[0] == tables[1] == tables[2]


def test_a_photo_that_kills_its_worker_is_set_aside_and_no_other(tmp_path: Path) -> None:
    names = ["a0", "a1", "deadly", "once", *(f"slow{n}" for n in range(4))]
    assert sum(done.sources for done in local.run(work(tmp_path, names, size=3), 2)) == len(names)
    rows = [row for path in shards.shard_paths(tmp_path / "state") for row in read_rows(path)]
    assert [row["file_name"] for row in rows] == names
    assert [row["file_name"] for row in rows if row["drop_reason"] == KILLS_WORKER] == ["deadly"]


def test_sources_are_prepared_ahead_but_not_all_of_them(tmp_path: Path) -> None:
    names = [f"{n:04d}" for n in range(1000)]
    run = local.run(work(tmp_path, names, size=10, batch_size=5), 1)
    assert next(run).number == 0
    prepared = len(list((tmp_path / "prepared").iterdir()))
    run.close()
    assert 10 < prepared < 60


def test_a_shard_that_vanishes_during_the_work_is_an_error_and_the_others_stay(tmp_path: Path) -> None:
    vanishing = work(tmp_path, NAMES)
    made(vanishing)
    (tmp_path / "state/000000.parquet").unlink()
    with pytest.raises(TamingError, match="should hold 3 shards and holds 2"):
        joined(vanishing, tmp_path / "out.parquet")
    assert len(shards.shard_paths(tmp_path / "state")) == 2


def test_a_table_without_a_photo_of_the_input_is_not_written(tmp_path: Path) -> None:
    other, out = work(tmp_path, NAMES), tmp_path / "captions.parquet"
    made(other)
    out.write_text("of before", encoding="utf-8")
    with pytest.raises(TamingError, match=r"Of 3 photos 2 are in .*000001.parquet; x differs"):
        joined(other, out, [["a", "b"], ["c", "d", "x"], ["e"]])
    assert out.read_text(encoding="utf-8") == "of before"
    assert len(shards.shard_paths(tmp_path / "state")) == 3
