"""Settings of the whole process of a command, made before any large import (docs/explanation/speed.md, "Start")."""

import atexit
import codecs
import ctypes
import gc
import locale
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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
    ensure_home()


def use_utf8() -> None:
    """Where the locale's encoding is another, start the command again in UTF-8 mode: libraries open files in it.

    The mode can only be set when Python starts. It is the default from Python 3.15 on (PEP 686).
    """
    if sys.flags.utf8_mode or codecs.lookup(locale.getencoding()).name == "utf-8":
        return
    if os.environ.get("PYTHONUTF8") == "1":  # Python was told to ignore it
        return
    os.environ["PYTHONUTF8"] = "1"  # also for the processes of the data loader
    command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    if os.name == "posix":
        os.execv(sys.executable, command)
    sys.exit(subprocess.run(command).returncode)  # elsewhere `execv` returns to the shell before the command has ended


def ensure_home() -> None:
    """Where there is no home folder, or none that can be written, caches of all libraries go to a temporary folder."""
    try:
        home = Path.home()
    except RuntimeError:  # no HOME, and the user is in no list of users
        home = Path(os.devnull)
    if (home / ".cache").is_dir() or (home.is_dir() and os.access(home, os.W_OK)):
        return
    folder = tempfile.mkdtemp(prefix="taming-home-")
    os.environ |= {"HOME": folder, "USERPROFILE": folder}
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def keep_memory() -> None:
    """Let glibc reuse the memory of activations from layer to layer, instead of allocating new zeroed pages."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
