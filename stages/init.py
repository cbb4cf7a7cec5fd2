"""-> a new project"""

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder; created if it does not exist.")],
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            help="mini (runs on a CPU, no downloads), or sd15, sdxl, sd3, flux; with -ip-adapter for other programs.",
        ),
    ] = "mini",
    memory: Annotated[
        int | None,
        typer.Option("--memory", help="GB of the training GPU: 8, 16, 24 or 80. Default: the profile unchanged."),
    ] = None,
) -> None:
    """Create a project: params.yaml, the five stages for `dvc repro`, and a folder for photos.

    \b
    Example: taming init my-project --profile sd15 --memory 16
    """
    from importlib.util import find_spec

    from taming_core.projects.project import project_files, write_project

    write_project(folder, project_files(profile, memory))
    print(f"{folder}: put photos into {folder / 'data/raw'}, one folder per object. Then, in {folder}:")
    print("  taming doctor           # what is missing on this machine, and whether training fits in memory")
    if find_spec("dvc") is None:
        print("  pip install 'taming[dvc]'")
    print("  dvc init --no-scm       # once; or `git init && dvc init` to keep it in git")
    print("  dvc repro")
