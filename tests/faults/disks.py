"""Small and read-only disks, mounted where a test may mount."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE = 4096  # bytes; a disk in memory gives files whole pages


def mount(*arguments: str) -> None:
    """Mount something; without the right to do so, the test is skipped."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")


@contextmanager
def small_disk(folder: Path, size: int) -> Generator[None]:
    """A disk in memory of `size` bytes at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, size: int) -> None:
    """Give a mounted disk another size."""
    mount("-o", f"remount,size={size}", str(folder))


@contextmanager
def read_only(folder: Path) -> Generator[None]:
    """Make a folder, with all that is in it, one that cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("--bind", str(folder), str(folder))
    try:
        mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def used(folder: Path) -> int:
    """The bytes that the files of a folder take on a disk in memory."""
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(-(-size // PAGE) * PAGE for size in sizes)
