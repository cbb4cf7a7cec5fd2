"""captions -> rows"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import CAPTIONS, OBJECTS, RAW, ROWS, ParamsFile, RawFolder


def materialize(
    raw: RawFolder = RAW,
    objects: Annotated[Path, typer.Option("--objects", help="The table of `taming detect`.")] = OBJECTS,
    captions: Annotated[Path, typer.Option("--captions", help="The table of `taming caption`.")] = CAPTIONS,
    regularization: Annotated[
        Path | None,
        typer.Option("--regularization", help="Folder of text-image pairs: photos and metadata.jsonl."),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="The output folder of rows; replaced as a whole. OUT-dropped.parquet has the dropped ones."
        ),
    ] = ROWS,
    params: ParamsFile = None,
) -> None:
    """Join photos, objects and captions into training rows, a folder that Hugging Face datasets can load.

    No identity is in more than one of the splits train, validation and test. After a crash the same command continues
    where it stopped.

    \b
    Example: taming materialize --in data/raw --regularization data/regularization --out data/rows
    """
    import shutil
    from collections import Counter

    from taming_core.drop_reasons import OBJECT_DROPPED
    from taming_core.files import replace_folder
    from taming_core.fingerprints import fingerprint
    from taming_core.locks import exclusive
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.photos.folder_notes import print_notes
    from taming_core.progress import track_to
    from taming_core.rows import index, shortfalls, sources, splits
    from taming_core.tables import drop_counts, schema, shards
    from taming_core.tables.rows import dropped_table, require_own_rows

    settings = load_params(params)
    p = settings.materialize
    arguments.require_rows_out(out, raw, objects, captions, regularization)
    require_own_rows(out)
    shards.require_runs()
    inputs = sources.MaterializeInputs(raw, objects, captions, regularization)
    db = index.build_index(objects, captions, p)
    stamped = schema.add_fingerprint(schema.ROWS, fingerprint(p))
    state = shards.RUNS / f"materialize-{fingerprint(p, schema.VERSION, *inputs.state())}"

    with exclusive(out, state):
        track_to(sources.make_shards(inputs, db, state / "shards", stamped, p), "materialize", inputs.count())
        shard_files = sorted((state / "shards").glob("*/*.parquet"))
        track_to(splits.write_splits(shard_files, state / "rows", stamped, p), "references", len(shard_files))
        splits.write_dropped(shard_files, dropped_table(out), stamped)
        replace_folder(state / "rows", out)
        shutil.rmtree(state, ignore_errors=True)
    counts = splits.reasons(out) + Counter({OBJECT_DROPPED: index.count_dropped(db)})
    drop_counts.print_counts(counts, f"{out}: {splits.headline(out)}")
    for line in shortfalls.shortfalls(out, settings):
        print(line)
    print_notes([inputs.pairs] if inputs.pairs else [])
