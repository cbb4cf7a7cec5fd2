"""Where a pretrained model lies: a file, a folder, a published name, or a repository of the Hugging Face hub.

Nothing here knows what a model is. Whoever is not on this machine and cannot be fetched is named together with what
fetches it and where it belongs. The hub's own switch, HF_HUB_OFFLINE=1, keeps everything from the network.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from taming_core.errors import TamingError

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(/[^/]+)*")


@dataclass(frozen=True)
class PublishedWeights:
    """The weights that one key of params.yaml can name."""

    what: str  # for messages
    key: str
    suffixes: tuple[str, ...]
    usual: str  # the file to take from a folder with several
    published: Mapping[str, str]  # what people call a file -> where its authors have it


def cache_folder() -> Path:
    """Where this package may write without being told: `taming` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taming"


def weights_folder() -> Path:
    """Where files are looked up by their names, after the working directory."""
    return cache_folder() / "weights"


def find(spec: str, role: PublishedWeights) -> Path:
    """The file or folder that `spec` means: a path, a published name, `owner/repo` or `owner/repo/file` of the hub.

    A folder comes back as it is; `weights_in` opens it. Raises TamingError if there is nothing of that name, saying
    what to fetch and where to put it.
    """
    known = "" if "/" in spec else spec  # a path is nobody's published name
    url = role.published.get(PurePosixPath(known).stem if known.endswith(role.suffixes) else known)
    file = url.rsplit("/")[-1] if url else spec
    if (there := on_disk(spec) or on_disk(file)) is not None:
        return there
    if is_hub_name(spec, role.suffixes):
        return _from_hub(spec, role)
    if url:
        raise TamingError(
            f"There is no {role.what} {spec}: {file} is neither in the working directory nor in "
            f"{weights_folder()}. Download {url} into one of them, or set {role.key} to mini or to the path of a file."
        )
    raise TamingError(
        f"There is no {role.what} {spec}. Put the file there or into {weights_folder()}, or set {role.key} to mini, to "
        f"a {' or '.join(role.suffixes)} file, to a published name such as {next(iter(role.published))}, "
        "or to owner/repo/file of the hub."
    )


def on_disk(name: str, *near: Path) -> Path | None:
    """The file or folder of that name: a path as it stands, else one in the folders `near`, else in ours."""
    for folder in (Path(), *near, weights_folder()):
        if (path := folder / Path(name).expanduser()).exists():
            return path
    return None


def is_hub_name(spec: str, suffixes: Sequence[str] = ()) -> bool:
    """Whether this may be `owner/repo` or `owner/repo/file`; `folder/weights.pt` is a path."""
    return bool(HUB_NAME.fullmatch(spec)) and not (spec.count("/") == 1 and spec.endswith(tuple(suffixes)))


def weights_in(path: Path, role: PublishedWeights) -> Path:
    """The weights file of a folder; a file is its own."""
    if not path.is_dir():
        return path
    return path / _chosen([p.name for p in sorted(path.iterdir())], str(path), role)


def _chosen(names: Sequence[str], where: str, role: PublishedWeights) -> str:
    """The only name with one of the suffixes, else the usual one."""
    fitting = [name for name in names if name.endswith(role.suffixes) and "/" not in name]
    if len(fitting) == 1 or role.usual in fitting:
        return role.usual if role.usual in fitting else fitting[0]
    if not fitting:
        raise TamingError(f"{where} holds no {' or '.join(role.suffixes)} file. Set {role.key} to one that does.")
    raise TamingError(
        f"{where} holds {len(fitting)} {role.what}s. Set {role.key} to one of them, such as {where}/{fitting[0]}."
    )


def _from_hub(spec: str, role: PublishedWeights) -> Path:
    """A file of a repository, or the folder of its weights where a config.json stands beside them."""
    owner, name, *inside = spec.split("/")
    repo = f"{owner}/{name}"
    try:
        if inside:
            return Path(hf_hub_download(repo, "/".join(inside)))
        names = _names_in(repo)
        weights = Path(hf_hub_download(repo, _chosen(names, repo, role)))
        return Path(hf_hub_download(repo, "config.json")).parent if "config.json" in names else weights
    except (OSError, ValueError, HfHubHTTPError) as error:
        fetch = f"hf download {repo} {'/'.join(inside)}".rstrip()
        raise TamingError(not_found_message(spec, role.what, role.key, fetch)) from error


def _names_in(repo: str) -> list[str]:
    """The files of a repository: all of them, or those that were fetched before."""
    try:
        return HfApi().list_repo_files(repo)
    except (OfflineModeIsEnabled, HfHubHTTPError, OSError):
        folder = Path(snapshot_download(repo, local_files_only=True))
        return [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]


def source_of(spec: str, mini: Path) -> str:
    """What transformers loads `spec` from: mini's folder, the folder of a file, a folder, or a hub name."""
    path = mini if spec == "mini" else Path(spec).expanduser()
    if path.is_file():
        path = path.parent
    return str(path) if path.exists() else spec


def not_found_message(spec: str, what: str, key: str, fetch: str | None = None) -> str:
    """What to say of a model that cannot be loaded from `spec`, be it a path or a hub name."""
    if not is_hub_name(spec) or Path(spec).expanduser().exists():
        return (
            f"There is no {what} {spec}. Set {key} to mini, to a folder with its config.json and model.safetensors, "
            "or to a hub name."
        )
    return (
        f"There is no {what} {spec} on this machine, and it could not be fetched. "
        f"Run `{fetch or f'hf download {spec}'}` where there is a network, "
        f"or set {key} to mini or to the path of a downloaded model."
    )
