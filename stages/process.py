"""What holds for the whole process of a command, set before anything large is imported (docs/speed.md, "Start")."""

import atexit
import ctypes
import gc
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
LARGEST = 32 << 20  # bytes; the highest threshold that glibc takes
SPINS = 2000  # of a thread that waits for the others, before it sleeps: about 10 microseconds


def prepare() -> None:
    """Make imports quick and quiet, and computing on a CPU quick also beside other work; results stay the same."""
    # diffusers and peft import bitsandbytes wherever it is installed, which takes a second and prints about kernels;
    # `optimizers` is what uses it, and takes this back.
    sys.modules.setdefault("bitsandbytes", None)  # pyright: ignore[reportArgumentType]
    # Modules are no garbage: looking for some while they are imported, and when all is over, takes 2 of 6 seconds.
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)
    # By default threads that wait spin for milliseconds, and beside one busy process everything takes four times as
    # long; those that sleep at once (OMP_WAIT_POLICY=passive) lose a quarter when nothing else runs.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
    keep_memory()


def keep_memory() -> None:
    """Let glibc keep the memory of activations from layer to layer, instead of asking for zeroed pages every time."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
