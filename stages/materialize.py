"""captions -> rows"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import CAPTIONS, OBJECTS, RAW, ROWS, ParamsFile, RawFolder


def materialize(
    raw: RawFolder = RAW,
    objects: Annotated[Path, typer.Option("--objects", help="The table that `taming detect` wrote.")] = OBJECTS,
    captions: Annotated[Path, typer.Option("--captions", help="The table that `taming caption` wrote.")] = CAPTIONS,
    regularization: Annotated[
        Path | None,
        typer.Option("--regularization", help="Folder of plain text-image pairs: photos and metadata.jsonl."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder of rows to write; it is replaced as a whole.")] = ROWS,
    params: ParamsFile = None,
) -> None:
    """Join photos, objects and captions into training rows that Hugging Face datasets opens as they are.

    No identity straddles train, validation and test. After a crash the same command goes on where it stopped.

    \b
    Example: taming materialize --in data/raw --regularization data/regularization --out data/rows
    """
    import shutil
    from collections import Counter

    from taming_core.fingerprints import fingerprint
    from taming_core.params.load import load_params
    from taming_core.progress import track_to
    from taming_core.rows import index, sources, splits
    from taming_core.tables import drop_counts, schema, shards

    p = load_params(params).materialize
    splits.check_out(out)
    inputs = sources.MaterializeInputs(raw, objects, captions, regularization)
    db = index.build_index(objects, captions)
    stamped = schema.with_fingerprint(schema.ROWS, fingerprint(p))
    state = shards.RUNS / f"materialize-{fingerprint(p, schema.VERSION, *inputs.state())}"

    track_to(sources.make_shards(inputs, db, state / "shards", stamped, p), "materialize", inputs.count())
    made = sorted((state / "shards").glob("*/*.parquet"))
    track_to(splits.write_splits(made, state / "rows", stamped, p), "references", len(made))
    splits.replace_folder(state / "rows", out)
    shutil.rmtree(state, ignore_errors=True)
    found = splits.reasons(out) + Counter({"object dropped by detect": index.count_dropped(db)})
    drop_counts.print_counts(found, f"{out}: {splits.headline(out)}")
