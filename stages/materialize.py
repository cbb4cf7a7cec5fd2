"""captions -> rows"""

from typing import Annotated

import typer

from stages.options import (
    CAPTIONS,
    OBJECTS,
    RAW,
    ROWS,
    Actors,
    AnyPath,
    Cpus,
    Engine,
    Overrides,
    ParamsFile,
    RawFolder,
    RayAddress,
    Workers,
    location,
)


def materialize(
    raw: RawFolder = RAW,
    objects: Annotated[
        AnyPath,
        typer.Option("--objects", parser=location, metavar="<path>", help="The table of `taming detect`, or its URL."),
    ] = OBJECTS,
    captions: Annotated[
        AnyPath,
        typer.Option(
            "--captions", parser=location, metavar="<path>", help="The table of `taming caption`, or its URL."
        ),
    ] = CAPTIONS,
    regularization: Annotated[
        AnyPath | None,
        typer.Option(
            "--regularization",
            parser=location,
            metavar="<path>",
            help="Folder of text-image pairs, or its URL: photos and metadata.jsonl.",
        ),
    ] = None,
    out: Annotated[
        AnyPath,
        typer.Option(
            "--out",
            parser=location,
            metavar="<path>",
            help="The output folder of rows, or its URL; replaced as a whole. OUT-dropped.parquet has the dropped "
            "ones.",
        ),
    ] = ROWS,
    params: ParamsFile = None,
    engine: Engine = "local",
    workers: Workers = None,
    ray_address: RayAddress = None,
    actors: Actors = None,
    cpus: Cpus = None,
    overrides: Overrides = None,
) -> None:
    """Join photos, objects and captions into training rows, a folder that Hugging Face datasets can load.

    No identity is in more than one of the splits train, validation and test. After a crash the same command continues
    where it stopped. What a person said of objects in the table of overrides counts.

    \b
    Example: taming materialize --in data/raw --regularization data/regularization --out data/rows
    """
    from collections import Counter
    from functools import partial

    from taming_core.drop_reasons import OBJECT_DROPPED
    from taming_core.engine.run import run
    from taming_core.engine.work import ShardWork
    from taming_core.files import remove, replace_folder
    from taming_core.fingerprints import fingerprint
    from taming_core.locks import exclusive
    from taming_core.overrides.corrected import corrected
    from taming_core.overrides.table import find
    from taming_core.params import arguments
    from taming_core.params.engine import EngineOptions, for_device
    from taming_core.params.load import load_params
    from taming_core.progress import track_shards, track_to
    from taming_core.rows import index, shortfalls, sources, splits
    from taming_core.rows.making import RowMaker
    from taming_core.tables import drop_counts, schema, shards
    from taming_core.tables.rows import dropped_table, require_own_rows

    settings = load_params(params)
    options = for_device(EngineOptions(engine, workers, ray_address, actors, None, cpus), "cpu")
    p = settings.materialize
    overrides = find(objects, overrides)
    arguments.require_rows_out(out, raw, objects, captions, regularization, overrides)
    require_own_rows(out)
    shards.require_runs()
    with exclusive(out, dropped_table(out)), corrected(objects, overrides, out) as fixed:
        objects = fixed.table or objects
        inputs = sources.MaterializeInputs(raw, objects, captions, regularization)
        state = shards.state_folder(out, f"materialize-{fingerprint(p, schema.VERSION, *sources.state_of(inputs))}")
        with exclusive(state):
            found = sources.list_sources(state, inputs, p, options)
            maker = RowMaker(raw, regularization, found.index, p)
            stamped = schema.add_fingerprint(schema.ROWS, fingerprint(p))
            seen = tuple(path for path in (raw, objects, captions, regularization, found.index) if path is not None)
            work = ShardWork(found, state / "shards", stamped, maker.prepare, maker.load, sources.BATCH, seen)
            counts = track_shards(run(work, sources.with_all_cores(options, len(found))), "materialize", len(found))
            shard, count = partial(shards.shard_path, work.folder), found.shard_count()
            shards.require_shards(work.folder, count)
            views = splits.list_views(sources.local(state) / "views.sqlite", map(shard, range(count)), count)
            track_to(
                splits.write_splits(map(shard, range(count)), state / "rows", stamped, views, p), "references", count
            )
            splits.write_dropped(shard, dropped_table(out), stamped, views)
            counts += Counter({OBJECT_DROPPED: index.count_dropped(found.db)})
            headline, notes = splits.headline(views), sources.notes_of(found.db)
            replace_folder(state / "rows", out)
            for folder in {state, sources.local(state)}:
                remove(folder)
    drop_counts.print_counts(counts, f"{out}: {headline}")
    for line in (*shortfalls.shortfalls(out, settings), *notes, *fixed.notes):
        print(line)
