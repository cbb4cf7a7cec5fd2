"""The stock diffusers pipeline of a TamingPipeline's text-to-image model."""

import inspect
import warnings
from copy import deepcopy
from typing import Any

import diffusers

from taming_core.images.pipeline import TamingPipeline


def stock_pipeline(pipeline: TamingPipeline) -> Any:
    """The stock diffusers pipeline of the family, with the same components and without a safety checker."""
    stock: Any = getattr(diffusers, pipeline.family.pipeline_name)
    # A copy of the scheduler, since some pipelines correct its config.
    components = {**pipeline.components, "scheduler": deepcopy(pipeline.scheduler)}
    parameters = inspect.signature(stock.__init__).parameters
    required = [n for n, p in parameters.items() if n != "self" and p.default is inspect.Parameter.empty]
    switches = {"requires_safety_checker": False} if "requires_safety_checker" in parameters else {}
    with warnings.catch_warnings():
        # It warns where it changes steps_offset of the scheduler, which the "trailing" spacing does not read.
        warnings.simplefilter("ignore", FutureWarning)
        return stock(**{n: components.get(n) for n in required}, **switches)
