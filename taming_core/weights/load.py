"""Loading transformers models from a folder or the hub: in float32, complete, and without running remote code."""

import os
import pickle
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils import logging

from taming_core.errors import TamingError
from taming_core.weights.locate import WITHOUT_MINI, not_found_message

# What transformers raises for files that are missing, damaged, of another model, or hold more than tensors.
LOAD_ERRORS = (OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError)


def load_network(kind: Any, source: str, what: str, key: str, optional_part: str | None = None) -> Any:
    """A model of the class `kind` in float32 and evaluation mode; pickled weights are loaded as tensors only.

    The submodule `optional_part` is set to None if the files have no weights for it: it would be random.

    Raises:
        TamingError: there is no such model, or it lacks weights; the message names it `what` and its setting `key`.
    """
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # else a thread asks the hub for another format
    with no_progress_bars(), as_taming_error(source, what, key):
        model, report = kind.from_pretrained(
            source,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # raised below as a TamingError
        )
    missing = sorted(str(name) for name in [*report["missing_keys"], *report["mismatched_keys"]])
    if optional_part and missing and all(name.startswith(f"{optional_part}.") for name in missing):
        setattr(model, optional_part, None)
    elif missing:
        raise TamingError(
            f"{source} is no {what}, for it has no {missing[0]} that fits. Set {key} to "
            f"{'' if key in WITHOUT_MINI else 'mini or '}another."
        )
    return model.eval()


@contextmanager
def as_taming_error(source: str, what: str, key: str) -> Generator[None, None, None]:
    """Turns what transformers raises in the block into a TamingError."""
    try:
        yield
    except LOAD_ERRORS as error:
        raise TamingError(not_found_message(source, what, key)) from error


@contextmanager
def no_progress_bars() -> Generator[None, None, None]:
    """Hides transformers' progress bars and load report in the block; missing weights are raised instead."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def preprocess_images(processor: Any, images: Sequence[NDArray[np.uint8]]) -> Float[Tensor, "n 3 height width"]:
    """Images (H, W, 3) of any sizes, resized and normalized for a model by its image processor."""
    arrays = [np.array(image) for image in images]  # a copy: the processor warns about read-only arrays
    return processor(images=arrays, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
