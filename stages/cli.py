"""The command table; `main` is the `taming` entry point."""

import sys

import typer

from stages import caption, detect, evaluate, generate, inspect, materialize, train, world
from taming_core.errors import TamingError

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="Photos in, a customization encoder you own out. The journey: detect, caption, materialize, train, eval.",
)
app.command("detect")(detect.detect)
app.command("caption")(caption.caption)
app.command("materialize")(materialize.materialize)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("generate")(generate.generate)
app.command("inspect")(inspect.inspect)
app.command("world")(world.world)


def main() -> None:
    """Run one command; what the user can fix is one line on standard error and exit status 1."""
    try:
        app()
    except TamingError as error:
        print(f"taming: {error}", file=sys.stderr)
        sys.exit(1)
