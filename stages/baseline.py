"""photos of one object -> a model tuned to it, by a method of others"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import AnyPath, Device, ParamsFile, local_path, location


def baseline(
    method: Annotated[str, typer.Argument(help="textual-inversion, dreambooth or dreambooth-lora.")],
    photo: Annotated[
        AnyPath,
        typer.Option(
            "--object", parser=location, metavar="<path>", help="Photo of an object, a folder of photos, or a URL."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", parser=local_path, metavar="<path>", help="The output folder; not that of another object."
        ),
    ],
    noun: Annotated[
        str | None, typer.Option("--class", help="The noun for the object's class, such as robot. Default: object.")
    ] = None,
    base: Annotated[
        str, typer.Option("--base", help="A text-to-image model: mini, a folder or a hub name; or an encoder folder.")
    ] = "mini",
    params: ParamsFile = None,
    device: Device = "auto",
    precision: Annotated[str, typer.Option("--precision", help="Of frozen weights and computation: fp32 or bf16.")] = (
        "fp32"
    ),
) -> None:
    """Tune a text-to-image model to one object, by diffusers and peft: what an encoder is compared with.

    textual-inversion learns a word, dreambooth all weights, dreambooth-lora a LoRA, as the section baseline of
    params.yaml says. The output is what stock diffusers loads; a finished one is not trained again.

    \b
    Example: taming baseline dreambooth-lora --object photo.jpg --class robot --out out/robot
    """
    from taming_core import generation
    from taming_core.baselines.methods import require_method
    from taming_core.baselines.photos import open_photos, photos_digest
    from taming_core.locks import exclusive
    from taming_core.params import arguments
    from taming_core.params.load import load_params
    from taming_core.tables import shards

    checked = require_method(method)
    p = load_params(params).baseline
    arguments.require_files([photo])
    arguments.require_device(device)
    arguments.require_training_precision(precision)
    shards.require_runs()
    photos = open_photos(generation.photos_of(photo))
    arguments.require_baseline_out(out, checked, photos_digest(photos), photo, arguments.folder_of(base))
    if checked != "textual-inversion" and p.prior is not None:
        arguments.require_scheduler(p.prior.scheduler)

    from taming_core.baselines.base import load_tunable
    from taming_core.baselines.train import train
    from taming_core.baselines.usage import summary
    from taming_core.weights.device import pick_device

    with exclusive(out):
        pipeline = load_tunable(base, pick_device(device), precision)
        print(summary(train(checked, pipeline, photos, noun, p, out), out))
