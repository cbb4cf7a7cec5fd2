"""The stock diffusers pipeline of a TamingPipeline's text-to-image model."""

import inspect
import warnings
from typing import Any

import diffusers

from taming_core.images.pipeline import TamingPipeline


def stock_pipeline(pipeline: TamingPipeline, scheduler: Any = None) -> Any:
    """The stock diffusers pipeline of the family, with the same components and without a safety checker.

    Args:
        pipeline: its scheduler may be corrected in place, as stock pipelines do with outdated configs; then both draw
            the same.
        scheduler: another one to use and correct; None for the pipeline's own.
    """
    stock: Any = getattr(diffusers, pipeline.family.pipeline_name)
    components = {**pipeline.components, "scheduler": scheduler or pipeline.scheduler}
    parameters = inspect.signature(stock.__init__).parameters
    required = [n for n, p in parameters.items() if n != "self" and p.default is inspect.Parameter.empty]
    switches = {"requires_safety_checker": False} if "requires_safety_checker" in parameters else {}
    with warnings.catch_warnings():
        # It warns where it changes steps_offset of the scheduler, which the "trailing" spacing does not read.
        warnings.simplefilter("ignore", FutureWarning)
        return stock(**{n: components.get(n) for n in required}, **switches)
