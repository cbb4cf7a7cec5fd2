"""The memory that a training takes above what was used before it."""

import ctypes
from contextlib import suppress

import psutil
import torch


class MemoryPeak:
    """The most memory at any call of `sample`, above what was used before: resident, or allocated on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device if device.type == "cuda" else None
        if self.cuda is not None:
            torch.cuda.reset_peak_memory_stats(self.cuda)
        else:
            return_freed_memory()
        self.before = self._used()
        self.peak = self.before

    def sample(self) -> None:
        """Look at the memory in use; on a GPU the peak is known at any time."""
        self.peak = max(self.peak, self._used())

    @property
    def above(self) -> int:
        """Bytes."""
        return self.peak - self.before

    def _used(self) -> int:
        return psutil.Process().memory_info().rss if self.cuda is None else torch.cuda.max_memory_allocated(self.cuda)


def return_freed_memory() -> None:
    """Let the allocator return what it keeps of freed memory, which would hide what is allocated next."""
    with suppress(OSError, AttributeError):  # only glibc keeps much, and can be asked
        ctypes.CDLL(None).malloc_trim(0)
