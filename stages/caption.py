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
    from taming_core.progress import track_to
    from taming_core.tables import drop_counts, schema, shards

    if objects is None and raw == RAW and OBJECTS.is_file():
        objects = OBJECTS
    p = load_params(params).caption
    schema.require_out(out, schema.CAPTIONS, raw, objects)
    arguments.require_device(device)
    arguments.require_models(p)
    if p.attributes is not None:
        attribute_words.require_masks(objects)
    sources = captioning.list_sources(raw, objects)
    stamped = schema.add_fingerprint(schema.CAPTIONS, fingerprint(p))
    inputs = schema.VERSION, folder_state(raw), captioning.table_state(objects)
    state = shards.RUNS / f"caption-{fingerprint(p, *inputs)}"

    from taming_core.captions.captioner import load_captioner
    from taming_core.captions.matcher import load_matcher
    from taming_core.weights.device import pick_device

    where = pick_device(device)
    with exclusive(out, state):
        describe = load_captioner(p.captioner, where, num_beams=p.num_beams, max_new_tokens=p.max_new_tokens)
        match = load_matcher(p.matcher, where)
        finish = None if objects is None else attribute_words.load_finish(objects, where, match, p)
        make = partial(captioning.rows_of, describe=describe, match=match, p=p, finish=finish)
        track_to(shards.write_shards(sources, p.shard_size, state, stamped, make), "caption", len(sources))
        counts = shards.join(state, stamped, out, [s.file_name for s in sources])
    methods = drop_counts.summary(captioning.count_methods(out)) or "none"
    words = f", {attribute_words.count_added(out)} attributes" if p.attributes else ""
    drop_counts.print_counts(counts, f"{out}: {len(sources)} photos, <object> by {methods}{words}")
