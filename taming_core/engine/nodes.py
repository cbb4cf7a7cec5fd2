"""What a node of a cluster must have in common with the machine that started the work: packages and files."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from taming_core.engine.work import ShardWork
from taming_core.errors import TamingError
from taming_core.files import read_text, write_text
from taming_core.fingerprints import versions
from taming_core.storage.paths import AnyPath, is_remote

TOKEN = ".driver"  # a file in the folder of the shards

SHARED = ("With --engine ray on several machines, photos, tables and the working directory must be in a file system "
          "that all of them mount at one place, or at URLs.")  # fmt: skip


@dataclass(frozen=True)
class NodeChecks:
    """What every node is compared with."""

    directory: Path  # the working directory, to which paths are relative
    packages: dict[str, str]  # their versions
    token: str  # in the folder of the shards, so that another folder of the same name is not mistaken for it
    witnesses: list[tuple[Path, int]]  # a file of every input, and its bytes: an empty mount point has none


def checks_of(work: ShardWork[Any, Any]) -> NodeChecks:
    """What this machine sees."""
    token = token_hex(8)
    if not is_remote(work.folder):
        write_text(Path(str(work.folder)) / TOKEN, token)
    found = [witness(path) for path in work.inputs if not is_remote(path)]
    return NodeChecks(Path.cwd(), packages(), token, [(path, path.stat().st_size) for path in found if path.is_file()])


def witness(path: AnyPath) -> Path:
    """A file that shows that a node sees a local input: itself, or the first file in it."""
    local = Path(str(path))
    below = (Path(folder) / min(names) for folder, _, names in os.walk(local) if names)
    return local if local.is_file() else next(below, local)


def require_same_node(work: ShardWork[Any, Any], checks: NodeChecks) -> None:
    """Work in the directory of the driver, and check that this node sees the same there.

    Raises:
        TamingError: it does not, or has other versions of packages; the message names the node.
    """
    require_packages(checks.packages)
    try:
        os.chdir(checks.directory)
    except OSError as error:
        raise TamingError(f"{node_name()} has no folder {checks.directory}. {SHARED}") from error
    if not is_remote(work.folder) and not holds(work.folder / TOKEN, checks.token):
        raise TamingError(f"{node_name()} does not see {work.folder.absolute()}. {SHARED}")
    for path, size in checks.witnesses:
        if not path.is_file() or path.stat().st_size != size:
            raise TamingError(f"{node_name()} does not see {path.absolute()}. {SHARED}")


def packages() -> dict[str, str]:
    """Versions of the packages that results depend on; Ray itself requires the same Python."""
    return {name: version for name, version in versions().items() if name != "python"}


def require_packages(expected: dict[str, str]) -> None:
    """Raises TamingError if a package has another version here, with which tables might differ."""
    for name, version in packages().items():
        if version != expected[name]:
            raise TamingError(f"{node_name()} has {name} {version}, and the machine of this command {expected[name]}. "
                              "Install the same versions on all nodes.")  # fmt: skip


def holds(path: AnyPath, text: str) -> bool:
    """Whether a file is there and holds this text."""
    return path.is_file() and read_text(Path(str(path))) == text


def node_name() -> str:
    """What names this node to a user."""
    return f"Node {platform.node()}"
