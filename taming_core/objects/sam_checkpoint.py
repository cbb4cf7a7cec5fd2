"""SAM checkpoints of transformers, renamed to the parameter names of segment-anything."""

import re
from collections.abc import Mapping

from torch import Tensor

MARK = "vision_encoder.pos_embed"  # only in transformers' checkpoints
HEAD = r"^(mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+)\.)"  # three-layer MLPs
PATTERNS = (
    (rf"{HEAD}layers\.0\.", r"\1layers.1."),
    (rf"{HEAD}proj_in\.", r"\1layers.0."),
    (rf"{HEAD}proj_out\.", r"\1layers.2."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    # one tensor, which some files have under both names
    (
        r"^(shared_image|prompt_encoder\.shared)_embedding\.positional_embedding$",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.", "image_encoder."),
    (r"\.layer_norm(\d|_final_attn)\.", r".norm\1."),
)


def to_published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of transformers' `SamModel` with the names of segment-anything; any other is copied unchanged."""
    if MARK not in state:
        return dict(state)
    return {_rename(name): tensor for name, tensor in state.items()}


def _rename(name: str) -> str:
    for pattern, replacement in PATTERNS:
        name = re.sub(pattern, replacement, name)
    return name
