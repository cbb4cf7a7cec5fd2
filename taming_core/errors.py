"""The error that is shown to the user without a traceback, and the words for errors of the operating system."""

import errno
import os
from pathlib import Path

DEFAULT_REMEDY = "Correct that, and run the same command again: finished work is kept"
REMEDIES = {
    errno.ENOSPC: "Free some space there, and run the same command again: finished work is kept",
    errno.EDQUOT: "Free some of your quota there, and run the same command again: finished work is kept",
    errno.EFBIG: "Raise the limit on the size of files (`ulimit -f`), or name a place on another disk",
    errno.EROFS: "Run the command in a folder that can be written, and name outputs in such folders",
    errno.EACCES: "Run the command in a folder that you may write, and check the permissions of what it reads",
    errno.EPERM: "Run the command in a folder that you may write, and check the permissions of what it reads",
    errno.ENOENT: "Check the path, and whether something was removed while the command ran",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.EMFILE: "Raise the limit on open files (`ulimit -n`)",
}

LOST = ("DistBackendError", "DistNetworkError", "DistStoreError")  # of torch.distributed, which is not imported here


class TamingError(Exception):
    """A problem that the user can fix; the message is two sentences: what is wrong, what to do."""


def explain_lost_process(error: RuntimeError) -> str | None:
    """What to say when another process of a distributed computation is gone; None for other errors.

    >>> explain_lost_process(RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:2400"))
    'Another process of this training has ended. See what it said last, and run the same command again: it resumes.'
    """
    if "gloo" not in str(error) and type(error).__name__ not in LOST:
        return None
    if "timed out" in str(error).lower() or "timeout" in str(error).lower():
        return ("Other processes of this training did not start or are stuck. See their messages, check that all "
                "machines reach MASTER_ADDR, and run the same command again.")  # fmt: skip
    return ("Another process of this training has ended. See what it said last, and run the same command again: it "
            "resumes.")  # fmt: skip


def explain_os_error(error: OSError) -> str:
    """An error of the operating system in two sentences: what failed and where, and what to do.

    >>> explain_os_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/rows"))
    '/data/rows: No space left on device. Free some space there, and run the same command again: finished work is kept.'
    """
    where = "" if isinstance(error.filename, int | None) else f"{Path(os.fsdecode(error.filename)).absolute()}: "
    return f"{where}{error.strerror or error}. {REMEDIES.get(error.errno or 0, DEFAULT_REMEDY)}."
