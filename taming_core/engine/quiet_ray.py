"""Ray, imported so that nothing of it appears in the output of a command.

Its errors reach a command as exceptions; its logs are files, which `ray logs` of a cluster shows.
"""

import logging
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

# Ray reads these as it is imported, or as its own processes start.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # what processes of the cluster print for people who watch a driver
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
warnings.filterwarnings("ignore", module=r"ray\.")

import ray as _ray  # noqa: E402
import ray.data as _data  # noqa: E402

logging.getLogger("ray").setLevel(logging.CRITICAL)
logging.getLogger("ray.data").handlers.clear()

ray: Any = _ray
ray_data: Any = _data


@contextmanager
def muted() -> Generator[None]:
    """Nothing is written to the standard error of this process in the block: Ray's C++ code announces itself there."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def set_quiet_context() -> None:
    """Ray Data shows no progress of its own, and waits for slow shards however long they take."""
    context = ray_data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1
