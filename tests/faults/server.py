"""Starts commands within milliseconds: this process has imported what they import, and forks one for each request.

Requests and answers are lines of JSON on standard input and output. `{"start": {...}}` gives the process id, and
`{"wait": pid, "seconds": s}` the exit status, negative for a signal, or null if it has not ended by then.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

sys.path[0] = str(Path(__file__).parents[1])


def own_channels() -> tuple[TextIO, TextIO]:
    """Standard input and output for this process alone, out of reach of what it imports."""
    channels = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return channels


def serve(requests: TextIO, answers: TextIO) -> Mapping[str, Any] | None:
    """Answer requests until the input ends; in a new process returns its request."""
    for line in requests:
        request = json.loads(line)
        if "start" in request:
            pid = os.fork()
            if pid == 0:
                return request["start"]
            answer: Any = pid
        else:
            answer = wait(request["wait"], request["seconds"])
        print(json.dumps(answer), file=answers, flush=True)
    return None


def wait(pid: int, seconds: float) -> int | None:
    """The exit status of a process, or None if it has not ended in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def preload() -> None:
    """Import what the stages import. Nothing that starts a thread: a forked process would miss it."""
    import taming_core

    for module in pkgutil.walk_packages(taming_core.__path__, "taming_core."):
        importlib.import_module(module.name)
    for name in ("cv2", "matplotlib.backends.backend_agg", "torch.utils.tensorboard"):
        importlib.import_module(name)

    from taming_core.objects.ultralytics_offline import import_ultralytics

    import_ultralytics()


def become(request: Mapping[str, Any]) -> None:
    """Make this process that of a command: a session, folder, output and limits of its own, and the fault."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    os.chdir(request["cwd"])
    tempfile.tempdir = f"{request['cwd']}/tmp"  # what is left there is found
    os.environ |= {"TMPDIR": tempfile.tempdir, **request.get("env", {})}
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{request['logs']}/{os.getpid()}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["taming", *request["argv"]]

    from faults.injection import inject

    inject(request)


def end(code: int) -> NoReturn:
    """End the process as Python does, but without giving back the memory of all that was imported."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    channels = own_channels()
    from stages.process import prepare

    prepare()  # as every command does, before anything large is imported
    from stages.cli import main

    preload()
    gc.collect()
    gc.freeze()  # so that forked processes share it
    print(json.dumps("ready"), file=channels[1], flush=True)
    if (mine := serve(*channels)) is not None:
        become(mine)
        try:
            main()
        except SystemExit as ended:
            end(ended.code if isinstance(ended.code, int) else 0)
