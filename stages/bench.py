"""how fast it is"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.options import Device, ParamsFile

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="How fast training, loading and drawing are here.")

Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Measurements of each loop, in turns; medians are shown.")]
Out = Annotated[Path | None, typer.Option("--out", help="A JSON file for the figures.")]
RowsFolder = Annotated[Path | None, typer.Option("--in", help="A folder of rows. Default: random pictures.")]


@app.command("train")
def train(
    rows: RowsFolder = None,
    params: ParamsFile = None,
    random: Annotated[
        bool, typer.Option("--random", help="Random weights in the networks' full sizes; nothing is fetched.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Default: the params' own.")] = None,
    tune: Annotated[str | None, typer.Option("--tune", help="adapter or whole. Default: the params' own.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of a round.")] = 10,
    rounds: Rounds = 3,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """Compare our training with the plain loop of public scripts, which computes everything in every step.

    Both train the same network on the same rows, in turns.

    \b
    Example: taming bench train --random --batch-size 8 --tune adapter
    """
    import tempfile
    from contextlib import chdir

    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.tables.rows import load_rows

    settings = load_params(params)
    arguments.require_device(device)
    arguments.require_models(*([] if random else [settings.train]))
    seen = None if rows is None else load_rows(rows.resolve(), "train")

    from taming_core.benchmarks import speed
    from taming_core.model.subject_model import subject_model
    from taming_core.training import loop
    from taming_core.training.start import starting_pipeline
    from taming_core.weights.device import pick_device

    p = speed.comparison_params(settings.train, batch_size, tune)
    settings = settings.model_copy(update={"train": p})
    accelerator = loop.accelerator_for(pick_device(device), p.precision)
    model = speed.random_model(settings) if random else subject_model(starting_pipeline(p).components)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # its caches are of no use to anybody
        seen = speed.random_rows(Path("rows"), settings.materialize) if seen is None else seen
        show(speed.compare(model, seen, accelerator, p, steps, rounds), out)


@app.command("data")
def data(rows: RowsFolder = None, params: ParamsFile = None, out: Out = None) -> None:
    """Measure how many rows a second the loader decodes.

    \b
    Example: taming bench data --in data/rows
    """
    import tempfile

    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.tables.rows import load_rows

    settings = load_params(params)
    arguments.require_models(settings.train)
    given = None if rows is None else load_rows(rows, "train")

    from taming_core.benchmarks import speed
    from taming_core.model.inputs import EncoderInputs
    from taming_core.training.start import starting_pipeline

    p = speed.comparison_params(settings.train, None, None)
    pipeline = starting_pipeline(p)
    encoder = pipeline.object_encoder
    with tempfile.TemporaryDirectory() as folder:
        seen = speed.random_rows(Path(folder), settings.materialize) if given is None else given
        words, shown = pipeline.family.token_ids, EncoderInputs.of(encoder.config)
        show(speed.loading(seen, p, encoder.image_size, words, shown), out)


@app.command("generate")
def generate(
    encoder: Annotated[str, typer.Option("--encoder", help="The folder that `taming train` wrote, or mini.")] = "mini",
    count: Annotated[int, typer.Option("--count", min=1, help="Images drawn at once.")] = 1,
    params: ParamsFile = None,
    rounds: Rounds = 3,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """Compare drawing a thing with drawing by diffusers' own pipeline of the same base.

    \b
    Example: taming bench generate --encoder mini --count 2
    """
    from PIL import Image

    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.weights.mini import encoder_folder

    p = load_params(params).generate
    encoder_folder(encoder)
    arguments.require_device(device)

    from taming_core.benchmarks import speed
    from taming_core.images.families import load_pipeline
    from taming_core.weights.device import pick_device

    pipeline = load_pipeline(encoder, pick_device(device))
    pipeline.set_progress_bar_config(disable=True)
    side = pipeline.object_encoder.image_size
    subject = Image.new("RGBA", (side, side), (200, 40, 40, 255))
    show(speed.drawing(pipeline, subject, "a photo of a <object> on the beach", count, p.sampling, rounds), out)


@app.command("start")
def start(
    rounds: Rounds = 3,
    only: Annotated[list[str] | None, typer.Option("--only", help="A command; may be given again.")] = None,
    out: Out = None,
) -> None:
    """Measure how long commands take to start, on `mini`, beside the bare import of torch and a network of diffusers.

    `generate` and `doctor` are measured to their end, the others until their first batch begins. Processes run in
    turns, and medians are shown.

    \b
    Example: taming bench start --rounds 5
    """
    import tempfile

    from taming_core.benchmarks import startup
    from taming_core.errors import TamingError

    if unknown := set(only or ()) - set(startup.NAMES):
        raise TamingError(f"--only {min(unknown)} is unknown. Name some of {', '.join(startup.NAMES)}.")
    with tempfile.TemporaryDirectory() as folder:
        show(startup.measure(Path(folder), rounds, only), out)


def show(found: Sequence[Any], out: Path | None) -> None:
    """Print the figures as a table, and write them down."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    rows = [dict(one) if isinstance(one, Mapping) else asdict(one) for one in found]
    table = Table(*(name.replace("_", " ") for name in rows[0]))
    for row in rows:
        table.add_row(*(said(value) for value in row.values()))
    Console().print(table)
    if out is not None:
        part = out.with_name(out.name + ".part")
        part.write_text(json.dumps(rows, indent=2) + "\n")
        part.replace(out)


def said(value: Mapping[str, Any] | float | str | None) -> str:
    """A figure as it stands in the table."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
