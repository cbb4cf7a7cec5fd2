"""A project of one's own: params, the graph of the five stages, and a place for photos."""

from pathlib import Path

from taming_core.errors import TamingError
from taming_core.projects import profiles


def project_files(profile: str, memory: int | None) -> dict[str, str]:
    """The text of every file of a new project, by its path in the project.

    Raises:
        TamingError: there is no such profile, or it has nothing for a GPU of this size.
    """
    if profile not in profiles.PROFILES:
        raise TamingError(f"There is no profile {profile}. Use --profile {' or '.join(profiles.PROFILES)}.")
    kept = profiles.folder("project")
    return {
        "params.yaml": profiles.params_text(profile, memory),
        "dvc.yaml": (kept / "dvc.yaml").read_text(encoding="utf-8"),
        "data/raw/README.md": (kept / "raw.md").read_text(encoding="utf-8"),
        ".gitignore": (kept / "gitignore").read_text(encoding="utf-8"),
    }


def write_project(folder: Path, files: dict[str, str]) -> None:
    """Write a new project; what lies beside its files in the folder stays as it is.

    Raises:
        TamingError: one of the files is there already; then nothing is written.
    """
    for name in files:
        if (folder / name).exists():
            raise TamingError(f"{folder / name} exists. Name another folder, or remove the file first.")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
