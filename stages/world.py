"""-> photos of the mini world with their ground truth"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import Device, ParamsFile, local_path


def world(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            parser=local_path,
            metavar="<path>",
            help="The output folder; new, empty, or one that a crash left unfinished.",
        ),
    ],
    photos: Annotated[int, typer.Option("--photos", min=1, help="Number of photos.")] = 200,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="train, unseen-concepts (objects unseen by all mini models) or unseen-designs (of seen objects).",
        ),
    ] = "unseen-concepts",
    regularization: Annotated[
        bool, typer.Option("--regularization", help="Text-image pairs instead of several views of each object.")
    ] = False,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", help="Also write the ground truth here as objects.parquet and captions.parquet."),
    ] = None,
    artwork: Annotated[
        Path | None,
        typer.Option("--artwork", help="Folder of cutouts.parquet and scenes.parquet. Default: that of mini."),
    ] = None,
    params: ParamsFile = None,
    device: Device = "auto",
) -> None:
    """Render photos of objects in scenes, for demos, tests and benchmarks.

    Each identity has a sub-folder, and metadata.jsonl has identity, class, licence and ground truth: caption, scene,
    style, boxes and masks. The same seed gives the same bytes. With --truth, `taming materialize` can run at once.
    After a crash the same command continues where it stopped.

    \b
    Example: taming world --out photos --photos 200 --split unseen-concepts
    """
    from taming_core.errors import TamingError
    from taming_core.files import require_out
    from taming_core.fingerprints import fingerprint
    from taming_core.locks import exclusive
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.progress import track_to
    from taming_core.tables import schema

    p = load_params(params).world
    arguments.require_device(device)
    arguments.require_files([] if artwork is None else [artwork])
    require_out(out)
    asked = fingerprint(p, str(photos), split, str(regularization), str(truth is not None), str(artwork))
    state = out / f".world-{asked}"
    if out.exists() and not state.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TamingError(f"{out} is not an empty folder. Name a new folder, or empty this one first.")
    if regularization and truth:
        raise TamingError("--truth does not go with --regularization. Leave one of them out.")
    if truth:
        schema.require_out(truth / "objects.parquet", schema.OBJECTS, artwork)
        schema.require_out(truth / "captions.parquet", schema.CAPTIONS, artwork)

    from taming_core.weights.device import pick_device
    from taming_core.weights.mini import MINI
    from taming_core.world import folder
    from taming_core.world.artwork import licences, load_pictures, load_world

    tables = artwork or MINI / "world"
    mini_world = load_world(tables)
    mini_world.of_split(split)  # raises the error of a wrong name before anything is written
    shots = (folder.pairs if regularization else folder.shots)(mini_world, photos, split, p)
    with exclusive(out):
        pictures = load_pictures(mini_world, pick_device(device))
        of_truth = split if truth else None
        track_to(folder.write(mini_world, pictures, shots, licences(tables), out, state, p, of_truth), "world", photos)
        folder.finish(state, out, truth, fingerprint(p))
    print(f"{out}: {photos} photos" + ("" if regularization else f" of {-(-photos // p.views)} objects"))
