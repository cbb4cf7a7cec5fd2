"""A base model of every family in a few thousand random weights, of its own classes, saved as its pipeline saves it."""

import json
from pathlib import Path
from typing import Any

import diffusers
import tiny
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from taming_core.language.placeholder import OBJECT

FAMILIES = ("sd15", "sdxl", "sd3", "flux")
T5_WIDTH, T5_LENGTH = 32, 16


def clip(kind: type = CLIPTextModel, projection: int = 8) -> Any:
    """With the ids of published configs, which are not those of the tokenizer."""
    config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer()), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, bos_token_id=0, eos_token_id=2, pad_token_id=1,
        projection_dim=projection,
    )  # fmt: skip
    return kind(config).eval()


def clip_tokenizer(pad: str = "<eos>") -> PreTrainedTokenizerFast:
    """Mini's words with ids as in published tokenizers: no `<object>`, EOS the highest, and padding with EOS or "!"."""
    made = json.loads(tiny.tokenizer().backend_tokenizer.to_str())
    special = ("<pad>", "<bos>", "<unk>", "<eos>", OBJECT)
    words = [w for w in made["model"]["vocab"] if w not in special]
    ids = {word: n for n, word in enumerate(dict.fromkeys(["!", "object", *words, "<bos>", "<eos>"]))}
    made["model"] |= {"vocab": ids, "unk_token": "<eos>"}
    made["added_tokens"] = [{**t, "id": ids[t["content"]]} for t in made["added_tokens"] if t["content"] in ids]
    for name, token in made["post_processor"]["special_tokens"].items():
        token["ids"] = [ids[name]]
    backend = Tokenizer.from_str(json.dumps(made))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", unk_token="<eos>", pad_token=pad,
        model_max_length=32,
    )  # fmt: skip


def t5() -> T5EncoderModel:
    config = T5Config(vocab_size=900, d_model=T5_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def t5_tokenizer() -> PreTrainedTokenizerFast:
    found = clip_tokenizer("!")
    found.model_max_length = T5_LENGTH
    return found


def wide_vae(channels: int) -> AutoencoderKL:
    """With the shift of newer autoencoders."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4,
        block_out_channels=(8, 16), layers_per_block=1, sample_size=tiny.SIDE, latent_channels=channels,
        scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False,
    ).eval()  # fmt: skip


def unet() -> UNet2DConditionModel:
    """As the UNets of Stable Diffusion are put together, other than mini's: self-attention, then cross-attention."""
    return UNet2DConditionModel(
        sample_size=tiny.SIDE // 2, block_out_channels=(16, 24), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, cross_attention_dim=16, mid_block_type="UNetMidBlock2DCrossAttn",
    ).eval()  # fmt: skip


def sd15() -> dict[str, Any]:
    return {
        "vae": tiny.vae(), "text_encoder": clip(), "tokenizer": clip_tokenizer(), "unet": unet(),
        "scheduler": DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False),
    }  # fmt: skip


def sdxl() -> dict[str, Any]:
    unet = UNet2DConditionModel(
        sample_size=tiny.SIDE // 2, block_out_channels=(16, 24), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 3), transformer_layers_per_block=(1, 2), cross_attention_dim=32,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 8, mid_block_type="UNetMidBlock2DCrossAttn",
    ).eval()  # fmt: skip
    return {
        **sd15(), "unet": unet, "text_encoder_2": clip(CLIPTextModelWithProjection),
        "tokenizer_2": clip_tokenizer("!"),
    }  # fmt: skip


def sd3() -> dict[str, Any]:
    transformer = SD3Transformer2DModel(
        sample_size=tiny.SIDE // 2, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=T5_WIDTH, caption_projection_dim=16, pooled_projection_dim=16,
        pos_embed_max_size=24, qk_norm="rms_norm", dual_attention_layers=(0,),
    ).eval()  # fmt: skip
    return {
        "vae": wide_vae(4), "transformer": transformer, "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "text_encoder": clip(CLIPTextModelWithProjection), "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip(CLIPTextModelWithProjection), "tokenizer_2": clip_tokenizer("!"),
        "text_encoder_3": t5(), "tokenizer_3": t5_tokenizer(),
    }  # fmt: skip


def flux() -> dict[str, Any]:
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=2, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=T5_WIDTH, pooled_projection_dim=16, guidance_embeds=True, axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip
    return {
        "vae": wide_vae(4), "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        "text_encoder": clip(), "tokenizer": clip_tokenizer(), "text_encoder_2": t5(), "tokenizer_2": t5_tokenizer(),
    }  # fmt: skip


PARTS = {"sd15": sd15, "sdxl": sdxl, "sd3": sd3, "flux": flux}
STOCK: dict[str, Any] = {
    "sd15": diffusers.StableDiffusionPipeline, "sdxl": diffusers.StableDiffusionXLPipeline,
    "sd3": diffusers.StableDiffusion3Pipeline, "flux": diffusers.FluxPipeline,
}  # fmt: skip


def parts(family: str) -> dict[str, Any]:
    torch.manual_seed(3)
    return PARTS[family]()


def stock(family: str, of: dict[str, Any]) -> Any:
    """diffusers' own pipeline of these parts."""
    more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    made = STOCK[family](**of, **(more if family == "sd15" else {}))
    made.set_progress_bar_config(disable=True)
    return made


def saved(family: str, folder: Path) -> str:
    """The folder of a base model."""
    stock(family, parts(family)).save_pretrained(folder)
    return str(folder)
