"""objects -> captions"""

from typing import Annotated

import typer

from stages.options import (
    CAPTIONS,
    OBJECTS,
    RAW,
    Actors,
    AnyPath,
    Cpus,
    Device,
    Engine,
    Gpus,
    Overrides,
    ParamsFile,
    RawFolder,
    RayAddress,
    Workers,
    location,
)


def caption(
    raw: RawFolder = RAW,
    objects: Annotated[
        AnyPath | None,
        typer.Option(
            "--objects",
            parser=location,
            metavar="<path>",
            help=f"The table of `taming detect`, or its URL. Default: {OBJECTS}, if --in is {RAW}.",
        ),
    ] = None,
    out: Annotated[
        AnyPath,
        typer.Option("--out", parser=location, metavar="<path>", help="The output table of captions, or its URL."),
    ] = CAPTIONS,
    params: ParamsFile = None,
    device: Device = "auto",
    engine: Engine = "local",
    workers: Workers = None,
    ray_address: RayAddress = None,
    actors: Actors = None,
    gpus: Gpus = None,
    cpus: Cpus = None,
    overrides: Overrides = None,
) -> None:
    """Caption every photo, and replace the words that name its objects by <object>.

    Without a table of objects, <object> replaces the caption's main noun. After a crash the same command continues
    where it stopped. What a person said of objects in the table of overrides counts.

    \b
    Example: taming caption --in data/raw --objects data/objects.parquet --out data/captions.parquet
    Example: taming caption --in raw/ --out captions.parquet
    """
    from functools import partial

    from taming_core.captions import attribute_words, captioning
    from taming_core.captions.load import load_captioning
    from taming_core.engine import manifest
    from taming_core.engine.run import run
    from taming_core.engine.work import ShardWork
    from taming_core.fingerprints import fingerprint
    from taming_core.locks import exclusive
    from taming_core.overrides.corrected import corrected
    from taming_core.overrides.table import find
    from taming_core.params import arguments
    from taming_core.params.engine import EngineOptions, for_device
    from taming_core.params.load import load_params
    from taming_core.progress import track_shards
    from taming_core.tables import drop_counts, schema, shards

    if objects is None and raw == RAW and OBJECTS.is_file():
        objects = OBJECTS
    p = load_params(params).caption
    arguments.require_device(device)
    options = for_device(EngineOptions(engine, workers, ray_address, actors, gpus, cpus), device)
    overrides = find(objects, overrides)
    schema.require_out(out, schema.CAPTIONS, raw, objects, overrides)
    shards.require_runs()
    arguments.require_models(p)
    arguments.require_api_key(p.vlm_params.api_key_env, "caption.vlm.api_key_env")
    if p.attributes is not None:
        attribute_words.require_masks(objects)
    with (
        exclusive(out),
        corrected(objects, overrides, out) as fixed,
        manifest.listed(raw, out, partial(captioning.list_folder, raw, fixed.table or objects, p=p)) as listing,
    ):
        objects = fixed.table or objects
        inputs = schema.VERSION, listing.state, captioning.table_state(objects)
        state = shards.state_folder(out, f"caption-{fingerprint(p.of_captions, *inputs)}")
        with exclusive(state):
            photos = manifest.keep(listing, state, p.shard_size, partial(captioning.source_of, raw=raw))
            stamped = schema.add_fingerprint(schema.CAPTIONS, fingerprint(p.of_captions))
            seen = (raw,) if objects is None else (raw, objects)
            load = partial(load_captioning, objects, device, p)
            work = ShardWork(photos, state, stamped, captioning.prepare, load, p.batch_size, seen)
            counts = track_shards(run(work, options), "caption", len(photos))
            shards.join(state, stamped, out, photos.names(), photos.shard_count())
    methods = drop_counts.summary(captioning.count_methods(out)) or "none"
    words = f", {attribute_words.count_added(out)} attributes" if p.attributes else ""
    drop_counts.print_counts(counts, f"{out}: {listing.count} photos, <object> by {methods}{words}")
    for line in (*listing.notes, *fixed.notes):
        print(line)
