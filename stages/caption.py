"""objects -> captions"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import CAPTIONS, OBJECTS, RAW, Device, ParamsFile, RawFolder


def caption(
    raw: RawFolder = RAW,
    objects: Annotated[
        Path | None,
        typer.Option("--objects", help=f"The table of `taming detect`. Default: {OBJECTS}, if --in is {RAW}."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The output table of captions.")] = CAPTIONS,
    params: ParamsFile = None,
    device: Device = "auto",
) -> None:
    """Caption every photo, and replace the words that name its objects by <object>.

    Without a table of objects, <object> replaces the caption's main noun. After a crash the same command continues
    where it stopped.

    \b
    Example: taming caption --in data/raw --objects data/objects.parquet --out data/captions.parquet
    Example: taming caption --in raw/ --out captions.parquet
    """
    from functools import partial

    from taming_core.captions import attribute_words, captioning
    from taming_core.fingerprints import fingerprint
    from taming_core.locks import exclusive
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.photos.files import folder_state
    from taming_core.photos.folder import read_folder
    from taming_core.photos.folder_notes import print_notes
    from taming_core.progress import track_to
    from taming_core.tables import drop_counts, schema, shards

    if objects is None and raw == RAW and OBJECTS.is_file():
        objects = OBJECTS
    p = load_params(params).caption
    schema.require_out(out, schema.CAPTIONS, raw, objects)
    shards.require_runs()
    arguments.require_device(device)
    arguments.require_models(p)
    arguments.require_api_key(p.vlm_params.api_key_env, "caption.vlm.api_key_env")
    if p.attributes is not None:
        attribute_words.require_masks(objects)
    folder = read_folder(raw)
    sources = captioning.list_sources(folder, objects)
    stamped = schema.add_fingerprint(schema.CAPTIONS, fingerprint(p.of_captions))
    inputs = schema.VERSION, folder_state(raw), captioning.table_state(objects)
    state = shards.RUNS / f"caption-{fingerprint(p.of_captions, *inputs)}"

    from taming_core.captions.load import load_models
    from taming_core.weights.device import pick_device

    with exclusive(out, state):
        make = partial(captioning.rows_of, models=load_models(objects, pick_device(device), p), p=p)
        track_to(shards.write_shards(sources, p.shard_size, state, stamped, make), "caption", len(sources))
        counts = shards.join(state, stamped, out, [s.file_name for s in sources])
    methods = drop_counts.summary(captioning.count_methods(out)) or "none"
    words = f", {attribute_words.count_added(out)} attributes" if p.attributes else ""
    drop_counts.print_counts(counts, f"{out}: {len(sources)} photos, <object> by {methods}{words}")
    print_notes([folder])
