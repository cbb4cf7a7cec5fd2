"""A whole text-to-image world in a few thousand weights, and rows to train it on: real classes, random weights."""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from PIL import Image, ImageDraw
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
)

from taming_core.bases import family as family_module
from taming_core.bases.stable_diffusion import StableDiffusion
from taming_core.images.families import TamingPipeline, assemble
from taming_core.model.attention import LAYERS, layer_channels
from taming_core.model.inputs import EncoderInputs
from taming_core.model.object_encoder import ObjectEncoder
from taming_core.params.load import load_params
from taming_core.params.train import TrainParams
from taming_core.photos.masks import mask_box
from taming_core.rows import triplets
from taming_core.tables import schema
from taming_core.tables.row_images import Background
from taming_core.tables.rows import Rows
from taming_core.training.batches import ExampleSource
from taming_core.training.start import init_injected_layers, latent_encoder, select_layers

ROOT = Path(__file__).parent.parent
SIDE = 32  # pixels; latents are 16 x 16
TOKENS = 4
PARAMS = load_params(ROOT / "params.yaml")
COLOURS = ["red", "lime", "blue", "yellow"]


def unet() -> UNet2DConditionModel:
    """Like mini's: the first level attends to the context twice."""
    return UNet2DConditionModel(
        sample_size=SIDE // 2, in_channels=4, out_channels=4, block_out_channels=(16, 24), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        only_cross_attention=(True, False), attention_head_dim=(2, 3), cross_attention_dim=16, norm_num_groups=8,
        mid_block_type="UNetMidBlock2DCrossAttn",
    ).eval()  # fmt: skip


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4,
        block_out_channels=(8, 16), layers_per_block=1, sample_size=SIDE,
    ).eval()  # fmt: skip


def family(denoiser: UNet2DConditionModel) -> StableDiffusion:
    """The denoiser with the parts that go with it."""
    return StableDiffusion({"unet": denoiser, "vae": vae(), "text_encoder": text_encoder(), "tokenizer": tokenizer()})


def text_encoder() -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=880, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, bos_token_id=1, eos_token_id=3, pad_token_id=0,
    )).eval()  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(ROOT / "taming_core/mini/encoder/tokenizer")


def token_ids(prompts: Sequence[str]) -> Tensor:
    return family_module.token_ids(tokenizer(), prompts)


def scheduler(prediction: str = "v_prediction") -> DDIMScheduler:
    """Mini's noise schedule, zero terminal SNR included."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        prediction_type=prediction, rescale_betas_zero_snr=True, timestep_spacing="trailing",
    )  # fmt: skip


TOWER = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
    "patch_size": 16,
}  # fmt: skip


def object_encoder(
    denoiser: UNet2DConditionModel, injection: str, projector: str = "full", layers: list[str] | None = None,
    tower: dict[str, Any] = TOWER, tokens: int = TOKENS, **settings: Any,
) -> ObjectEncoder:  # fmt: skip
    """A random one, put together as a fresh one is."""
    seeing = select_layers(layer_channels(denoiser, injection), layers)
    added = {"layers": seeing if injection in LAYERS or layers else None, "injection": injection, **settings}
    if injection == "reference":
        found = latent_encoder(family(denoiser), added)
    else:
        found = ObjectEncoder(tower, projector, tokens, 16, **added)
    init_injected_layers(found, denoiser)
    return found.eval()


def clip(folder: Path) -> str:
    """The folder of a CLIP model."""
    torch.manual_seed(5)
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9, "bos_token_id": 0,
            "pad_token_id": 1, "eos_token_id": 2}  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config={**TOWER, "projection_dim": 8}, projection_dim=8))
    model.save_pretrained(folder)
    return str(folder)


def dinov2(folder: Path, image_size: int = SIDE) -> str:
    """The folder of a DINOv2 model."""
    torch.manual_seed(6)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16}
    Dinov2Model(Dinov2Config(image_size=image_size, **shape)).save_pretrained(folder)
    return str(folder)


DESIGNS = ("substitute", "concat", "decoupled", "gated", "reference")


def pipeline(
    injection: str = "concat", prediction: str = "v_prediction", seed: int = 0, **encoder: Any
) -> TamingPipeline:
    torch.manual_seed(seed)
    denoiser = unet()
    parts = {"vae": vae(), "text_encoder": text_encoder(), "tokenizer": tokenizer(), "unet": denoiser,
             "scheduler": scheduler(prediction)}  # fmt: skip
    made = assemble(parts, object_encoder(denoiser, injection, **encoder))
    made.set_progress_bar_config(disable=True)
    return made


def train_params(**values: Any) -> TrainParams:
    """The default's section with other values, checked like a params file."""
    small = {"steps": 6, "batch_size": 4, "micro_batch_size": 2, "warmup": 0, "learning_rate": 1e-3, "save_every": 2}
    return TrainParams.model_validate({**PARAMS.train.model_dump(), **small, **values})


def picture(identity: int, view: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo (2 SIDE, 2 SIDE, 3) of a coloured thing, and its mask."""
    rng = np.random.default_rng([identity, view])
    ground = Image.new("RGB", (2 * SIDE, 2 * SIDE), tuple(int(v) for v in rng.integers(90, 200, 3)))
    x, y = (int(v) for v in rng.integers(2, SIDE - 4, 2))
    mask = Image.new("1", ground.size)
    for image, ink in ((ground, COLOURS[identity % len(COLOURS)]), (mask, 1)):
        shape = ImageDraw.Draw(image).ellipse if identity % 2 else ImageDraw.Draw(image).rectangle
        shape((x, y, x + SIDE, y + SIDE - 6), fill=ink)
    ImageDraw.Draw(ground).rectangle((x + 8 + 4 * view, y + 10, x + 11 + 4 * view, y + 14), fill="black")
    return np.asarray(ground), np.asarray(mask, dtype=bool)


def row(identity: int, view: int, views: int, split: str) -> dict[str, Any]:
    """An object row; the other views of its identity are its references."""
    photo, mask = picture(identity, view)
    box, p = mask_box(mask), PARAMS.materialize.model_copy(update={"size": SIDE, "subject_size": SIDE})
    name = f"{split}-{identity}-{view}"
    known = {
        "row_id": name, "photo_id": name, "file_name": f"{identity}/{view}.png", "identity": f"{split}-{identity}",
        "split": split, "regularization": False, 
        "references": [f"{split}-{identity}-{v}" for v in range(views) if v != view],
        "caption": f"a photo of a dog in view {view}", "object_caption": "a photo of a <object> on the beach",
    }  # fmt: skip
    pictures = triplets.target(photo, p, box) | triplets.subject(photo, mask, p, box)
    return dict.fromkeys(schema.ROWS.names) | known | pictures


def regularization_row(number: int) -> dict[str, Any]:
    photo, _ = picture(number, 99)
    name = f"general-{number}"
    known = {"row_id": name, "photo_id": name, "file_name": f"{name}.png", "split": "train", "regularization": True}
    p = PARAMS.materialize.model_copy(update={"size": SIDE})
    said = {"caption": "a cat in the snow", "references": []}
    return dict.fromkeys(schema.ROWS.names) | known | said | triplets.target(photo, p)


def write_rows(folder: Path, identities: int = 2, views: int = 3, regularization: int = 3, validation: int = 1) -> Path:
    """A folder of rows as `taming materialize` writes it."""
    train = [row(i, v, views, "train") for i in range(identities) for v in range(views)]
    parts = {
        "train": [*train, *(regularization_row(n) for n in range(regularization))],
        "validation": [row(9 + i, 0, 1, "validation") for i in range(validation)],
    }
    for split, rows in parts.items():
        if rows:
            expected = schema.add_fingerprint(schema.ROWS, "test")
            schema.write([schema.table(rows, schema.ROWS)], expected, folder / f"{split}-00000.parquet")
    return folder


def decoded(picture: dict[str, Any]) -> Image.Image:
    return Image.open(BytesIO(picture["bytes"]))


def source(
    rows: Rows, p: TrainParams, injection: str = "concat", background: Background = "removed", **values: Any
) -> ExampleSource:
    """Of the examples of a tiny model."""
    inputs = EncoderInputs.of({"background": background, "injection": injection})
    return replace(ExampleSource(rows, p, token_ids, inputs, SIDE), **values)
