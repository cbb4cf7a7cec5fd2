"""The class of a detected object by a model that sees its cut-out, instead of the detector's class.

A detector names what it was trained on. An image classifier, or CLIP with any list of nouns (Radford et al., 2021,
section 3.1), names objects whose boxes a class-agnostic or an open-vocabulary detector finds.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from taming_core.errors import TamingError
from taming_core.language.placeholder import prefix_for
from taming_core.weights.load import as_taming_error, load_network, no_progress_bars, preprocess_images
from taming_core.weights.locate import source_of
from taming_core.weights.mini import MINI
from taming_core.weights.zero_shot import load_similarity

KEY, WHAT = "detect.classifier", "classifier"


class Named(NamedTuple):
    """The likeliest class of an object."""

    noun: str
    probability: float  # in [0, 1]


Images = Sequence[NDArray[np.uint8]]  # (H, W, 3) RGB
ObjectClassifier = Callable[[Images], list[Named]]  # cut-outs on mid-grey -> the class of each


def load_object_classifier(spec: str, names: Sequence[str] | None, device: str) -> ObjectClassifier:
    """A callable from cut-outs on mid-grey to the likeliest class of each.

    Args:
        spec: `mini`, a folder, or a hub name: an image classifier, which has classes of its own, or a model with
            features of images and texts, such as CLIP or SigLIP.
        names: the classes that texts name for CLIP; None for an image classifier.
        device: of torch.

    Raises:
        TamingError: there is no such model, or `names` are given to an image classifier, or missing for CLIP.
    """
    source = source_of(spec, MINI / "classifier")
    with no_progress_bars(), as_taming_error(source, WHAT, KEY):
        architectures: Sequence[str] = cast(Any, AutoConfig).from_pretrained(source).architectures or [""]
    if architectures[0].endswith("ForImageClassification"):
        if names is not None:
            raise TamingError(f"{spec} has classes of its own, so detect.class_names has no effect. Set it to null, or "
                              f"{KEY} to a CLIP model.")  # fmt: skip
        return _load_image_classifier(source, device)
    if names is None:
        raise TamingError(f"{spec} has no classes of its own. Set detect.class_names to the nouns to choose from.")
    similarity, scale = load_similarity(spec, device, KEY)
    texts = [prefix_for(name) for name in names]
    return partial(_likeliest, lambda images: scale * similarity(images, texts), names)


def _load_image_classifier(source: str, device: str) -> ObjectClassifier:
    model = load_network(AutoModelForImageClassification, source, WHAT, KEY).to(device)
    with no_progress_bars(), as_taming_error(source, WHAT, KEY):
        processor = cast(Any, AutoImageProcessor).from_pretrained(source)
    # ImageNet's labels list synonyms: "tabby, tabby cat".
    names = [model.config.id2label[i].split(",")[0].strip().lower() for i in range(model.config.num_labels)]

    @torch.no_grad()
    def logits(images: Images) -> NDArray[np.float32]:
        return model(pixel_values=preprocess_images(processor, images).to(device)).logits.float().cpu().numpy()

    return partial(_likeliest, logits, names)


def _likeliest(logits: Callable[[Images], NDArray[np.float32]], names: Sequence[str], images: Images) -> list[Named]:
    """The likeliest class of each image, by the softmax of the logits (images, names)."""
    if not images:
        return []
    values = logits(images).astype(np.float64)
    exponentials = np.exp(values - values.max(1, keepdims=True))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    best: list[int] = probabilities.argmax(1).tolist()
    return [Named(names[i], float(row[i])) for i, row in zip(best, probabilities, strict=True)]
