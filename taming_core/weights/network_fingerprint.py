"""What identifies a pretrained image network, whatever its name, class and precision."""

from typing import Any

import torch
from torch import nn

from taming_core.fingerprints import digest


def network_fingerprint(network: nn.Module) -> str:
    """16 hex digits that identify the weights of an image network, of a CLIP-like model those of its vision tower.

    They are of the first block in fp16, which stays the same when a network is fine-tuned from the top, saved in half
    precision, or loaded without its head or its text encoder.
    """
    vision = getattr(network, "vision_model", network)
    weights = sorted(first_block(vision).state_dict().items())
    halves = (w.detach().to("cpu", torch.float16).contiguous() for _, w in weights if w.is_floating_point())
    return digest(map(_bytes, halves))


def state_digest(network: nn.Module) -> str:
    """16 hex digits that change with any value of a network's weights, wherever they lie."""
    tensors = ((name, w.detach().cpu().contiguous()) for name, w in sorted(network.state_dict().items()))
    return digest(part for name, w in tensors for part in (name.encode(), _bytes(w)))


def _bytes(w: torch.Tensor) -> bytes:
    return w.reshape(-1).view(torch.uint8).numpy().tobytes()


def first_block(vision: Any) -> nn.Module:
    """The first block of a network that holds weights; the network itself if it has no blocks."""
    blocks = (block for m in vision.modules() if isinstance(m, nn.ModuleList) for block in m)
    return next((block for block in blocks if next(block.parameters(), None) is not None), vision)
