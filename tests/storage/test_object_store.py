"""The server that the tests of object stores talk to does what a store does, and fails as it is told to."""

import subprocess
import sys

from object_store import ObjectStore
from upath import UPath


def test_other_processes_read_what_this_one_wrote(bucket: UPath) -> None:
    folder = bucket / "photos"
    (folder / "a b#?%20+é.jpg").write_bytes(b"pixels")
    read = f"from upath import UPath; print([p.read_bytes() for p in UPath('{folder}').iterdir()])"
    assert subprocess.run([sys.executable, "-c", read], capture_output=True, text=True).stdout == "[b'pixels']\n"


def test_requests_fail_as_often_as_was_told_and_are_seen(bucket: UPath, object_store: ObjectStore) -> None:
    (bucket / "a").write_bytes(b"a")
    (bucket / "b").write_bytes(b"b" * 1000)
    object_store.fail(refused=1, cut=1, match="/b")
    assert (bucket / "a").read_bytes() == b"a"
    assert (bucket / "b").read_bytes() == b"b" * 1000
    paths = [request.rpartition("/")[2] for request in object_store.requests()]
    assert paths == ["a", "a", "b", "b", "b", "b"]  # its size, and its content; of the second, refused and cut first
