"""Batches that run out of memory are halved and tried again."""

import gc
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from taming_core.errors import TamingError
from taming_core.tables import schema

T = TypeVar("T")
Compute = Callable[[Sequence[T]], list[schema.Row]]

# How allocators of the CPU and of MPS say it, in errors that have no class of their own.
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def halving(compute: Compute[T]) -> Compute[T]:
    """`compute` that tries again with half of a batch where memory runs out, and stays at that size.

    Raises:
        TamingError: there is too little memory for one.
    """
    limit = sys.maxsize

    def rows_of(batch: Sequence[T]) -> list[schema.Row]:
        nonlocal limit
        rows: list[schema.Row] = []
        while batch:
            try:
                rows += compute(batch[:limit])
                batch = batch[limit:]
                continue
            except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is of the second kind
                if not is_out_of_memory(error):
                    raise
                limit = min(limit, len(batch)) // 2
            free()  # after the error has gone, whose traceback holds the tensors
            if not limit:
                raise TamingError("There is too little memory for a single photo. Use smaller models or a smaller "
                                  "image_size, another --device, or end other programs.")  # fmt: skip
        return rows

    return rows_of


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate"))
    (True, True)
    >>> is_out_of_memory(RuntimeError("shapes differ"))
    False
    """
    return isinstance(error, MemoryError) or any(words in str(error) for words in WORDS)


def free() -> None:
    """Give memory that is not used any more back to the device."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
