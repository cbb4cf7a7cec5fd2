"""-> photos of the mini world, with the truth about them"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import Device, ParamsFile


def world(
    out: Annotated[Path, typer.Option("--out", help="The folder to write; must be new or empty.")],
    photos: Annotated[int, typer.Option("--photos", min=1, help="How many.")] = 200,
    split: Annotated[
        str,
        typer.Option(
            "--split", help="train, unseen-concepts (things no mini model has seen) or unseen-designs (of seen things)."
        ),
    ] = "unseen-concepts",
    regularization: Annotated[
        bool, typer.Option("--regularization", help="Plain text-image pairs instead of several views of each thing.")
    ] = False,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth", help="Also write objects.parquet and captions.parquet here, as if no model ever erred."
        ),
    ] = None,
    artwork: Annotated[
        Path | None,
        typer.Option("--artwork", help="Folder of cutouts.parquet and scenes.parquet; default: mini's own."),
    ] = None,
    params: ParamsFile = None,
    device: Device = "auto",
) -> None:
    """Render photos of things in scenes, for demos, tests and benchmarks.

    Each thing has a sub-folder, and metadata.jsonl tells identity, class, licence and the whole truth: caption, scene,
    style, boxes and masks. The same seed gives the same bytes. With --truth, `taming materialize` can start at once.

    \b
    Example: taming world --out photos --photos 200 --split unseen-concepts
    """
    from taming_core.errors import TamingError
    from taming_core.fingerprints import fingerprint
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.progress import track
    from taming_core.tables import schema

    p = load_params(params).world
    arguments.require_device(device)
    arguments.require_files([] if artwork is None else [artwork])
    if out.exists() and any(out.iterdir()):
        raise TamingError(f"{out} is not empty. Name a new folder, or empty this one first.")
    if regularization and truth:
        raise TamingError("--truth goes with things, not with --regularization. Leave one of them out.")

    from taming_core.weights.device import pick_device
    from taming_core.weights.mini import MINI
    from taming_core.world import folder
    from taming_core.world.artwork import licences, load_pictures, load_world

    found = load_world(artwork or MINI / "world")
    wanted = list((folder.pairs if regularization else folder.shots)(found, photos, split, p))
    written = folder.write(
        found, load_pictures(found, pick_device(device)), wanted, licences(artwork or MINI / "world"), out, p
    )
    objects, captions = [], []
    for batch in track(written, "world", -(-len(wanted) // folder.AT_ONCE)):
        if truth:
            objects.append(schema.table(list(folder.object_rows(*batch, split)), schema.OBJECTS))
            captions.append(schema.table(list(folder.caption_rows(*batch)), schema.CAPTIONS))
    if truth:
        schema.write(objects, schema.with_fingerprint(schema.OBJECTS, fingerprint(p)), truth / "objects.parquet")
        schema.write(captions, schema.with_fingerprint(schema.CAPTIONS, fingerprint(p)), truth / "captions.parquet")
    things = len({s.identity for s in wanted} - {None})
    print(f"{out}: {len(wanted)} photos" + (f" of {things} things" if things else ""))
