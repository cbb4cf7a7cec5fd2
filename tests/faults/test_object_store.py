"""An object store that refuses requests and cuts connections gives the same table; one that is gone is named."""

from collections.abc import Callable
from pathlib import Path

import pytest
from faults.ledger import enter
from faults.projects import OBJECTS, PHOTOS
from faults.stage_runs import StageRun
from object_store import ObjectStore, upload
from upath import UPath

RunOf = Callable[[str], StageRun]
FAULTS = {"503": {"refused": 3}, "a cut connection": {"cut": 2}, "both": {"refused": 2, "cut": 2}}


def argv(raw: UPath, out: object) -> list[str]:
    return ["detect", "--in", str(raw), "--out", str(out), "--device", "cpu", "--workers", "0"]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["raw", "out"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_store_that_fails_for_a_moment_changes_no_byte(
    name: str, place: str, run_of: RunOf, object_store: ObjectStore, bucket: UPath
) -> None:
    """In reading photos, or in writing the table and its shards."""
    run = run_of("detect")
    raw, out = upload(run.project / "raw", bucket / "raw"), bucket / "out/objects.parquet"
    object_store.fail(**FAULTS[name], match=f"{'GET' if place == 'raw' else 'PUT'} /{bucket.path.strip('/')}/{place}")
    ended = run.server.run(run.fresh(), argv(raw, out), env=object_store.environment)
    object_store.fail()
    same = out.exists() and out.read_bytes() == (run.after / OBJECTS).read_bytes()
    left = sorted({path.parent.name for path in bucket.rglob("*") if path.is_file()} - {"out", *PHOTOS})
    enter(f"object store: {name}", "detect", left if same else [str(ended)], 0 if same else run.rows)
    assert (ended.status, same, left) == (0, True, []), ended


@pytest.mark.slow
def test_a_store_that_is_gone_is_named(run_of: RunOf, tmp_path: Path) -> None:
    store, run = ObjectStore(), run_of("detect")
    store.kill()
    ended = run.server.run(run.fresh(), argv(UPath("s3://photos/raw"), OBJECTS), env=store.environment)
    told = ended.status == 1 and "s3://photos" in ended.err and "Traceback" not in ended.err
    enter("object store that is gone", "detect", [] if told else [str(ended)], 0)
    assert told, ended
