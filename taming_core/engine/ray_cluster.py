"""The Ray cluster that makes shards: one that runs already, or one of this command's own on this machine."""

import os
import re
import secrets
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from filelock import FileLock, Timeout

from taming_core.engine.quiet_ray import muted, ray
from taming_core.errors import TamingError
from taming_core.params.engine import EngineOptions

LOCAL = "local"  # the address of a cluster of this command's own
PREFIX = "taming-ray-"
LOCK = "lock"  # held while a command runs, in the folder of its cluster
HOST_AND_PORT = re.compile(r"(?:ray://)?\[?(?P<host>[^\]/]+)\]?:(?P<port>\d+)")
SECONDS = 10  # until an address that does not answer is none; Ray itself waits for minutes


@contextmanager
def connected(address: str | None) -> Generator[None]:
    """A cluster for the block; in a program that is connected already, that one.

    Args:
        address: None for that in the environment, RAY_ADDRESS, and if there is none for a cluster of this block's own,
            which ends with it, and with this process however that happens.

    Raises:
        TamingError: there is no cluster at the address, or none can be started.
    """
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    if ray.is_initialized():
        yield
    elif address == LOCAL:
        with started():
            yield
    else:
        require_answer(address)
        try:
            connect(address=address)
            yield
        finally:
            ray.shutdown()


@contextmanager
def started() -> Generator[None]:
    """A cluster on this machine for the block. Ray lets in only who has its token, which is in no file."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own is 15, as on machines that have more to do
    with folder_of_session() as folder:
        try:
            connect(address=LOCAL, include_dashboard=False, _temp_dir=folder, _node_ip_address="127.0.0.1")
            yield
        finally:
            ray.shutdown()


def connect(address: str, **settings: Any) -> None:
    """`ray.init`, without its announcements. After it SIGTERM ends this process as `sys.exit` does, cleanly.

    Raises:
        TamingError: there is no cluster, one of another version, or none can be started.
    """
    try:
        with muted():
            ray.init(address=address, configure_logging=False, log_to_driver=False, **settings)
    except Exception as error:  # Ray raises plain ones, too
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        if address == LOCAL:
            raise TamingError(f"Ray cannot be started on this machine: {reason}. Use --engine local.") from error
        raise TamingError(f"Ray cannot be reached at {address}: {reason}. Start it by `ray start --head`, and run this "
                          "command on a node of the cluster.") from error  # fmt: skip


@contextmanager
def folder_of_session() -> Generator[str]:
    """A folder for the files of one cluster, which is removed at the end; those of killed commands are, too."""
    place = Path(session_root())
    remove_ended(place)
    folder = mkdtemp(prefix=PREFIX, dir=place)
    try:
        with FileLock(Path(folder) / LOCK):
            yield folder
    finally:
        remove_ended(place)  # this one, and those whose processes were still ending


def remove_ended(place: Path) -> None:
    """Remove the folders of commands that have ended.

    Processes of a killed one may still write for a while. Its lock goes last, so that a later command finds the rest.
    """
    for lock in place.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError, Timeout), FileLock(lock, timeout=0):
            for path in lock.parent.iterdir():
                if path.is_dir() and not path.is_symlink():
                    rmtree(path, ignore_errors=True)
                elif path != lock:
                    path.unlink()
            if list(lock.parent.iterdir()) == [lock]:
                lock.unlink()
                lock.parent.rmdir()


def session_root() -> str:
    """Where Ray keeps its sockets, whose paths may not be long."""
    return os.environ.get("RAY_TMPDIR") or ("/tmp" if os.name == "posix" else os.environ["TEMP"])


def require_answer(address: str) -> None:
    """Check that something listens at an address.

    Raises:
        TamingError: nothing does.
    """
    found = HOST_AND_PORT.fullmatch(running_cluster() if address == "auto" else address)
    if found is None:
        raise TamingError(f"RAY_ADDRESS is {address}, which is not host:port. Correct it, or name a --ray-address.")
    try:
        socket.create_connection((found["host"], int(found["port"])), timeout=SECONDS).close()
    except OSError as error:
        raise TamingError(f"There is no Ray at {found['host']}:{found['port']}: {error.strerror or error}. Start it by "
                          "`ray start --head`, or correct --ray-address.") from error  # fmt: skip


def running_cluster() -> str:
    """The address of the cluster that `ray start` started on this machine.

    Raises:
        TamingError: there is none.
    """
    note = Path(session_root()) / "ray" / "ray_current_cluster"
    with suppress(OSError):
        return os.environ.get("RAY_ADDRESS") or note.read_text(encoding="utf-8").strip()
    raise TamingError("There is no Ray on this machine for --ray-address auto. Start it by `ray start --head`, or "
                      "leave --ray-address out for a Ray of its own.")  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """How many actors there are, and what each is given."""

    at_once: int  # for which there is room
    actors: int  # once the cluster has grown, if it does
    cpus: float
    gpus: float


def pool(options: EngineOptions, tasks: int) -> Pool:
    """The actors of the options on the cluster that is connected; by default one for each GPU, or for each CPU.

    Args:
        options: of the engine.
        tasks: how many there are, at most one actor for each.

    Raises:
        TamingError: no node has what one actor needs.
    """
    nodes: list[Mapping[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return pool_of(options, tasks, [(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes])


def pool_of(options: EngineOptions, tasks: int, nodes: list[tuple[float, float]]) -> Pool:
    """`pool` for nodes that have so many CPUs and GPUs.

    >>> pool_of(EngineOptions("ray"), 100, [(8, 0), (16, 4), (16, 4)])
    Pool(at_once=8, actors=8, cpus=4, gpus=1)
    >>> pool_of(EngineOptions("ray", actors=4), 100, [(2, 0)])
    Pool(at_once=4, actors=4, cpus=0.5, gpus=0)
    """
    gpus = options.gpus if options.gpus is not None else min(1, max(gpu for _, gpu in nodes))
    cpus = options.cpus if options.cpus is not None else default_cpus(options, gpus, nodes)
    room = sum(places(cpu, gpu, cpus, gpus) for cpu, gpu in nodes)
    if not room:
        most = max(gpu for _, gpu in nodes), max(cpu for cpu, _ in nodes)
        raise TamingError(f"No node of the cluster has {gpus:g} GPUs and {cpus:g} CPUs for one actor; the most are "
                          f"{most[0]:g} and {most[1]:g}. Correct --gpus and --cpus, or add a node.")  # fmt: skip
    actors = min(options.actors or room, tasks)
    return Pool(min(actors, room), actors, cpus, gpus)


def places(cpu: float, gpu: float, cpus: float, gpus: float) -> int:
    """The actors for which a node has room; those without CPUs and GPUs count as one per CPU."""
    return int(min(cpu / cpus if cpus else cpu, gpu / gpus if gpus else cpu / (cpus or 1)))


def default_cpus(options: EngineOptions, gpus: float, nodes: list[tuple[float, float]]) -> float:
    """An even share of the CPUs that lie beside GPUs, or one, or less where more actors are asked for than CPUs."""
    beside = [cpu * gpus / gpu for cpu, gpu in nodes if gpu >= gpus > 0]
    share = min(beside) if beside else sum(cpu for cpu, _ in nodes) / (options.actors or 1)
    most = share if beside else min(1, share)
    return int(most) if most >= 1 else int(most * 100) / 100  # Ray counts whole CPUs, or parts of one
