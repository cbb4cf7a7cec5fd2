"""The command table; `main` is the `taming` entry point."""

import sys
from typing import Annotated

import typer

from stages import bench, caption, detect, doctor, evaluate, export, generate, init, inspect, materialize, train, world
from stages.process import prepare
from taming_core.errors import TamingError

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="Train an object encoder for a text-to-image model. The stages: detect, caption, materialize, train, eval.",
)


def show_version(requested: bool) -> None:
    """Print the version and exit, if it is requested."""
    if requested:
        from importlib.metadata import version

        print(version("taming"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""


app.command("init")(init.init)
app.command("doctor")(doctor.doctor)
app.command("detect")(detect.detect)
app.command("caption")(caption.caption)
app.command("materialize")(materialize.materialize)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("generate")(generate.generate)
app.command("export")(export.export)
app.command("inspect")(inspect.inspect)
app.command("world")(world.world)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run one command; an error that the user can fix is one line on standard error and exit status 1."""
    prepare()
    try:
        app()
    except TamingError as error:
        print(f"taming: {error}", file=sys.stderr)
        sys.exit(1)
