"""photo + prompt -> images"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.options import ENCODER, Base, Device, Offload, ParamsFile, Precision

if TYPE_CHECKING:
    from PIL import Image


def generate(
    objects: Annotated[
        list[Path],
        typer.Option("--object", help="Photo of an object, or a folder of photos of it; repeatable."),
    ],
    prompts: Annotated[list[str], typer.Option("--prompt", help="With <object> in it; repeatable.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write to.")] = Path("out"),
    masks: Annotated[
        list[Path] | None, typer.Option("--mask", help="Mask of the object, white on black; one for each photo.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="All objects in one image; prompts hold <object> once for each.")
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help=f"An encoder folder, or mini. Default: {ENCODER} if there, else mini."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the first image; the next images count up from it.")
    ] = 0,
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
    base: Base = None,
) -> None:
    """Draw the object of a photo in the scene or style of a prompt.

    The object is segmented automatically, unless a mask is given or the photo has a transparent background; photos in
    one folder show one object. A seed gives the same image every time, and generation.json says how each was made.

    \b
    Example: taming generate --object photo.jpg --prompt "a photo of <object> on the beach" --out out
    """
    from functools import partial
    from itertools import chain

    from taming_core import generation
    from taming_core.figures import image_grid
    from taming_core.fingerprints import folder_fingerprint, versions
    from taming_core.objects.subjects import load_finder, require_masks, subjects_of
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.progress import track
    from taming_core.weights.mini import encoder_folder

    p = load_params(params)
    sampling = generation.override_sampling(
        p.generate.sampling, guidance_object=guidance_object, guidance_text=guidance_text,
        guidance_embedded=guidance_embedded, steps=steps, scheduler=scheduler,
    )  # fmt: skip
    size = generation.requested_size(width, height)
    requested = generation.requested_images(objects, prompts, seed, images, together)
    arguments.require_files([*objects, *(masks or [])])
    photos = [generation.photos_of(path) for path in objects]
    require_masks(list(chain.from_iterable(photos)), masks or [])
    spec = encoder or (str(ENCODER) if ENCODER.is_dir() else "mini")
    weights = encoder_folder(spec)
    arguments.require_scheduler(sampling.scheduler)
    arguments.require_device(device)
    arguments.require_precision(precision, device, offload)
    arguments.require_models(p.detect)

    from taming_core.images.draw import draw, save
    from taming_core.images.families import load_pipeline
    from taming_core.weights.device import pick_device

    where = pick_device(device)
    pipeline = load_pipeline(spec, where, precision, offload, base)
    requested = generation.with_encoder_captions(requested, pipeline.object_encoder.captions)
    background = pipeline.object_encoder.config["background"]
    subjects = subjects_of(photos, masks or [], partial(load_finder, p.detect, where), p.materialize, background)
    embeds = [pipeline.encode_objects([group])[0] for group in subjects]
    drawn = draw(pipeline, [r.request for r in requested], embeds, sampling, object_scale, size)
    pictures: list[Image.Image] = []
    for one, picture in track(zip(requested, drawn, strict=True), "draw", len(requested)):
        save(picture, out / one.file)
        pictures.append(picture)
    image_grid.save(generation.sheet(subjects, requested, pictures), out / "sheet.png")
    digest = folder_fingerprint(weights)
    record = generation.record(requested, sampling, spec, digest, versions(), object_scale, size, precision)
    generation.add_record(record, out / "generation.json")
    print(f"{len(pictures)} images in {out}, with the encoder {spec}; {out / 'sheet.png'} shows them")
