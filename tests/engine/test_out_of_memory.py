"""A batch that runs out of memory is halved; what no half of it can do is an error."""

from collections.abc import Sequence

import pytest
import torch

from taming_core.engine.out_of_memory import halving
from taming_core.errors import TamingError

ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_batch_is_halved_until_it_fits_and_stays_so(error: Exception) -> None:
    sizes: list[int] = []

    def compute(batch: Sequence[int]) -> list[dict[str, int]]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise error
        return [{"n": n} for n in batch]

    rows_of = halving(compute)
    assert rows_of(range(9)) == [{"n": n} for n in range(9)]
    assert sizes == [9, 4, 2, 2, 2, 2, 1]
    assert rows_of(range(3)) == [{"n": n} for n in range(3)]
    assert sizes[7:] == [2, 1]


def test_one_that_does_not_fit_is_an_error_with_what_to_do() -> None:
    def compute(_: Sequence[int]) -> list[dict[str, int]]:
        raise MemoryError

    with pytest.raises(TamingError, match=r"too little memory for a single photo\. Use smaller models"):
        halving(compute)(range(4))


def test_other_errors_are_not_tried_again() -> None:
    tried: list[int] = []

    def compute(batch: Sequence[int]) -> list[dict[str, int]]:
        tried.append(len(batch))
        raise RuntimeError("sizes differ")

    with pytest.raises(RuntimeError, match="sizes differ"):
        halving(compute)(range(4))
    assert tried == [4]
