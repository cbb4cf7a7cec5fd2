"""The pretrained networks that an encoder is made of and trained against, which must not judge it."""

from pathlib import Path
from typing import Any

from transformers import AutoModel

from taming_core.files import read_json
from taming_core.images.families import TamingPipeline
from taming_core.model import clip
from taming_core.params.train import TrainParams
from taming_core.weights.load import load_network
from taming_core.weights.mini import encoder_folder
from taming_core.weights.network_fingerprint import network_fingerprint

Fingerprints = dict[str, list[str]]  # role -> of each network that had it


def network_fingerprints(start: TamingPipeline, p: TrainParams) -> Fingerprints:
    """Fingerprints of the tower and of the identity network, with those of the training that this one continues.

    Args:
        start: the pipeline before the first step, whose tower has the pretrained weights.
        p: the params.
    """
    vision: Any = getattr(start.object_encoder, "vision", None)  # `reference` has none
    own = {"tower": [] if vision is None else [network_fingerprint(vision)], "identity_network": []}
    if p.identity_network is not None:
        source, key = clip.source(p.identity_network), "train.identity_network"
        own["identity_network"].append(network_fingerprint(load_network(AutoModel, source, "model", key, "pooler")))
    earlier = {} if p.start is None else recorded(encoder_folder(p.start))
    return {role: sorted({*prints, *earlier.get(role, [])}) for role, prints in own.items()}


def recorded(folder: Path) -> Fingerprints:
    """The fingerprints in the training.json of an encoder; empty for an older one, or without the file."""
    path = folder / "training.json"
    return read_json(path).get("networks", {}) if path.is_file() else {}
