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
    from taming_core.objects import detection
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.photos.files import folder_state
    from taming_core.progress import track_to
    from taming_core.tables import drop_counts, schema, shards

    p = load_params(params).detect
    schema.require_out(out, schema.OBJECTS, raw)
    arguments.require_device(device)
    arguments.require_models(p)
    sources = detection.list_sources(raw, p.identity)
    stamped = schema.add_fingerprint(schema.OBJECTS, fingerprint(p))
    state = shards.RUNS / f"detect-{fingerprint(p, schema.VERSION, folder_state(raw))}"

    from taming_core.objects.detector import load_detector
    from taming_core.objects.segmenter import load_segmenter
    from taming_core.weights.device import pick_device

    where = pick_device(device)
    has_masks = p.segmenter == "detector"
    with exclusive(out, state):
        find = load_detector(
            p.detector, where, p.image_size, p.score_floor, p.max_found, classes=p.classes, with_masks=has_masks
        )
        segment = None if has_masks else load_segmenter(p.segmenter, where)
        make = partial(detection.rows_of, detect=find, segment=segment, p=p)
        make = curate.curated(make, raw, where, p.curation, p.batch_size)
        track_to(shards.write_shards(sources, p.shard_size, state, stamped, make), "detect", len(sources))
        counts = shards.join(state, stamped, out, [s.file_name for s in sources])
    drop_counts.print_counts(counts, f"{out}: {len(sources)} photos")
