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


class TamingError(Exception):
    """A problem that the user can fix; the message is two sentences: what is wrong, what to do."""


def explain_os_error(error: OSError) -> str:
    """An error of the operating system in two sentences: what failed and where, and what to do.

    >>> explain_os_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/rows"))
    '/data/rows: No space left on device. Free some space there, and run the same command again: finished work is kept.'
    """
    where = "" if isinstance(error.filename, int | None) else f"{Path(os.fsdecode(error.filename)).absolute()}: "
    return f"{where}{error.strerror or error}. {REMEDIES.get(error.errno or 0, DEFAULT_REMEDY)}."
