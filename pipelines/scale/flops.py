"""The floating-point operations of the profiles' data networks per photo, counted with tensors that have no memory.

Example:  python -m pipelines.scale.flops
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from segment_anything import sam_model_registry
from torch.utils.flop_counter import FlopCounterMode
from transformers import BlipConfig, BlipForConditionalGeneration, BlipForImageTextRetrieval, PreTrainedModel

PATCHES = 577  # of an image of 384 pixels, with the token of the whole
BEAMS, WORDS = 3, 12  # caption.num_beams of the profiles; tokens of a caption of BLIP
# Salesforce/blip-image-captioning-large and blip-itm-large-coco.
BLIP_LARGE = {
    "vision_config": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                      "num_attention_heads": 16, "image_size": 384, "patch_size": 16},
    "text_config": {"hidden_size": 768, "encoder_hidden_size": 1024, "num_hidden_layers": 12,
                    "num_attention_heads": 12, "intermediate_size": 3072},
    "image_text_hidden_size": 256,
}  # fmt: skip


def counted(call: Callable[[], object]) -> float:
    """Operations of a call, in 10**12."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12


def blip(kind: type[PreTrainedModel]) -> Any:
    """A large BLIP without weights."""
    return kind._from_config(BlipConfig(**cast(dict[str, Any], BLIP_LARGE))).eval()  # pyright: ignore[reportPrivateUsage]


def detector() -> float:
    """yolo11m-seg at 640 pixels; it reads numbers from its tensors, so it runs."""
    # It replaces functions of torch and PIL for the whole process, so it is imported late.
    from ultralytics.nn.tasks import SegmentationModel

    with torch.device("cpu"):
        network = cast(Any, SegmentationModel("yolo11m-seg.yaml", verbose=False)).eval()
        return counted(lambda: network(torch.zeros(1, 3, 640, 640)))


def segmenter() -> float:
    """The image encoder of SAM ViT-H at 1024 pixels; its decoder takes a hundredth of that for each object."""
    encoder = cast(Any, sam_model_registry["vit_h"]()).image_encoder
    return counted(lambda: encoder(torch.zeros(1, 3, 1024, 1024)))


def captioner() -> float:
    """BLIP: the image once, and each token of each beam, with the keys of earlier tokens kept."""
    network = blip(BlipForConditionalGeneration)
    return of_image(network) + of_text(network.text_decoder, BEAMS, WORDS)


def matcher() -> float:
    """BLIP's matching head on one caption."""
    network = blip(BlipForImageTextRetrieval)
    return of_image(network) + of_text(network.text_encoder, 1, WORDS + 2)


def of_image(network: Any) -> float:
    """BLIP's image encoder."""
    return counted(lambda: network.vision_model(torch.zeros(1, 3, 384, 384)))


def of_text(network: Any, texts: int, length: int) -> float:
    """BLIP's text network on texts of one image; masks with four axes are taken as they are, without a look at them."""
    seen = torch.zeros(texts, PATCHES, 1024)
    masks = {"attention_mask": torch.zeros(texts, 1, length, length),
             "encoder_attention_mask": torch.zeros(texts, 1, length, PATCHES)}  # fmt: skip
    return counted(lambda: network(torch.zeros(texts, length, dtype=torch.long), encoder_hidden_states=seen, **masks))


NETWORKS = {"detector": detector, "segmenter": segmenter, "captioner": captioner, "matcher": matcher}


def main() -> None:
    """Print the operations of each network in TFLOP."""
    with torch.device("meta"):
        for name, count in NETWORKS.items():
            print(f"{name}: {count():.3f}")


if __name__ == "__main__":
    main()
