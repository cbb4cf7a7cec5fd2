"""encoder -> a format of other programs"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import ENCODER, AnyPath, location


def export(
    to: Annotated[str, typer.Option("--to", help="ip-adapter, lora or diffusers.")],
    out: Annotated[
        AnyPath,
        typer.Option(
            "--out", parser=location, metavar="<path>", help="The output folder, or its URL; replaced as a whole."
        ),
    ],
    encoder: Annotated[str, typer.Option("--encoder", help="An encoder folder, or its URL, or mini.")] = str(ENCODER),
    base: Annotated[
        str | None,
        typer.Option("--base", help="The text-to-image model that training started from. Default: by training.json."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option("--rank", min=1, help="Of a LoRA to extract from a fine-tuned denoiser.")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="Of the weights: fp16, bf16 or fp32.")] = "fp16",
    scores: Annotated[
        Path | None, typer.Option("--scores", help="The folder of an evaluation, for the model card.")
    ] = None,
    push: Annotated[
        str | None, typer.Option("--push", help="OWNER/NAME on the Hugging Face hub; a new repository is private.")
    ] = None,
) -> None:
    """Export an encoder for other programs, with a model card.

    ip-adapter is the format of `load_ip_adapter` in diffusers, for encoders trained with `injection: decoupled`; lora
    is the change of the denoiser in training; diffusers is a folder that stock diffusers and TamingPipeline open.

    \b
    Example: taming export --encoder data/encoder --to diffusers --out out/exported
    """
    from taming_core.exports.options import ExportOptions, require_valid
    from taming_core.files import require_out
    from taming_core.locks import exclusive
    from taming_core.params import arguments
    from taming_core.weights.mini import encoder_folder
    from taming_core.weights.remote import local_encoder

    options = ExportOptions(to, base, rank, dtype, scores, push)
    require_out(out, (*map(arguments.folder_of, (encoder, base)), scores))
    require_valid(options, out)
    local = local_encoder(encoder)
    encoder_folder(local)
    arguments.require_files([] if scores is None else [scores])

    from taming_core.exports import export as exports

    with exclusive(out):
        print("\n".join(exports.export(local, out, options)))
