"""What the processes of a training must have in common: one disk for the state, equal inputs, one saved state."""

import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from uuid import uuid4

from taming_core.errors import TamingError
from taming_core.training.distributed import ProcessGroup

PATIENCE = 70.0  # seconds; NFS shows files of other machines up to a minute late (acdirmax in nfs(5))


def require_shared(folder: Path, processes: ProcessGroup) -> None:
    """Require a folder that all processes see; the main process makes it.

    Raises:
        TamingError: in all processes; one of them does not see it, and the message names it and its machine.
    """
    if processes.world_size == 1:
        return
    marker = folder / f".shared-{processes.gather_objects(uuid4().hex)[0]}"
    if processes.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        marker.touch()
    processes.barrier()
    seen = processes.gather_objects((platform.node(), folder.absolute(), appears(marker)))
    if processes.is_main:
        marker.unlink()
    main_host, main_folder, _ = seen[0]
    for rank, (host, _, found) in enumerate(seen):
        if not found:
            raise TamingError(f"Process {rank} on {host} does not see {main_folder} of process 0 on {main_host}, where "
                              "the state of the training is kept. Run the command on all machines in one folder of a "
                              "disk that they share.")  # fmt: skip


def appears(path: Path) -> bool:
    """Wait until a file of another machine is seen here; False if that is not within `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def await_files(own: Iterable[Path], processes: ProcessGroup) -> None:
    """Wait until this process sees the files that any process sees.

    Raises:
        TamingError: one does not appear.
    """
    for path in sorted({path for paths in processes.gather_objects(list(own)) for path in paths}):
        if not appears(path):
            raise TamingError(f"{path.absolute()} was written on another machine and is not seen on {platform.node()}. "
                              "Check the disk that the machines share, and run the same command again.")  # fmt: skip


def require_same(values: Mapping[str, str], processes: ProcessGroup) -> None:
    """Require values that are equal in all processes.

    Args:
        values: by a name for the message, in the plural.
        processes: all of them must call this.

    Raises:
        TamingError: in all processes; some value differs, and the message names the process and its machine.
    """
    everywhere = processes.gather_objects((platform.node(), dict(values)))
    main_host, expected = everywhere[0]
    for rank, (host, found) in enumerate(everywhere):
        for name in values:
            if found[name] != expected[name]:
                raise TamingError(f"Process {rank} on {host} has other {name} than process 0 on {main_host}. Give all "
                                  "machines the same files, best on a disk that they share.")  # fmt: skip
