"""Load the components of a text-to-image model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging

from taming_core.bases.families import family_class
from taming_core.bases.supported import Config, require_text_to_image
from taming_core.errors import TamingError
from taming_core.weights.load import no_progress_bars
from taming_core.weights.mini import BASE


def load_base(spec: str) -> dict[str, Any]:
    """The components of a text-to-image model in float32, by their names in diffusers pipelines.

    Args:
        spec: `mini`, a folder in the layout of diffusers, or a hub name.

    Raises:
        TamingError: there is no such model, its family is not supported, or it takes more than a text.
    """
    if spec == "mini" and not BASE.is_dir():
        raise TamingError("The base model `mini` is not in the installed package. Train in a checkout of the project, "
                          "set train.start to mini, or name another train.base.")  # fmt: skip
    place = str(BASE) if spec == "mini" else spec
    try:
        index = model_index(place)
        family = family_class(index)
        names = family.component_names()
        require_text_to_image(spec, configs_of(place, index, family.denoiser_name))
        logging.disable_progress_bar()  # of diffusers; `no_progress_bars` does it for transformers
        with no_progress_bars():
            return {
                name: _component(place, name, index[name]) for name in names if index.get(name, [None])[0] is not None
            }
    except (OSError, KeyError) as error:
        raise TamingError(f"There is no text-to-image model {spec}. Name `mini`, a folder in the layout of "
                          f"diffusers, or one that `hf download {spec}` finds.") from error  # fmt: skip


def model_index(place: str) -> dict[str, Any]:
    """Library and class of every component, from model_index.json; guessed for `mini` and old folders without it.

    Raises:
        OSError: there is no such model.
    """
    folder = Path(place)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        if not (folder / "unet" / "config.json").is_file():
            raise OSError(f"{folder} holds no model")
        scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
        return {
            "vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "AutoTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", scheduler],
        }  # fmt: skip
    pipeline_class: Any = DiffusionPipeline
    return dict(pipeline_class.load_config(place))


def configs_of(place: str, index: Mapping[str, Any], denoiser: str) -> dict[str, Config]:
    """The configs of denoiser and autoencoder, and empty ones of the other components that the index has."""
    present: dict[str, Config] = {
        name: {} for name, kind in index.items() if isinstance(kind, list) and kind[0] is not None
    }
    library: Any = diffusers
    networks = {n: getattr(library, index[n][1]).load_config(place, subfolder=n) for n in ("vae", denoiser)}
    return present | networks


def _component(place: str, name: str, kind: list[str]) -> Any:
    """A component in the class [library, class] of the index; networks in float32."""
    if name.startswith("tokenizer"):  # whatever class the index has: the newest one reads the files of all
        auto_tokenizer: Any = transformers.AutoTokenizer
        return auto_tokenizer.from_pretrained(place, subfolder=name)
    library: Any = {"diffusers": diffusers, "transformers": transformers}[kind[0]]
    component_class = getattr(library, kind[1])
    if name == "scheduler":
        return component_class.from_pretrained(place, subfolder=name)
    return component_class.from_pretrained(place, subfolder=name, dtype=torch.float32, use_safetensors=True)
