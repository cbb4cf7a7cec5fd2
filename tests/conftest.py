"""What several test files draw with. The imports are inside: tests that need no torch stay quick."""

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest
from object_store import bucket as bucket
from object_store import object_store as object_store

from stages.process import prepare

hypothesis.settings.register_profile("untimed", deadline=None)  # other processes may slow a test down
hypothesis.settings.load_profile("untimed")
prepare()  # as every command does, before anything large is imported

if TYPE_CHECKING:
    from torch import Tensor

    from taming_core.images.families import TamingPipeline


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept between commands stays out of the user's own cache folder."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def pipeline() -> "TamingPipeline":
    """The shipped weights."""
    from taming_core.images.families import load_pipeline

    return load_pipeline("mini")


@pytest.fixture(scope="module")
def embeds(pipeline: "TamingPipeline") -> "Tensor":
    """Two objects, encoded."""
    from small_rows import artwork

    return pipeline.encode_objects(artwork(2))
