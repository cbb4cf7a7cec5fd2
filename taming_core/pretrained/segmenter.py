"""Boxes to masks with segment-anything (Kirillov et al., 2023): a photo is encoded once, its boxes in one batch."""

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from taming_core.errors import TamingError
from taming_core.objects import Masks

MINI = Path(__file__).parent / "mini" / "segmenter" / "model.safetensors"
PUBLISHED = {
    "sam_vit_b": "sam_vit_b_01ec64.pth",
    "sam_vit_l": "sam_vit_l_0b3195.pth",
    "sam_vit_h": "sam_vit_h_4b8939.pth",
}
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

Segmenter = Callable[[NDArray[np.uint8], NDArray[np.float32]], Masks]


def load_segmenter(spec: str, device: str) -> Segmenter:
    """A callable from a photo (H, W, 3) and boxes (N, 4), xyxy in pixels, to N masks at photo size.

    `spec` is `mini`, a SAM file (.pth or .safetensors), a folder that holds one, or a published name such as
    `sam_vit_b`, looked up in the working directory. Raises TamingError if there is no such file, or it is no SAM.
    """
    sam = sam_from_state(read_state(find_weights(spec))).to(device).eval()
    return partial(segment, SamPredictor(sam))


def find_weights(spec: str) -> Path:
    """The weights file that `spec` means."""
    path = MINI if spec == "mini" else Path(PUBLISHED.get(spec, spec))
    if path.is_dir():
        found = sorted([*path.glob("*.safetensors"), *path.glob("*.pth")])
        path = found[0] if len(found) == 1 else path / "model.safetensors"
    if not path.is_file():
        raise TamingError(
            f"There is no segmenter file {path}. Put a SAM checkpoint there, for example {PUBLISHED['sam_vit_b']} "
            "of the segment-anything project, or set the segmenter to mini or to the path of a .pth file."
        )
    return path


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, as float32; nothing in the file is executed."""
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError) as error:
        raise TamingError(f"{path} holds more than tensors, or is damaged. Use a SAM checkpoint.") from error
    if "image_encoder.pos_embed" not in state:
        raise TamingError(f"{path} is not a SAM checkpoint. Use one of the segment-anything project, such as vit_b.")
    return {name: tensor.float() for name, tensor in state.items()}


def sam_from_state(state: Mapping[str, Tensor]) -> Sam:
    """The network that fits `state`, with its weights: every width and depth is read from the tensors' shapes."""
    encoder = _encoder_like(state)
    prompt_width, grid = state["image_encoder.neck.0.weight"].shape[0], encoder.img_size // _patch(state)
    sam = assemble(
        encoder,
        prompt_width,
        grid,
        mask_channels=state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        mlp_width=state["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
        extra_masks=state["mask_decoder.mask_tokens.weight"].shape[0] - 1,
        quality_width=state["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
    )
    sam.load_state_dict(dict(state))
    return sam


def _patch(state: Mapping[str, Tensor]) -> int:
    return state["image_encoder.patch_embed.proj.weight"].shape[-1]


def _encoder_like(state: Mapping[str, Tensor]) -> ImageEncoderViT:
    grid, width = state["image_encoder.pos_embed"].shape[1], state["image_encoder.pos_embed"].shape[3]
    depth = sum(name.endswith("attn.rel_pos_h") for name in state)
    offsets = [state[f"image_encoder.blocks.{i}.attn.rel_pos_h"] for i in range(depth)]
    sides = [(table.shape[0] + 1) // 2 for table in offsets]  # a table holds 2 * side - 1 offsets
    return encoder(
        image_size=grid * _patch(state),
        patch_size=_patch(state),
        width=width,
        depth=depth,
        heads=width // offsets[0].shape[1],
        mlp_ratio=state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / width,
        window=min(sides),
        global_layers=tuple(i for i, side in enumerate(sides) if side == grid),
        prompt_width=state["image_encoder.neck.0.weight"].shape[0],
    )


def encoder(
    *,
    image_size: int,
    patch_size: int,
    width: int,
    depth: int,
    heads: int,
    mlp_ratio: float,
    window: int,
    global_layers: tuple[int, ...],
    prompt_width: int,
) -> ImageEncoderViT:
    """SAM's image tower; layers not in `global_layers` attend within windows of `window` tokens a side."""
    return ImageEncoderViT(
        img_size=image_size, patch_size=patch_size, embed_dim=width, depth=depth, num_heads=heads,
        mlp_ratio=mlp_ratio, window_size=window, global_attn_indexes=global_layers, out_chans=prompt_width,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),  # pyright: ignore[reportArgumentType]  (as build_sam.py does)
        qkv_bias=True, use_rel_pos=True,
    )  # fmt: skip


def assemble(
    tower: ImageEncoderViT,
    prompt_width: int,
    grid: int,
    *,
    mask_channels: int = 16,
    mlp_width: int = 2048,
    extra_masks: int = 3,
    quality_width: int = 256,
) -> Sam:
    """A SAM around `tower`, with fresh weights; the defaults are those of the published models."""
    return Sam(
        image_encoder=tower,
        prompt_encoder=PromptEncoder(
            embed_dim=prompt_width, mask_in_chans=mask_channels,
            image_embedding_size=(grid, grid), input_image_size=(tower.img_size, tower.img_size),
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=extra_masks, transformer_dim=prompt_width,
            transformer=TwoWayTransformer(depth=2, embedding_dim=prompt_width, mlp_dim=mlp_width, num_heads=8),
            iou_head_depth=3, iou_head_hidden_dim=quality_width,
        ),
        pixel_mean=list(PIXEL_MEAN), pixel_std=list(PIXEL_STD),
    )  # fmt: skip


@torch.no_grad()
def segment(predictor: SamPredictor, photo: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]) -> Masks:
    """One mask per box of `photo` (H, W, 3), at photo size, with the quality that the model predicts."""
    height, width = photo.shape[:2]
    if len(boxes_xyxy) == 0:
        return Masks(np.zeros((0, height, width), np.bool_), np.zeros(0, np.float32))
    predictor.set_image(photo)
    boxes = torch.as_tensor(boxes_xyxy, dtype=torch.float32, device=predictor.device)
    scaled = predictor.transform.apply_boxes_torch(boxes, (height, width))
    masks, quality, _ = predictor.predict_torch(None, None, scaled, multimask_output=False)
    return Masks(masks[:, 0].cpu().numpy(), quality[:, 0].clamp(0, 1).float().cpu().numpy())
