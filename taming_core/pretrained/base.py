"""Text-to-image models to tame."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from transformers import AutoTokenizer, CLIPTextModel

from taming_core.errors import TamingError

MINI = Path(__file__).parents[2] / "pipelines" / "mini" / "base"


def load_base(spec: str) -> dict[str, Any]:
    """The parts of a text-to-image model in float32, by the names that diffusers pipelines give them.

    `spec` is `mini`, a folder in the layout of diffusers, or a hub name. Raises TamingError if there is no such model.
    """
    if spec == "mini" and not MINI.is_dir():
        raise TamingError("The base model `mini` is not in the installed package. Train in a checkout of the project, "
                          "set train.start to mini, or name another train.base.")  # fmt: skip
    place = str(MINI) if spec == "mini" else spec
    classes = {"vae": AutoencoderKL, "text_encoder": CLIPTextModel, "unet": UNet2DConditionModel}
    try:
        parts = {
            n: c.from_pretrained(place, subfolder=n, dtype=torch.float32, use_safetensors=True)
            for n, c in classes.items()
        }
        tokenizer = AutoTokenizer.from_pretrained(place, subfolder="tokenizer")
        config: Any = DDPMScheduler.load_config(place, subfolder="scheduler")
        scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    except OSError as error:
        raise TamingError(f"There is no text-to-image model {spec}. Name `mini`, a folder of unet, vae, text_encoder, "
                          f"tokenizer and scheduler, or one that `hf download {spec}` finds.") from error  # fmt: skip
    return {**parts, "tokenizer": tokenizer, "scheduler": scheduler}
