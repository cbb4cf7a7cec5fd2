"""How to use an export: the example code and the notes of its model card."""

from dataclasses import dataclass

from taming_core.exports.ip_adapter import FILE, guides_exactly
from taming_core.model.object_encoder import ObjectEncoder

TITLES = {
    "ip-adapter": "A Taming Encoder as an IP-Adapter",
    "lora": "A LoRA of a Taming Encoder's denoiser",
    "diffusers": "A Taming Encoder",
}
TAGS = {"ip-adapter": ["ip-adapter"], "lora": ["lora"], "diffusers": []}
BASE = "the-base-model"  # placeholder for an unknown base

TAMING_EXAMPLE = """```python
from PIL import Image
from taming_core import TamingPipeline

pipeline = TamingPipeline.from_pretrained("{name}")
subject = Image.open("cutout.png")  # the object on a transparent background
pipeline("a photo of a <object> on the beach", subject=subject).images[0].save("image.png")
```"""
STOCK_EXAMPLE = """```python
import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{name}", dtype=torch.float32)  # or torch.float16 on a GPU
pipeline("a house on the beach", num_inference_steps=20).images[0].save("image.png")
```"""
LOAD_BASE = """import torch
from diffusers import {pipeline}
{also}
pipeline = {pipeline}.from_pretrained("{base}", dtype=torch.float32)  # or torch.float16 on a GPU"""
ADAPTER_EXAMPLE = """```python
{loaded}
{lora}pipeline.load_ip_adapter(
    "{location}", subfolder="{subfolder}", weight_name="{file}"{image_encoder}
)

cutout = Image.open("cutout.png").convert("RGBA")  # square: the object on a transparent background
subject = Image.new("RGB", cutout.size, (128, 128, 128))
subject.paste(cutout, mask=cutout.getchannel("A"))
{mask}image = pipeline(
    "a photo of a {word} on the beach", ip_adapter_image=subject,
    num_inference_steps=20, guidance_scale=3.5{mask_argument}
).images[0]
image.save("image.png")
```"""
LORA = 'pipeline.load_lora_weights("{name}", weight_name="pytorch_lora_weights.safetensors")'
# In stock diffusers the unconditional embedding adds something, unless a mask hides it in the unconditional half of the
# batch.
MASK = """mask = torch.cat([torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)])  # with the image's aspect ratio
"""
# The loader of FLUX takes the image encoder by separate arguments.
IMAGE_ENCODER_ARGUMENT = """,
    image_encoder_pretrained_model_name_or_path="{location}", image_encoder_subfolder="{folder}",
    image_encoder_dtype=pipeline.dtype,"""
MASK_ARGUMENT = """,
    cross_attention_kwargs={"ip_adapter_masks": [mask]},"""


@dataclass(frozen=True)
class Usage:
    """The names in the example code of a card."""

    name: str  # folder or repository
    pipeline: str  # diffusers' class
    base: str | None
    encoder: ObjectEncoder
    has_lora: bool
    has_adapter: bool


def adapter_notes(encoder: ObjectEncoder, flux: bool) -> list[str]:
    """Notes for users of the adapter."""
    kind = "base" if encoder.config["projector"] == "linear" else "plus"
    background = "on mid-grey (128)" if encoder.config["background"] == "removed" else "with its background"
    tokens = encoder.config["tokens"]
    notes = [f"IP-Adapter of the {kind} kind, {tokens} tokens; its input image is square, the object {background}."]
    if flux:
        return [*notes, "With `true_cfg_scale` above 1 stock diffusers takes a black image as unconditional input. "
                "Pass zeros as `negative_ip_adapter_image_embeds` for the result of TamingPipeline."]  # fmt: skip
    if guides_exactly(encoder):
        return [*notes, "Guidance is the same in stock diffusers and in TamingPipeline with equal guidance scales."]
    return [
        *notes,
        "In stock diffusers the unconditional image adds something, in TamingPipeline it does not: images differ if "
        "guidance_scale is not 1, unless `ip_adapter_masks` hides it as in the example code.",
    ]


def adapter_code(u: Usage) -> str:
    """Example code for stock diffusers: the base model with the adapter."""
    lora = f"{LORA.format(name=u.name)}\n" if u.has_lora else ""
    return _adapter_example(u, u.base or BASE, u.name, "", "object", lora)


def lora_code(u: Usage) -> str:
    """Example code for stock diffusers: the base model with the LoRA."""
    loaded = LOAD_BASE.format(pipeline=u.pipeline, base=u.base or BASE, also="")
    return "\n".join(["```python", loaded, LORA.format(name=u.name),
                      'pipeline("a house on the beach", num_inference_steps=20).images[0].save("image.png")',
                      "```"])  # fmt: skip


def folder_code(u: Usage) -> str:
    """Example code for TamingPipeline and for stock diffusers."""
    stock = (
        _adapter_example(u, u.name, u.name, "ip_adapter", "<object>", "")
        if u.has_adapter
        else STOCK_EXAMPLE.format(name=u.name)
    )
    return f"{TAMING_EXAMPLE.format(name=u.name)}\n\nIn stock diffusers:\n\n{stock}"


def _adapter_example(u: Usage, model: str, location: str, subfolder: str, word: str, lora: str) -> str:
    flux = u.pipeline == "FluxPipeline"
    exact = flux or guides_exactly(u.encoder)
    folder = f"{subfolder}/image_encoder".lstrip("/")
    return ADAPTER_EXAMPLE.format(
        image_encoder=IMAGE_ENCODER_ARGUMENT.format(location=location, folder=folder) if flux else "",
        loaded=LOAD_BASE.format(pipeline=u.pipeline, base=model, also="from PIL import Image\n"), lora=lora,
        location=location, subfolder=subfolder, file=FILE, word=word, mask="" if exact else MASK,
        mask_argument="" if exact else MASK_ARGUMENT,
    )  # fmt: skip


CODE = {"ip-adapter": adapter_code, "lora": lora_code, "diffusers": folder_code}
