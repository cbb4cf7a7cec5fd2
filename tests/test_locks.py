"""Two processes never write the same at once, and a crash locks nobody out."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taming_core.errors import TamingError
from taming_core.files import part_path, replacing, replacing_folder
from taming_core.locks import exclusive

ROOT = Path(__file__).parents[1]
HOLD = """
import sys
from pathlib import Path
from taming_core.locks import exclusive
with exclusive(*map(Path, sys.argv[1:])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, *names: str) -> subprocess.Popen[str]:
    """A process that holds the locks until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, *names], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_process_is_told_who_the_first_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    process = holder(tmp_path, "data/rows", "runs/state")
    for path in ("runs/state", "data/rows"):
        words = rf"^{path} is being written by `-c data/rows runs/state` \(process {process.pid} on .+, since 2.+\)\. "
        with pytest.raises(TamingError, match=words), exclusive(Path("other"), Path(path)):
            pytest.fail("two hold one lock")
    process.communicate("")
    with exclusive(Path("data/rows"), Path("runs/state")):
        pass
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []  # locks leave nothing behind


def test_a_killed_process_holds_nothing_and_what_it_had_begun_is_removed(tmp_path: Path) -> None:
    process = holder(tmp_path, "out", "runs/state")
    for part in (
        "out.taming-77.part",
        "out.taming-77.part.taming-77.part",
        "runs/state/shard.parquet.taming-77.part",
        "runs/state.taming-77.part",
    ):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).mkdir() if part == "out.taming-77.part" else (tmp_path / part).write_text("half")
    for kept in ("out.part", "out.77.part", "another.taming-77.part", "runs/state/shard.parquet"):
        (tmp_path / kept).write_text("of someone else")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with exclusive(tmp_path / "out", tmp_path / "runs/state"):
        left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if not p.name.startswith(".")}
        assert left == {
            "out.part",
            "out.77.part",
            "another.taming-77.part",
            "runs",
            "runs/state",
            "runs/state/shard.parquet",
        }


def test_what_other_commands_write_in_folders_of_a_shared_one_stays(tmp_path: Path) -> None:
    for part in ("picture.png.taming-77.part", "archive.7z.001.part", "data/rows.taming-78.part"):
        (tmp_path / part).parent.mkdir(exist_ok=True)
        (tmp_path / part).write_text("half")
    with exclusive(tmp_path, nested=False):
        left = {p.name for p in tmp_path.rglob("*.part")}
    assert left == {"archive.7z.001.part", "rows.taming-78.part"}


def test_a_place_has_one_lock_by_whatever_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("folder")
    process = holder(tmp_path, "folder")
    for name in ("link", "../" + tmp_path.name + "/folder"):
        with pytest.raises(TamingError, match=" is being written by "), exclusive(Path(name)):
            pytest.fail("two hold one lock")
    process.communicate("")


def test_a_folder_that_alone_can_be_written_holds_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # noqa: ARG005  root may write everywhere
    with exclusive(tmp_path / "mounted"):
        assert [p.name for p in tmp_path.iterdir()] == ["mounted"]
        assert (tmp_path / "mounted/.mounted.lock").exists()
    assert list((tmp_path / "mounted").iterdir()) == []


def test_an_error_in_the_block_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), exclusive(tmp_path / "out"):
        raise KeyboardInterrupt
    with exclusive(tmp_path / "out"):
        pass


def test_processes_write_into_parts_of_their_own(tmp_path: Path) -> None:
    assert str(os.getpid()) in part_path(tmp_path / "table.parquet").name
    with replacing(tmp_path / "a.txt") as part:
        part.write_text("new")
        assert part == part_path(tmp_path / "a.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_stays_one_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk/rows").mkdir(parents=True)
    (tmp_path / "disk/table").write_text("old")
    (tmp_path / "rows").symlink_to("disk/rows")
    (tmp_path / "table").symlink_to("disk/table")
    with replacing_folder(tmp_path / "rows") as part:
        (part / "a").write_text("new")
    with replacing(tmp_path / "table") as part:
        part.write_text("new")
    assert (tmp_path / "rows").is_symlink()
    assert (tmp_path / "table").is_symlink()
    assert (tmp_path / "disk/rows/a").read_text() == (tmp_path / "disk/table").read_text() == "new"
