"""Where a cluster of Ray has its files in these tests."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """A folder with a short path: those of the sockets in it may have 107 bytes."""
    with TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        yield Path(folder)
