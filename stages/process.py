"""Settings of the whole process of a command, made before any large import (docs/speed.md, "Start")."""

import atexit
import ctypes
import gc
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
LARGEST = 32 << 20  # bytes; the highest threshold that glibc takes
SPINS = 2000  # of a waiting thread before it sleeps: about 10 microseconds


def prepare() -> None:
    """Make imports fast and quiet, and CPU computation fast also under other load; results do not change."""
    # diffusers and peft import bitsandbytes if it is installed, which takes a second and prints messages; `optimizers`,
    # which uses it, undoes this.
    sys.modules.setdefault("bitsandbytes", None)  # pyright: ignore[reportArgumentType]
    # Garbage collection during imports and at exit takes 2 of 6 seconds and frees nothing.
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)
    # By default waiting threads spin for milliseconds, and with one other busy process everything takes four times as
    # long; with threads that sleep at once (OMP_WAIT_POLICY=passive) it takes a quarter longer on an idle machine.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
    keep_memory()


def keep_memory() -> None:
    """Let glibc reuse the memory of activations from layer to layer, instead of allocating new zeroed pages."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
