"""Zero-shot classification with CLIP (Radford et al., 2021): how well texts describe images."""

from taming_core.captions.attributes import Classifier
from taming_core.weights.zero_shot import load_similarity

KEY = "caption.attributes.model"


def load_classifier(spec: str, device: str) -> Classifier:
    """A callable from images (H, W, 3) uint8 and texts to logits (images, texts); see `load_similarity`."""
    similarity, scale = load_similarity(spec, device, KEY)
    return lambda images, texts: scale * similarity(images, texts)
