"""photos -> objects"""

from typing import Annotated

import typer

from stages.options import (
    OBJECTS,
    RAW,
    Actors,
    AnyPath,
    Cpus,
    Device,
    Engine,
    Gpus,
    ParamsFile,
    RawFolder,
    RayAddress,
    Workers,
    location,
)


def detect(
    raw: RawFolder = RAW,
    out: Annotated[
        AnyPath,
        typer.Option("--out", parser=location, metavar="<path>", help="The output table of objects, or its URL."),
    ] = OBJECTS,
    params: ParamsFile = None,
    device: Device = "auto",
    engine: Engine = "local",
    workers: Workers = None,
    ray_address: RayAddress = None,
    actors: Actors = None,
    gpus: Gpus = None,
    cpus: Cpus = None,
) -> None:
    """Detect and segment the objects in every photo.

    Unreadable photos and rejected objects stay in the table, with a drop reason. After a crash the same command
    continues where it stopped.

    \b
    Example: taming detect --in data/raw --out data/objects.parquet
    Example: taming detect --in data/raw --out data/objects.parquet --engine ray --actors 2
    """
    from functools import partial

    from taming_core.curation import curate
    from taming_core.engine import manifest
    from taming_core.engine.run import run
    from taming_core.engine.work import ShardWork
    from taming_core.fingerprints import fingerprint
    from taming_core.locks import exclusive
    from taming_core.objects import detection, sources
    from taming_core.objects.mixed_identities import mixed_identities
    from taming_core.params import arguments
    from taming_core.params.engine import EngineOptions, for_device
    from taming_core.params.load import load_params
    from taming_core.progress import track_shards
    from taming_core.tables import drop_counts, schema, shards

    p = load_params(params).detect
    arguments.require_device(device)
    options = for_device(EngineOptions(engine, workers, ray_address, actors, gpus, cpus), device)
    schema.require_out(out, schema.OBJECTS, raw)
    shards.require_runs()
    arguments.require_models(p)
    with exclusive(out), manifest.listed(raw, out, partial(sources.list_folder, raw, p=p)) as listing:
        state = shards.state_folder(out, f"detect-{fingerprint(p, schema.VERSION, listing.state)}")
        with exclusive(state):
            photos = manifest.keep(listing, state, p.shard_size, partial(sources.source_of, raw=raw))
            stamped = schema.add_fingerprint(schema.OBJECTS, fingerprint(p))
            work = ShardWork(
                photos, state, stamped, partial(detection.prepare, p=p), partial(curate.load_detection, device, p),
                p.batch_size, (raw,),
            )  # fmt: skip
            counts = track_shards(run(work, options), "detect", len(photos))
            shards.join(state, stamped, out, photos.names(), photos.shard_count())
    drop_counts.print_counts(counts, f"{out}: {listing.count} photos")
    for line in (*listing.notes, *mixed_identities(out), *curate.exclusion_notes(out, p)):
        print(line)
