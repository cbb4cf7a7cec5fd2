"""What several test files draw with. The imports are inside: tests that need no torch stay quick."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor

    from taming_core.customize import TamingPipeline


@pytest.fixture(scope="module")
def pipeline() -> "TamingPipeline":
    """The shipped weights."""
    from taming_core.customize import load_pipeline

    return load_pipeline("mini")


@pytest.fixture(scope="module")
def embeds(pipeline: "TamingPipeline") -> "Tensor":
    """Two objects, encoded."""
    from small_rows import artwork

    return pipeline.encode_objects(artwork(2))
