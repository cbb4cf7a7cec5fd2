"""Screenshots of the studio are kept: in the folder of the environment's SCREENSHOTS, else in that of the test."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of screenshots."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
