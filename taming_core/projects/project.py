"""The files of a new project: params, the DVC graph of the five stages, a folder for photos, and no overrides yet."""

from pathlib import Path

from taming_core.errors import TamingError
from taming_core.files import require_out, write_text
from taming_core.overrides import table
from taming_core.projects import profiles

OVERRIDES = f"data/{table.NAME}"


def project_files(profile: str, memory: int | None) -> dict[str, str]:
    """The text of every file of a new project, by its path in the project.

    Raises:
        TamingError: there is no such profile, or it has no preset for a GPU of this size.
    """
    if profile not in profiles.PROFILES:
        raise TamingError(f"There is no profile {profile}. Use --profile {' or '.join(profiles.PROFILES)}.")
    templates = profiles.folder("project")
    return {
        "params.yaml": profiles.params_text(profile, memory),
        "dvc.yaml": (templates / "dvc.yaml").read_text(encoding="utf-8"),
        "data/raw/README.md": (templates / "raw.md").read_text(encoding="utf-8"),
        ".gitignore": (templates / "gitignore").read_text(encoding="utf-8"),
    }


def write_project(folder: Path, files: dict[str, str]) -> None:
    """Write a new project; other files in the folder stay unchanged.

    Raises:
        TamingError: one of the files exists, or the folder cannot be written; then nothing is written.
    """
    require_out(folder)
    if folder.exists() and not folder.is_dir():
        raise TamingError(f"{folder} is a file. Name a folder for the project.")
    for name in (*files, OVERRIDES):
        if (folder / name).exists():
            raise TamingError(f"{folder / name} exists. Name another folder, or remove the file first.")
    for name, text in files.items():
        write_text(folder / name, text)
    table.write(folder / OVERRIDES, [])
