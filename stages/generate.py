"""photo + prompt -> images"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import ENCODER, AnyPath, Base, Device, Offload, ParamsFile, Precision, local_path, location

MAX_SEED = 2**63 - 1


def generate(
    objects: Annotated[
        list[AnyPath],
        typer.Option(
            "--object",
            parser=location,
            metavar="<path>",
            help="Photo of an object, or a folder of photos of it, or a URL of these; repeatable.",
        ),
    ],
    prompts: Annotated[list[str] | None, typer.Option("--prompt", help="With <object> in it; repeatable.")] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            parser=local_path,
            metavar="<path>",
            help="The folder to write to; pictures in it are kept, sheet.png is the last run's.",
        ),
    ] = Path("out"),
    masks: Annotated[
        list[AnyPath] | None,
        typer.Option(
            "--mask",
            parser=location,
            metavar="<path>",
            help="Mask of the object, white on black; one for each photo.",
        ),
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option("--prompts", help="A text file of prompts, one a line; lines with # are comments.")
    ] = None,
    negative_prompt: Annotated[
        str, typer.Option("--negative-prompt", help="What guidance leads away from; for all images.")
    ] = "",
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="All objects in one image; prompts hold <object> once for each, in order or as <object:2>.",
        ),
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder", help=f"An encoder folder, or its URL, or mini. Default: {ENCODER} if there, else mini."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of the first image; the next images count up from it.")
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
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            metavar="<x0,y0,x1,y1>",
            help="Where the object goes, as shares of width and height, if the encoder was trained with a collage; "
            "once for each object of an image. Default: where the prompt leads it.",
        ),
    ] = None,
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
    one folder show one object. A seed gives the same image every time; generation.json, and the text `taming` in the
    PNG, say how it was made.

    \b
    Example: taming generate --object photo.jpg --prompt "a photo of <object> on the beach" --out out
    """
    from functools import partial
    from itertools import chain

    from taming_core import generation
    from taming_core.figures import image_grid
    from taming_core.fingerprints import folder_fingerprint, versions
    from taming_core.images import checks, records
    from taming_core.images.prompts import read_prompts
    from taming_core.images.requests import DrawSettings
    from taming_core.locks import exclusive
    from taming_core.objects.subjects import load_finder, require_finder, require_photos, subjects_of
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.progress import track
    from taming_core.weights.mini import encoder_folder
    from taming_core.weights.remote import local_encoder

    p = load_params(params)
    sampling = generation.override_sampling(
        p.generate.sampling, guidance_object=guidance_object, guidance_text=guidance_text,
        guidance_embedded=guidance_embedded, steps=steps, scheduler=scheduler,
    )  # fmt: skip
    settings = DrawSettings(
        sampling, negative_prompt, object_scale, generation.requested_size(width, height),
        generation.requested_boxes(boxes or []),
    )  # fmt: skip
    written = generation.require_prompts([*(prompts or []), *(read_prompts(prompts_file) if prompts_file else [])])
    requested = generation.requested_images(objects, written, seed, images, together)
    inputs = [*objects, *(masks or [])]
    arguments.require_files(inputs)
    records.require_out(out, [path for path in inputs if isinstance(path, Path)])
    arguments.require_scheduler(sampling.scheduler)
    arguments.require_device(device)
    arguments.require_precision(precision, device, offload)
    arguments.require_models(p.detect)
    named = encoder or (str(ENCODER) if ENCODER.is_dir() else "mini")
    spec = local_encoder(named)
    weights = encoder_folder(spec)
    configs = checks.encoder_configs(weights, base)
    checks.require_drawable(configs, settings, len(requested[0].request.objects))
    photos = [generation.photos_of(path) for path in objects]
    all_photos = list(chain.from_iterable(photos))
    if together:
        generation.require_equal_photos(photos)
    if require_photos(all_photos, masks or []):
        require_finder(p.detect)
    checks.require_read_by(configs, generation.unique(w.request.prompt for w in requested))

    from taming_core.images.draw import draw_recorded
    from taming_core.images.families import load_pipeline
    from taming_core.weights.device import pick_device

    where = pick_device(device)
    pipeline = load_pipeline(spec, where, precision, offload, base)
    requested = generation.with_encoder_captions(requested, pipeline.object_encoder.captions)
    background = pipeline.object_encoder.config["background"]
    subjects = subjects_of(photos, masks or [], partial(load_finder, p.detect, where), p.materialize, background)
    embeds = [pipeline.encode_objects([group])[0] for group in subjects]
    made_with = {"folder": named, "fingerprint": folder_fingerprint(weights)}
    entries = generation.records(requested, subjects, settings, made_with, versions(), precision)
    with exclusive(out, nested=False):  # below it, as in the working directory, other commands may be writing
        files = records.file_names([w.readable_name for w in requested], entries, out)
        requests = [w.request for w in requested]
        drawn = draw_recorded(pipeline, requests, files, entries, embeds, settings, out)
        pictures = [generation.thumbnail(picture) for _, picture in track(drawn, "draw", len(files))]
        image_grid.save(generation.sheet(subjects, requested, pictures), out / records.SHEET)
    print(f"{len(pictures)} images in {out}, with the encoder {spec}; {out / records.SHEET} shows them")
