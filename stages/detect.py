"""photos -> objects"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import OBJECTS, RAW, Device, ParamsFile, RawFolder


def detect(
    raw: RawFolder = RAW,
    out: Annotated[Path, typer.Option("--out", help="The output table of objects.")] = OBJECTS,
    params: ParamsFile = None,
    device: Device = "auto",
) -> None:
    """Detect and segment the objects in every photo.

    Unreadable photos and rejected objects stay in the table, with a drop reason. After a crash the same command
    continues where it stopped.

    \b
    Example: taming detect --in data/raw --out data/objects.parquet
    """
    from functools import partial

    from taming_core.curation import curate
    from taming_core.fingerprints import fingerprint
    from taming_core.locks import exclusive
    from taming_core.objects import detection, sources
    from taming_core.objects.mixed_identities import mixed_identities
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.photos.files import folder_state
    from taming_core.photos.folder import read_folder
    from taming_core.photos.folder_notes import print_notes
    from taming_core.progress import track_to
    from taming_core.tables import drop_counts, schema, shards

    p = load_params(params).detect
    schema.require_out(out, schema.OBJECTS, raw)
    shards.require_runs()
    arguments.require_device(device)
    arguments.require_models(p)
    folder = read_folder(raw)
    found = sources.list_sources(folder, p.identity)
    stamped = schema.add_fingerprint(schema.OBJECTS, fingerprint(p))
    state = shards.RUNS / f"detect-{fingerprint(p, schema.VERSION, folder_state(raw))}"

    from taming_core.objects.networks import load_networks
    from taming_core.weights.device import pick_device

    where = pick_device(device)
    with exclusive(out, state):
        find, segment = load_networks(p, where)
        make = partial(detection.rows_of, detect=find, segment=segment, p=p)
        make = curate.curated(make, raw, where, p)
        track_to(shards.write_shards(found, p.shard_size, state, stamped, make), "detect", len(found))
        counts = shards.join(state, stamped, out, [s.file_name for s in found])
    drop_counts.print_counts(counts, f"{out}: {len(found)} photos")
    print_notes([folder])
    notes = *sources.class_notes(folder, p.identity), *mixed_identities(out), *curate.exclusion_notes(out, p)
    for line in notes:
        print(line)
