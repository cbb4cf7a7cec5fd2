"""Download the packages pinned in `sources.toml`, verify their hashes, and unpack them."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taming_core.errors import TamingError

SOURCES = Path(__file__).with_name("sources.toml")


@dataclass(frozen=True)
class Design:
    """An emoji set: an npm package."""

    design: str  # our short name: "noto"
    title: str
    author: str
    licence: str  # SPDX, of the artwork
    home: str
    package: str
    version: str
    integrity: str  # "sha512-" and base64, as npm publishes it
    files: str  # path of the artwork in the package; {} is replaced by the code points

    @property
    def source(self) -> str:
        """The package and version as in the tables: "@twemoji/svg@15.0.0"."""
        return f"{self.package}@{self.version}"

    @property
    def archive(self) -> str:
        """The file name that `npm pack` writes."""
        return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"


@dataclass(frozen=True)
class Wallpapers:
    """A Debian package of wallpapers."""

    package: str
    version: str
    sha256: str
    folder: str  # of the pictures in the package
    home: str
    evidence: str  # file that states the licence of each picture

    @property
    def source(self) -> str:
        """The package and version as in the tables: "mate-backgrounds=1.26.0-1"."""
        return f"{self.package}={self.version}"

    @property
    def archive(self) -> str:
        """The file name that `apt-get download` writes."""
        return f"{self.package}_{self.version.replace(':', '%3a')}_all.deb"


@dataclass(frozen=True)
class Photograph:
    """A wallpaper of a scene."""

    scene: str
    package: str
    file: str
    author: str
    licence: str
    closest: float  # the smallest crop, as a fraction of the picture's shorter side


@dataclass(frozen=True)
class Sources:
    """All sources of the artwork."""

    designs: tuple[Design, ...]
    wallpapers: tuple[Wallpapers, ...]
    photographs: tuple[Photograph, ...]


def load_sources(path: Path = SOURCES) -> Sources:
    """Read sources.toml."""
    kinds: dict[str, Callable[..., Any]] = {"designs": Design, "wallpapers": Wallpapers, "photographs": Photograph}
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    return Sources(**{name: tuple(kind(**entry) for entry in entries[name]) for name, kind in kinds.items()})


def npm_package(design: Design, cache: Path) -> Path:
    """Download and unpack an emoji set; returns its folder."""
    archive = cache / design.archive
    if not archive.is_file():
        _download(archive, ["npm", "pack", "--silent", design.source])
    require_hash(archive, design.integrity)
    return _unpacked(archive, _untar) / "package"


def debian_package(wallpapers: Wallpapers, cache: Path) -> Path:
    """Download and unpack a wallpaper package; returns the folder of its pictures."""
    archive = cache / wallpapers.archive
    if not archive.is_file():
        _download(archive, ["apt-get", "download", wallpapers.source])
    digest = base64.b64encode(bytes.fromhex(wallpapers.sha256)).decode()
    require_hash(archive, f"sha256-{digest}")
    return _unpacked(archive, _undeb) / wallpapers.folder


def require_hash(archive: Path, integrity: str) -> None:
    """Raise TamingError unless the file has the hash `integrity`: the algorithm, a dash and base64."""
    algorithm, expected = integrity.split("-", 1)
    found = base64.b64encode(hashlib.new(algorithm, archive.read_bytes()).digest()).decode()
    if found != expected:
        raise TamingError(f"{archive} is not the file that {SOURCES.name} pins. Delete it to fetch it again.")


def _download(archive: Path, command: list[str]) -> None:
    """Run the package manager in the folder of the archive, where it writes the file."""
    remedy = f"Run `{' '.join(command)}` where that works and put {archive.name} into {archive.parent}."
    if shutil.which(command[0]) is None:
        raise TamingError(f"{archive} is missing, and so is {command[0]}. {remedy}")
    archive.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=archive.parent, capture_output=True, text=True)
    if done.returncode or not archive.is_file():
        raise TamingError(f"{command[0]} could not fetch {archive.name}: {done.stderr.strip()[-300:]}\n{remedy}")


def _unpacked(archive: Path, unpack: Callable[[Path, Path], None]) -> Path:
    """Unpack an archive beside itself, unless the folder exists; returns the folder."""
    folder = archive.with_name(archive.name.removesuffix(archive.suffix))
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        unpack(archive, part)
        part.rename(folder)
    return folder


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        # Python before 3.11.4 has no filters; the archive's hash was compared before.
        filters: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, **filters)


def _undeb(archive: Path, folder: Path) -> None:
    if shutil.which("dpkg-deb") is None:
        name = archive.name.removesuffix(archive.suffix)
        raise TamingError(
            f"{archive} cannot be unpacked: dpkg-deb is missing. "
            f"Run `dpkg-deb -x {archive.name} {name}` where it works and put the folder into {archive.parent}."
        )
    subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
