"""speed measurements"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from stages.options import AnyPath, CacheDir, Device, ParamsFile, Workers, local_path, location

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Measure the speed of training, loading and generation, and the memory of detection.",
)

Rounds = Annotated[
    int, typer.Option("--rounds", min=1, help="Measurements of each loop, in turns; medians are printed.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", parser=local_path, metavar="<path>", help="A JSON file for the results."),
]
RowsFolder = Annotated[
    AnyPath | None,
    typer.Option(
        "--in", parser=location, metavar="<path>", help="A folder of rows, or its URL. Default: random images."
    ),
]


@app.command("train")
def train(
    rows: RowsFolder = None,
    params: ParamsFile = None,
    random: Annotated[
        bool, typer.Option("--random", help="Random weights at the networks' full sizes; nothing is downloaded.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Default: that of the params.")] = None,
    tune: Annotated[
        str | None, typer.Option("--tune", help="adapter, lora or whole. Default: that of the params.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps per round.")] = 10,
    rounds: Rounds = 3,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """Compare our training loop with the plain loop of public scripts, which computes everything in every step.

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
    opened = None if rows is None else load_rows(rows.resolve() if isinstance(rows, Path) else rows, "train")

    from taming_core.benchmarks import speed
    from taming_core.model.subject_model import subject_model
    from taming_core.training import loop
    from taming_core.training.start import starting_pipeline
    from taming_core.weights.device import pick_device

    p = speed.comparison_params(settings.train, batch_size, tune)
    settings = settings.model_copy(update={"train": p})
    accelerator = loop.accelerator_for(pick_device(device), p.precision)
    model = speed.random_model(settings) if random else subject_model(starting_pipeline(p).components)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):  # the caches are deleted with it
        data = speed.random_rows(Path("rows"), settings.materialize) if opened is None else opened
        print_results([vars(s) for s in speed.compare(model, data, accelerator, p, steps, rounds)], out)


@app.command("data")
def data(
    rows: Annotated[
        AnyPath | None,
        typer.Option(
            "--in",
            parser=location,
            metavar="<path>",
            help="A folder of rows, or with --stage of photos. Default: both are generated.",
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option("--stage", help="detect, caption or materialize: measure that stage instead of the loader."),
    ] = None,
    objects: Annotated[
        AnyPath | None,
        typer.Option(
            "--objects",
            parser=location,
            metavar="<path>",
            help="The table of `taming detect`, for caption and materialize.",
        ),
    ] = None,
    captions: Annotated[
        AnyPath | None,
        typer.Option(
            "--captions", parser=location, metavar="<path>", help="The table of `taming caption`, for materialize."
        ),
    ] = None,
    photos: Annotated[
        int | None,
        typer.Option("--photos", min=1, help="Photos that --stage is measured on, held decoded. Default: 256."),
    ] = None,
    workers: Workers = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Measurements of --stage; medians are printed. Default: 3.")
    ] = None,
    params: ParamsFile = None,
    cache_dir: CacheDir = None,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """Measure how many rows per second the loader of training decodes, or a data stage beside its limits.

    With --stage: the models alone on photos that are decoded already, one process that decodes, and the stage itself,
    in turns. The stage can be as fast as the models, or as all its workers together, whichever is slower.

    \b
    Example: taming bench data --in data/rows
    Example: taming bench data --stage detect --in data/raw
    """
    from taming_core.errors import TamingError

    of_stage = {
        "--objects": objects,
        "--captions": captions,
        "--photos": photos,
        "--workers": workers,
        "--rounds": rounds,
    }
    given = [flag for flag, value in of_stage.items() if value is not None] + ["--device"] * (device != "auto")
    if stage is None and given:
        raise TamingError(f"{given[0]} has no effect without --stage. Leave it out, or name a stage.")
    if stage is not None and cache_dir is not None:
        raise TamingError("--cache-dir is for rows, and has no effect with --stage. Leave one of them out.")
    if stage is None:
        measure_loader(rows, params, cache_dir, out)
    else:
        tables = {"objects": objects, "captions": captions}
        measure_stage(stage, rows, tables, photos or 256, workers, rounds or 3, params, device, out)


def measure_loader(rows: AnyPath | None, params: Path | None, cache_dir: Path | None, out: Path | None) -> None:
    """Rows per second of the loader of training."""
    import tempfile

    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.storage.cache import use_cache_dir
    from taming_core.tables.rows import load_rows

    settings = load_params(params)
    arguments.require_models(settings.train)
    use_cache_dir(cache_dir, *([] if rows is None else [rows]))
    opened = None if rows is None else load_rows(rows, "train")

    from taming_core.benchmarks import speed
    from taming_core.model.subject_model import subject_model
    from taming_core.training.batches import ExampleSource
    from taming_core.training.start import starting_pipeline

    p = speed.comparison_params(settings.train, None, None)
    pipeline = starting_pipeline(p)
    with tempfile.TemporaryDirectory() as folder:
        data = speed.random_rows(Path(folder), settings.materialize) if opened is None else opened
        print_results(speed.loading_speed(ExampleSource.of(subject_model(pipeline.components), data, p)), out)


def measure_stage(
    stage: str, raw: AnyPath | None, tables: Mapping[str, AnyPath | None], photos: int, workers: int | None,
    rounds: int, params: Path | None, device: str, out: Path | None,
) -> None:  # fmt: skip
    """Photos per second of a data stage, of its models and of a process that decodes."""
    import tempfile

    from stages.world import world
    from taming_core.params import arguments
    from taming_core.params.load import load_params

    require_tables(stage, raw, tables)
    settings = load_params(params)
    arguments.require_device(device)
    arguments.require_models(*([] if stage == "materialize" else [getattr(settings, stage)]))

    from taming_core.benchmarks import stages

    with tempfile.TemporaryDirectory() as folder:
        if raw is None:
            raw, tables = Path(folder) / "photos", {name: Path(folder) / f"{name}.parquet" for name in tables}
            world(raw, photos, truth=Path(folder), params=params, device=device)
        count = stages.usual_workers(stage) if workers is None else workers
        with stages.work_of(stage, raw, tables, device, settings) as work:
            print_results([vars(s) for s in stages.measure(work, photos, count, rounds)], out)


def require_tables(stage: str, raw: AnyPath | None, tables: Mapping[str, AnyPath | None]) -> None:
    """Check the tables that a stage is measured with.

    Raises:
        TamingError: there is no such stage, or it needs a table that is not given, or ignores one that is.
    """
    from taming_core.errors import TamingError

    read = {"detect": (), "caption": ("objects",), "materialize": ("objects", "captions")}
    if stage not in read:
        raise TamingError(f"--stage {stage} is unknown. Use {', '.join(read)}.")
    for name, table in tables.items():
        if table is not None and (raw is None or name not in read[stage]):
            raise TamingError(
                f"--{name} has no effect on --stage {stage}{'' if raw else ' without --in'}. Leave it out."
            )
        if table is None and raw is not None and stage == "materialize":
            raise TamingError(f"--stage materialize needs --{name} beside --in. Name the table, or leave --in out.")


@app.command("generate")
def generate(
    encoder: Annotated[str, typer.Option("--encoder", help="The folder that `taming train` wrote, or mini.")] = "mini",
    count: Annotated[int, typer.Option("--count", min=1, help="Images per batch.")] = 1,
    params: ParamsFile = None,
    rounds: Rounds = 3,
    device: Device = "auto",
    out: Out = None,
) -> None:
    """Compare generation with an object with the stock diffusers pipeline of the same base.

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
    cast(Any, pipeline).set_progress_bar_config(disable=True)
    side = pipeline.object_encoder.image_size
    subject = Image.new("RGBA", (side, side), (200, 40, 40, 255))
    prompt = "a photo of a <object> on the beach"
    speeds = speed.generation_speed(pipeline, subject, prompt, count, p.sampling, rounds)
    print_results([vars(s) for s in speeds], out)


@app.command("start")
def start(
    rounds: Rounds = 3,
    only: Annotated[list[str] | None, typer.Option("--only", help="A command; repeatable.")] = None,
    out: Out = None,
) -> None:
    """Measure the start-up time of commands with `mini`, and of the bare import of torch and a diffusers network.

    `generate` and `doctor` are measured to their end, the others until their first batch. Processes run in turns, and
    medians are printed.

    \b
    Example: taming bench start --rounds 5
    """
    import tempfile

    from taming_core.benchmarks import startup
    from taming_core.errors import TamingError

    if unknown := set(only or ()) - set(startup.NAMES):
        raise TamingError(f"--only {min(unknown)} is unknown. Name some of {', '.join(startup.NAMES)}.")
    with tempfile.TemporaryDirectory() as folder:
        print_results([vars(t) for t in startup.measure(Path(folder), rounds, only)], out)


@app.command("memory")
def memory(
    counts: Annotated[
        list[int] | None, typer.Option("--photos", min=1, help="Photos of a run; repeatable. Default: 1, 8 and 32.")
    ] = None,
    params: ParamsFile = None,
    out: Out = None,
) -> None:
    """Measure the peak memory of `taming detect` on camera photos of 24 and 108 megapixels.

    Each run is a process of its own; runs on photos of 256 pixels show what the program needs by itself.

    \b
    Example: taming bench memory --photos 1 --photos 8
    """
    import tempfile

    from taming_core.benchmarks import peak_memory

    with tempfile.TemporaryDirectory() as folder:
        found = peak_memory.measure(Path(folder), counts or [1, 8, 32], params)
        print_results([vars(one) for one in found], out)


def print_results(results: Sequence[Mapping[str, Any]], out: Path | None) -> None:
    """Print the results as a table, and write them as JSON if `out` is given."""
    from rich.console import Console
    from rich.table import Table

    from taming_core.files import write_json

    table = Table(*(name.replace("_", " ") for name in results[0]))
    for result in results:
        table.add_row(*(format_value(value) for value in result.values()))
    Console().print(table)
    if out is not None:
        write_json(out, list(results))


def format_value(value: object) -> str:
    """A value as text: floats with three digits, None empty."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
