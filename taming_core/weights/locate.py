"""Locating pretrained models: a file, a folder, a published name, or a repository of the Hugging Face hub.

If a model is neither on this machine nor fetched, the error names the command that fetches it and where to put it.
HF_HUB_OFFLINE=1 disables the network.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from taming_core.errors import TamingError

hub: Any = huggingface_hub  # its download functions are partly untyped
WITHOUT_MINI = ("evaluate.vlm.model",)  # keys of models that the package has none for
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(/[^/]+)*")


@dataclass(frozen=True)
class PublishedWeights:
    """The weights that one key of params.yaml can name."""

    what: str  # what messages call it
    key: str
    suffixes: tuple[str, ...]
    usual: str  # the preferred file in a folder with several
    published: Mapping[str, str]  # common name -> URL of the authors' file
    licence: str  # of the published weights


def cache_folder() -> Path:
    """The package's cache: `taming` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taming"


def weights_folder() -> Path:
    """Where weights are looked up by file name, after the working directory."""
    return cache_folder() / "weights"


def find(spec: str, role: PublishedWeights) -> Path:
    """The file or folder of `spec`: a path, a published name, `owner/repo` or `owner/repo/file` of the hub.

    `weights_file` picks the file of a folder.

    Raises:
        TamingError: it does not exist; the message names what to fetch and where to put it.
    """
    if (path := find_local(spec, role)) is not None:
        return path
    if is_hub_name(spec, role.suffixes):
        return _from_hub(spec, role)
    if url := published_url(spec, role):
        raise TamingError(
            f"There is no {role.what} {spec}: {PurePosixPath(url).name} is neither in the working directory nor in "
            f"{weights_folder()}. Download {url} into one of them (licence {role.licence}), or set {role.key} to mini "
            "or to the path of a file."
        )
    raise TamingError(
        f"There is no {role.what} {spec}. Put the file there or into {weights_folder()}, or set {role.key} to mini, to "
        f"a {' or '.join(role.suffixes)} file, to a published name such as {next(iter(role.published))}, "
        "or to owner/repo/file of the hub."
    )


def find_local(spec: str, role: PublishedWeights) -> Path | None:
    """The file or folder of `spec` on this machine: a path, or the file of a published name, as its authors call it or
    by that name: isnet.onnx is `isnet`.
    """
    url = published_url(spec, role)
    names = [PurePosixPath(url).name, *(f"{spec}{suffix}" for suffix in role.suffixes)] if url else []
    return next(filter(None, map(find_on_disk, [spec, *names])), None)


def published_url(spec: str, role: PublishedWeights) -> str | None:
    """The URL of the authors' file of a published name, with or without its suffix; None for any other spec."""
    name = "" if "/" in spec else spec  # a path is not a published name
    return role.published.get(PurePosixPath(name).stem if name.endswith(role.suffixes) else name)


def find_on_disk(name: str, *near: Path) -> Path | None:
    """An existing path of that name: as given, else in the folders `near`, else in `weights_folder()`."""
    for folder in (Path(), *near, weights_folder()):
        if (path := folder / Path(name).expanduser()).exists():
            return path
    return None


def is_hub_name(spec: str, suffixes: Sequence[str] = ()) -> bool:
    """Whether `spec` can be `owner/repo` or `owner/repo/file`; `folder/weights.pt` is a path."""
    return bool(HUB_NAME.fullmatch(spec)) and not (spec.count("/") == 1 and spec.endswith(tuple(suffixes)))


def weights_file(path: Path, role: PublishedWeights) -> Path:
    """The weights file of a folder; a file is returned as it is."""
    if not path.is_dir():
        return path
    return path / _choose([p.name for p in sorted(path.iterdir())], str(path), role)


def _choose(names: Sequence[str], where: str, role: PublishedWeights) -> str:
    """The only name with one of the suffixes, else the usual one."""
    matching = [name for name in names if name.endswith(role.suffixes) and "/" not in name]
    if len(matching) == 1 or role.usual in matching:
        return role.usual if role.usual in matching else matching[0]
    if not matching:
        raise TamingError(f"{where} holds no {' or '.join(role.suffixes)} file. Set {role.key} to one that does.")
    raise TamingError(
        f"{where} holds {len(matching)} {role.what}s. Set {role.key} to one of them, such as {where}/{matching[0]}."
    )


def _from_hub(spec: str, role: PublishedWeights) -> Path:
    """A file of a repository, or its weights: the folder if it has a config.json, else the file."""
    owner, name, *inside = spec.split("/")
    repo = f"{owner}/{name}"
    try:
        if inside:
            return Path(hub.hf_hub_download(repo, "/".join(inside)))
        names = _names_in(repo)
        weights = Path(hub.hf_hub_download(repo, _choose(names, repo, role)))
        return Path(hub.hf_hub_download(repo, "config.json")).parent if "config.json" in names else weights
    except (OSError, ValueError, HfHubHTTPError) as error:
        fetch = f"hf download {repo} {'/'.join(inside)}".rstrip()
        raise TamingError(not_found_message(spec, role.what, role.key, fetch)) from error


def _names_in(repo: str) -> list[str]:
    """The files of a repository; offline, those in the cache."""
    try:
        return HfApi().list_repo_files(repo)
    except (OfflineModeIsEnabled, HfHubHTTPError, OSError):
        folder = Path(hub.snapshot_download(repo, local_files_only=True))
        return [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]


def source_of(spec: str, mini: Path) -> str:
    """The argument of `from_pretrained` for `spec`: mini's folder, the folder of a file, a folder, or a hub name."""
    path = mini if spec == "mini" else Path(spec).expanduser()
    if path.is_file():
        path = path.parent
    return str(path) if path.exists() else spec


def not_found_message(spec: str, what: str, key: str, fetch: str | None = None) -> str:
    """The error message for a model that cannot be loaded from `spec`, a path or a hub name."""
    mini = "" if key in WITHOUT_MINI else "mini, to "
    if not is_hub_name(spec) or Path(spec).expanduser().exists():
        return (
            f"There is no {what} {spec}. Set {key} to {mini}a folder with its config.json and model.safetensors, "
            "or to a hub name."
        )
    return (
        f"There is no {what} {spec} on this machine, and it could not be fetched. "
        f"Run `{fetch or f'hf download {spec}'}` where there is a network, "
        f"or set {key} to {mini.replace(',', ' or')}the path of a downloaded model."
    )
