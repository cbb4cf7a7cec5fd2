"""How an export is used: the code and the words of its card."""

from dataclasses import dataclass

from taming_core.exports.ip_adapter import FILE, guides_exactly
from taming_core.model.object_encoder import ObjectEncoder

TITLES = {
    "ip-adapter": "A Taming Encoder as an IP-Adapter",
    "lora": "A LoRA of a Taming Encoder's denoiser",
    "diffusers": "A Taming Encoder",
}
TAGS = {"ip-adapter": ["ip-adapter"], "lora": ["lora"], "diffusers": []}
BASE = "the-base-model"  # where it is not known

OURS = """```python
from PIL import Image
from taming_core import TamingPipeline

pipeline = TamingPipeline.from_pretrained("{name}")
subject = Image.open("cutout.png")  # the thing, its background transparent
pipeline("a photo of a <object> on the beach", subject=subject).images[0].save("image.png")
```"""
STOCK = """```python
import torch
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{name}", dtype=torch.float32)  # or torch.float16 on a GPU
pipeline("a house on the beach", num_inference_steps=20).images[0].save("image.png")
```"""
LOADED = """import torch
from diffusers import {pipeline}
{also}
pipeline = {pipeline}.from_pretrained("{base}", dtype=torch.float32)  # or torch.float16 on a GPU"""
ADAPTED = """```python
{loaded}
{lora}pipeline.load_ip_adapter(
    "{place}", subfolder="{subfolder}", weight_name="{file}"{tower}
)

cutout = Image.open("cutout.png").convert("RGBA")  # square: the thing, its background transparent
subject = Image.new("RGB", cutout.size, (128, 128, 128))
subject.paste(cutout, mask=cutout.getchannel("A"))
{mask}image = pipeline(
    "a photo of a {word} on the beach", ip_adapter_image=subject,
    num_inference_steps=20, guidance_scale=3.5{given}
).images[0]
image.save("image.png")
```"""
LORA = 'pipeline.load_lora_weights("{name}", weight_name="pytorch_lora_weights.safetensors")'
# Stock diffusers lets the null embedding add something, unless it is masked away in the half of the batch without text.
MASK = """shown = torch.cat([torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)])  # as wide and high as the image is
"""
# FLUX's loader looks for the image encoder elsewhere.
TOWER = """,
    image_encoder_pretrained_model_name_or_path="{place}", image_encoder_subfolder="{folder}",
    image_encoder_dtype=pipeline.dtype,"""
GIVEN = """,
    cross_attention_kwargs={"ip_adapter_masks": [shown]},"""


@dataclass(frozen=True)
class Usage:
    """What the code of a card names."""

    name: str  # folder or repository
    pipeline: str  # diffusers' class
    base: str | None
    encoder: ObjectEncoder
    has_lora: bool
    has_adapter: bool


def adapter_notes(encoder: ObjectEncoder, flux: bool) -> list[str]:
    """What a user of the adapter must know."""
    kind = "base" if encoder.config["projector"] == "linear" else "plus"
    ground = "on mid-grey (128)" if encoder.config["background"] == "removed" else "with its background"
    tokens = encoder.config["tokens"]
    found = [f"IP-Adapter of the {kind} kind, {tokens} tokens; its picture is square, the thing {ground}."]
    if flux:
        return [*found, "With `true_cfg_scale` above 1 stock diffusers takes a black picture for its null; zeros as "
                "`negative_ip_adapter_image_embeds` are what TamingPipeline takes."]  # fmt: skip
    if guides_exactly(encoder):
        return [*found, "Guidance is the same in stock diffusers as in TamingPipeline with both guidances alike."]
    return [
        *found,
        "Stock diffusers lets the null picture add something, which TamingPipeline does not: images differ as soon as "
        "guidance_scale is not 1, unless `ip_adapter_masks` hides it as in the code of the card.",
    ]


def adapter_code(u: Usage) -> str:
    """Stock diffusers, the base model, and the adapter beside it."""
    lora = f"{LORA.format(name=u.name)}\n" if u.has_lora else ""
    return _adapted(u, u.base or BASE, u.name, "", "object", lora)


def lora_code(u: Usage) -> str:
    """Stock diffusers, the base model, and the LoRA on it."""
    loaded = LOADED.format(pipeline=u.pipeline, base=u.base or BASE, also="")
    return "\n".join(["```python", loaded, LORA.format(name=u.name),
                      'pipeline("a house on the beach", num_inference_steps=20).images[0].save("image.png")',
                      "```"])  # fmt: skip


def folder_code(u: Usage) -> str:
    """TamingPipeline, and what stock diffusers makes of the folder."""
    stock = _adapted(u, u.name, u.name, "ip_adapter", "<object>", "") if u.has_adapter else STOCK.format(name=u.name)
    return f"{OURS.format(name=u.name)}\n\nIn stock diffusers:\n\n{stock}"


def _adapted(u: Usage, opened: str, place: str, subfolder: str, word: str, lora: str) -> str:
    flux = u.pipeline == "FluxPipeline"
    exact = flux or guides_exactly(u.encoder)
    folder = f"{subfolder}/image_encoder".lstrip("/")
    return ADAPTED.format(
        tower=TOWER.format(place=place, folder=folder) if flux else "",
        loaded=LOADED.format(pipeline=u.pipeline, base=opened, also="from PIL import Image\n"), lora=lora,
        place=place, subfolder=subfolder, file=FILE, word=word, mask="" if exact else MASK,
        given="" if exact else GIVEN,
    )  # fmt: skip


CODE = {"ip-adapter": adapter_code, "lora": lora_code, "diffusers": folder_code}
