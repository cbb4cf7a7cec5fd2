"""The command table; `main` is the `taming` entry point."""

import sys
from typing import Annotated, NoReturn

import typer

from stages import (
    baseline,
    bench,
    caption,
    detect,
    doctor,
    evaluate,
    export,
    generate,
    init,
    inspect,
    materialize,
    studio,
    train,
    world,
)
from stages.process import prepare, use_utf8
from taming_core.errors import TamingError, explain_lost_process, explain_os_error

INTERRUPTED = 130  # 128 + SIGINT, as shells give it

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a bug has a plain traceback, which can be copied into an issue
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
app.command("baseline")(baseline.baseline)
app.command("export")(export.export)
app.command("inspect")(inspect.inspect)
app.command("studio")(studio.studio)
app.command("world")(world.world)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run one command; an error that the user can fix is one line on standard error and exit status 1.

    After Ctrl-C the exit status is 130.
    """
    use_utf8()
    prepare()
    try:
        app()
    except TamingError as error:
        fail(str(error))
    except OSError as error:
        if error.errno is None:  # not of the operating system, but of a library
            raise
        fail(explain_os_error(error))
    except RuntimeError as error:
        if (message := explain_lost_process(error)) is None:
            raise
        fail(message)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("taming: interrupted. Run the same command again: a stage goes on where it stopped.", file=sys.stderr)
        raise


def fail(message: str) -> NoReturn:
    """End the process with a message on standard error."""
    print(f"taming: {message}", file=sys.stderr)
    sys.exit(1)
