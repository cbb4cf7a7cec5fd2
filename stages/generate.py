"""photo + prompt -> images"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import ENCODER, Device, Offload, ParamsFile, Precision


def generate(
    things: Annotated[
        list[Path],
        typer.Option("--object", help="Photo of a thing, or a folder of photos of it; may be given again."),
    ],
    prompts: Annotated[list[str], typer.Option("--prompt", help="With <object> in it; may be given again.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path("out"),
    masks: Annotated[
        list[Path] | None, typer.Option("--mask", help="Where the thing is, white on black; one for each photo.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="All things in one image; prompts hold <object> once for each.")
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help=f"An encoder folder, or mini. Default: {ENCODER} if there, else mini."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first image; the next ones count on.")] = 0,
    images: Annotated[int, typer.Option("--images", min=1, help="For each object and prompt.")] = 1,
    guidance_object: Annotated[float | None, typer.Option(min=0, help="More of the object; instead of params.")] = None,
    guidance_text: Annotated[float | None, typer.Option(min=0, help="More of the prompt; instead of params.")] = None,
    guidance_embedded: Annotated[
        float | None, typer.Option(min=0.1, help="For a base that reads it, as FLUX.1-dev; instead of params.")
    ] = None,
    object_scale: Annotated[
        float, typer.Option(min=0, help="Less or more of the object, where the encoder adds attention of its own.")
    ] = 1.0,
    width: Annotated[int | None, typer.Option("--width", min=1, help="Pixels. Default: the model's own size.")] = None,
    height: Annotated[int | None, typer.Option("--height", min=1, help="Pixels; goes with --width.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Of the scheduler; instead of params.")] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Any diffusers class; instead of params.")
    ] = None,
    params: ParamsFile = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    offload: Offload = False,
) -> None:
    """Draw the thing of a photo wherever the prompt says.

    The photo is cut out automatically, unless a mask is given or it is transparent already; photos in one folder show
    one thing. A seed gives the same image every time, and generation.json says how each was made.

    \b
    Example: taming generate --object photo.jpg --prompt "a photo of <object> on the beach" --out out
    """
    from functools import partial

    from taming_core import fingerprints, generation
    from taming_core.figures import image_grid
    from taming_core.objects import subjects
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.progress import track
    from taming_core.weights.mini import encoder_folder

    p = load_params(params)
    sampling = generation.overridden(
        p.generate.sampling,
        guidance_object=guidance_object,
        guidance_text=guidance_text,
        guidance_embedded=guidance_embedded,
        steps=steps,
        scheduler=scheduler,
    )
    size = generation.requested_size(width, height)
    found = generation.requested_images(things, prompts, seed, images, together)
    arguments.require_files([*things, *(masks or [])])
    photos = [generation.photos_of(thing) for thing in things]
    every_photo = [photo for of_one in photos for photo in of_one]
    subjects.require_masks(every_photo, masks or [])
    spec = encoder or (str(ENCODER) if ENCODER.is_dir() else "mini")
    folder = encoder_folder(spec)
    arguments.require_scheduler(sampling.scheduler)
    arguments.require_device(device)
    arguments.require_precision(precision, device, offload)
    arguments.require_models(p.detect)

    from taming_core.images.draw import draw, save
    from taming_core.images.families import load_pipeline
    from taming_core.weights.device import pick_device

    where = pick_device(device)
    pipeline = load_pipeline(spec, where, precision, offload)
    config_of = pipeline.object_encoder.config
    found = generation.with_encoder_captions(found, pipeline.object_encoder.captions)
    cut = subjects.subjects_of(
        every_photo, masks or [], partial(subjects.load_finder, p.detect, where), p.materialize, config_of["background"]
    )  # fmt: skip
    left = iter(cut)
    seen = [[next(left) for _ in of_one] for of_one in photos]
    embeds = [pipeline.encode_objects([of_one])[0] for of_one in seen]
    drawn = draw(pipeline, [w.request for w in found], embeds, sampling, object_scale, size)
    pictures = []
    for w, picture in track(zip(found, drawn, strict=True), "draw", len(found)):
        save(picture, out / w.file)
        pictures.append(picture)
    image_grid.save(generation.sheet(seen, found, pictures), out / "sheet.png")
    weights = fingerprints.folder_fingerprint(folder)
    made = generation.record(found, sampling, spec, weights, fingerprints.versions(), object_scale, size, precision)
    generation.add_record(made, out / "generation.json")
    print(f"{len(pictures)} images in {out}, with the encoder {spec}; {out / 'sheet.png'} shows them")
