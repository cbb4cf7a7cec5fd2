"""a project in the browser"""

from pathlib import Path
from typing import Annotated

import typer


def studio(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="A project, with params.yaml and data/; or any folder, to try mini."),
    ] = Path(),
    port: Annotated[int, typer.Option("--port", min=1, max=2**16 - 1, help="Of 127.0.0.1.")] = 7860,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Open a project in the browser: its data, its runs, images of your own photos, its scores.

    The page calls what the commands call. It is served to this machine alone and needs no network. Images that are
    drawn there are in out/studio of the project. Ctrl-C ends the page; a training that was started there goes on.

    \b
    Example: taming studio
    Example: taming studio my-project --port 7861 --no-browser
    """
    from taming_core.params import arguments

    arguments.require_studio(folder)
    arguments.require_free_port(port)

    from taming_core.studio.app import serve

    serve(folder, port, browser)
