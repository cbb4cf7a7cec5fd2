"""Masks from boxes with segment-anything (Kirillov et al., 2023).

A published SAM encodes a photo once and takes its boxes in one batch. At the resolution of a small SAM an object in a
whole photo is tiny: a folder whose config.json has a `zoom` holds a SAM that encodes a square crop around each box
instead, and whose masks can be refined to the edges in the photo.
"""

import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from taming_core.errors import TamingError
from taming_core.files import read_json
from taming_core.objects.filters import Masks, Segmenter
from taming_core.objects.published import SEGMENTER
from taming_core.objects.sam_checkpoint import to_published_names
from taming_core.weights.locate import find, weights_file
from taming_core.weights.mini import MINI

safetensors: Any = safetensors_torch  # load_file is partly untyped
_EXAMPLE = "one of the segment-anything project, such as sam_vit_b"
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

Square = tuple[int, int, int]  # left, top and side in pixels of the photo; it may reach beyond the photo


@dataclass(frozen=True)
class CropSettings:
    """How a SAM crops and refines boxes one by one: the values of the config.json beside its weights."""

    zoom: float  # side of a box's crop / longer side of the box
    edge_reach: int = 0  # radius of the guided filter in pixels of the resized crop; 0 disables it
    edge_floor: float = 0.0  # epsilon of the guided filter: variance of normalized colour below which there is no edge


def load_segmenter(spec: str, device: str) -> Segmenter:
    """A callable from an image (H, W, 3) and boxes (N, 4), xyxy in its pixels, to N masks of the image's size.

    Args:
        spec: `mini`, a SAM file (.pth or .safetensors), a folder with one and optionally a config.json with the values
            of `CropSettings`, a published name such as `sam_vit_b`, or a hub name: `facebook/sam-vit-base`, or
            `owner/repo/file.pth`.
        device: of torch.

    Raises:
        TamingError: there is no such file, or it is not a SAM checkpoint.
    """
    path = MINI / "segmenter" if spec == "mini" else find(spec, SEGMENTER)
    file = weights_file(path, SEGMENTER)
    state = read_state(file)
    try:
        sam = sam_from_state(state).to(device).eval()
    except (KeyError, RuntimeError) as error:  # a variant of SAM, with more or fewer weights
        raise TamingError(f"{file} is not a SAM checkpoint. Use {_EXAMPLE}.") from error
    settings = crop_settings(path)
    return partial(segment, SamPredictor(sam)) if settings is None else partial(segment_squares, sam, settings)


def predictor_of(segmenter: Segmenter) -> SamPredictor | None:
    """The predictor inside of a segmenter, which takes points too; None of one that sees a crop of each box."""
    return segmenter.args[0] if isinstance(segmenter, partial) and segmenter.func is segment else None


def crop_settings(path: Path) -> CropSettings | None:
    """The crop settings in the config.json of a folder; None if it has no `zoom`."""
    file = path / "config.json"
    config: dict[str, Any] = read_json(file) if file.is_file() else {}
    known = {key: config[key] for key in CropSettings.__dataclass_fields__ if key in config}
    return CropSettings(**known) if "zoom" in known else None


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, as float32; no code in the file is executed."""
    try:
        is_safe = path.suffix == ".safetensors"
        stored = safetensors.load_file(path) if is_safe else torch.load(path, "cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, OSError, EOFError) as error:
        raise TamingError(f"{path} holds more than tensors, or is damaged. Use a SAM checkpoint.") from error
    state = to_published_names(stored)
    if "image_encoder.pos_embed" not in state:
        raise TamingError(f"{path} is not a SAM checkpoint. Use {_EXAMPLE}.")
    return {name: tensor.float() for name, tensor in state.items()}


def sam_from_state(state: Mapping[str, Tensor]) -> Sam:
    """The SAM of a state dict: every width and depth is read from the tensors' shapes."""
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
    """SAM's image encoder; layers not in `global_layers` attend within windows of `window` x `window` tokens."""
    return ImageEncoderViT(
        img_size=image_size, patch_size=patch_size, embed_dim=width, depth=depth, num_heads=heads,
        mlp_ratio=mlp_ratio, window_size=window, global_attn_indexes=global_layers, out_chans=prompt_width,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),  # pyright: ignore[reportArgumentType]  (as in build_sam.py)
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
    """A SAM with the image encoder `tower` and new weights; the defaults are those of the published models."""
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
    """One mask per box (N, 4) of `photo` (H, W, 3), at its size, with the predicted quality."""
    height, width = photo.shape[:2]
    if len(boxes_xyxy) == 0:
        return Masks(np.zeros((0, height, width), np.bool_), np.zeros(0, np.float32))
    predictor.set_image(photo)
    boxes = torch.as_tensor(boxes_xyxy, dtype=torch.float32, device=predictor.device)
    scaled = predictor.transform.apply_boxes_torch(boxes, (height, width))
    logits, quality = decode_boxes(predictor, scaled)
    # One by one: as float32, and in two sizes, the masks of all boxes would need ten times the memory of the result.
    masks = [_at_size_of(predictor, of_box[None]) for of_box in logits]
    return Masks(np.stack(masks), quality[:, 0].clamp(0, 1).float().cpu().numpy())


def decode_boxes(
    predictor: SamPredictor, boxes: Float[Tensor, "n 4"]
) -> tuple[Float[Tensor, "n 1 h w"], Float[Tensor, "n 1"]]:
    """Mask logits, at the decoder's own size, and predicted qualities of boxes in the image that is set."""
    sam: Any = predictor.model
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    return sam.mask_decoder(
        image_embeddings=predictor.get_image_embedding(),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )


def _at_size_of(predictor: SamPredictor, logits: Float[Tensor, "1 1 h w"]) -> NDArray[np.bool_]:
    """The mask (H, W) of logits, at the size of the image that is set."""
    sam: Any = predictor.model
    masks = sam.postprocess_masks(logits, predictor.input_size, predictor.original_size)
    return (masks[0, 0] > sam.mask_threshold).cpu().numpy()


@torch.no_grad()
def segment_squares(
    sam: Sam, settings: CropSettings, photo: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]
) -> Masks:
    """As `segment`, with one square crop per box, centred on the box and scaled to the SAM's input size."""
    height, width = photo.shape[:2]
    if len(boxes_xyxy) == 0:
        return Masks(np.zeros((0, height, width), np.bool_), np.zeros(0, np.float32))
    pixels = normalize(sam, torch.tensor(photo, device=sam.device).permute(2, 0, 1).float())
    squares = [square_around(box, settings.zoom) for box in boxes_xyxy.tolist()]
    crops = torch.stack([resize(crop(pixels, square), sam.image_encoder.img_size) for square in squares])
    boxes = torch.stack([
        box_in_crop(box, square, sam.image_encoder.img_size)
        for box, square in zip(torch.as_tensor(boxes_xyxy, dtype=torch.float32), squares, strict=True)
    ])  # fmt: skip
    logits, quality = predict_masks(sam, sam.image_encoder(crops), boxes.to(sam.device))
    shares = snap_to_edges(upsample(logits, sam.image_encoder.img_size).sigmoid(), crops, settings)
    masks = [
        paste(share, square, height, width)[0].cpu().numpy() for share, square in zip(shares, squares, strict=True)
    ]
    return Masks(np.stack(masks), quality[:, 0].clamp(0, 1).float().cpu().numpy())


def normalize(sam: Sam, pixels: Float[Tensor, "*n 3 height width"]) -> Float[Tensor, "*n 3 height width"]:
    """Normalize pixels in [0, 255] for the image encoder; zero is padding."""
    return (pixels - sam.get_buffer("pixel_mean")) / sam.get_buffer("pixel_std")


def square_around(box_xyxy: Sequence[float], zoom: float) -> Square:
    """The square centred on a box, `zoom` times as wide as the longer side of the box.

    >>> square_around((10, 10, 30, 20), 1.5)
    (5, 0, 30)
    """
    x0, y0, x1, y1 = box_xyxy
    side = max(math.ceil(zoom * max(x1 - x0, y1 - y0)), 1)
    return round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2), side


def crop(picture: Float[Tensor, "planes height width"], square: Square) -> Float[Tensor, "planes side side"]:
    """A square crop of an image, zero beyond its border."""
    (left, top, side), (height, width) = square, picture.shape[-2:]
    return F.pad(picture, (-left, left + side - width, -top, top + side - height))


def resize(picture: Float[Tensor, "planes side side"], size: int) -> Float[Tensor, "planes size size"]:
    """Resize bilinearly, with antialiasing."""
    return F.interpolate(picture[None], (size, size), mode="bilinear", antialias=True)[0]


def box_in_crop(box_xyxy: Float[Tensor, "4"], square: Square, size: int) -> Float[Tensor, "4"]:
    """A box of the photo in the pixels of its resized crop."""
    left, top, side = square
    return (box_xyxy - torch.tensor([left, top, left, top])) * (size / side)


def paste(share: Float[Tensor, "1 h w"], square: Square, height: int, width: int) -> Bool[Tensor, "1 height width"]:
    """The mask of a crop at photo size: where the object covers more than half of a pixel."""
    left, top, side = square
    mask = F.interpolate(share[None], (side, side), mode="bilinear")[0] > 0.5
    return F.pad(mask, (left, width - left - side, top, height - top - side))


def upsample(logits: Float[Tensor, "n 1 h w"], size: int) -> Float[Tensor, "n 1 size size"]:
    """Mask logits at the size of the resized crop."""
    return F.interpolate(logits, (size, size), mode="bilinear")


def snap_to_edges(
    shares: Float[Tensor, "n 1 size size"], guide: Float[Tensor, "n 3 size size"], settings: CropSettings
) -> Float[Tensor, "n 1 size size"]:
    """The share of each pixel that an object covers, in [0, 1], with outlines refined to edges of the image `guide`.

    A guided filter: within each window the shares become a linear function of colour, the least-squares fit (He, Sun
    and Tang, "Guided Image Filtering", 2010, equation 19). A patch-based network finds the object, colour its outline.
    """
    radius = settings.edge_reach
    if not radius:
        return shares

    def mean(x: Float[Tensor, "n c size size"]) -> Float[Tensor, "n c size size"]:
        rows = F.avg_pool2d(x, (2 * radius + 1, 1), 1, (radius, 0), count_include_pad=False)
        return F.avg_pool2d(rows, (1, 2 * radius + 1), 1, (0, radius), count_include_pad=False)

    colour, share = mean(guide), mean(shares)
    covariance = [mean(guide * guide[:, i : i + 1]) - colour * colour[:, i : i + 1] for i in range(3)]
    for i, column in enumerate(covariance):
        column[:, i] += settings.edge_floor
    # Cramer's rule: a batched solver takes a hundred times as long.
    linalg: Any = torch.linalg  # cross is untyped
    normals: list[Tensor] = [linalg.cross(covariance[i - 2], covariance[i - 1], dim=1) for i in range(3)]
    volume = (covariance[0] * normals[0]).sum(1, keepdim=True)
    cross_covariance = mean(guide * shares) - colour * share
    slope = torch.cat([(cross_covariance * normal).sum(1, keepdim=True) for normal in normals], 1) / volume
    offset = share - (slope * colour).sum(1, keepdim=True)
    return ((mean(slope) * guide).sum(1, keepdim=True) + mean(offset)).clamp(0, 1)


def predict_masks(
    sam: Sam, embedding: Float[Tensor, "n width grid grid"], boxes: Float[Tensor, "n 4"]
) -> tuple[Float[Tensor, "n 1 h w"], Float[Tensor, "n 1"]]:
    """Mask logits and predicted qualities of boxes, one per image embedding."""
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    # The decoder takes one image embedding and adds the dense prompts, so the embeddings are passed as dense prompts.
    return sam.mask_decoder(
        image_embeddings=torch.zeros_like(embedding[:1]),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense + embedding,
        multimask_output=False,
    )
