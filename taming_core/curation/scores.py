"""Scores of images by any classifier of transformers, or by texts of one's own with CLIP."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoImageProcessor, AutoModelForImageClassification

from taming_core.errors import TamingError
from taming_core.params.sections import ScoreParams
from taming_core.weights.load import as_taming_error, load_network, no_progress_bars, preprocess_images
from taming_core.weights.locate import source_of
from taming_core.weights.mini import MINI
from taming_core.weights.zero_shot import load_similarity

Score = Callable[[Sequence[NDArray[np.uint8]], Sequence[str]], NDArray[np.float32]]  # images, classes -> (images,)


def load_score(p: ScoreParams, device: str) -> Score:
    """A callable from images (H, W, 3) and the classes of their objects to one score per image.

    With `p.texts`, the probability of the first of them by CLIP, or the cosine similarity to the only one. Without,
    the probability of `p.label` by an image classifier, or the value of a classifier with one output.

    Raises:
        TamingError: there is no such model, or it has no such label.
    """
    return _text_score(p, device) if p.texts else _label_score(p, device)


def _text_score(p: ScoreParams, device: str) -> Score:
    similarity, scale = load_similarity(p.model, device, f"detect.curation.scores.{p.name}.model")
    texts = p.texts or []

    def score(images: Sequence[NDArray[np.uint8]], nouns: Sequence[str]) -> NDArray[np.float32]:
        found = np.zeros(len(images), np.float32)
        for noun in dict.fromkeys(nouns):
            places = [n for n, other in enumerate(nouns) if other == noun]
            cosines = similarity([images[n] for n in places], [text.replace("{class}", noun) for text in texts])
            found[places] = cosines[:, 0] if len(texts) == 1 else _softmax(scale * cosines)[:, 0]
        return found

    return score


def _label_score(p: ScoreParams, device: str) -> Score:
    key, what = f"detect.curation.scores.{p.name}.model", "image classifier"
    source = source_of(p.model, MINI / "clip")
    model = load_network(AutoModelForImageClassification, source, what, key).to(device)
    with no_progress_bars(), as_taming_error(source, what, key):
        processor = cast(Any, AutoImageProcessor).from_pretrained(source)
    labels: list[str] = [model.config.id2label[i] for i in range(model.config.num_labels)]
    index = _index(p, labels)
    multi = model.config.problem_type == "multi_label_classification"

    @torch.no_grad()
    def score(images: Sequence[NDArray[np.uint8]], _nouns: Sequence[str]) -> NDArray[np.float32]:
        logits = model(preprocess_images(processor, images).to(device)).logits.float().cpu().numpy()
        if len(labels) == 1:
            return logits[:, 0]
        return (1 / (1 + np.exp(-logits)) if multi else _softmax(logits))[:, index]

    return score


def _index(p: ScoreParams, labels: Sequence[str]) -> int:
    """The output that is the score."""
    if len(labels) == 1 and p.label is None:
        return 0
    if p.label not in labels:
        known = "null, for it has one output" if len(labels) == 1 else ", ".join(labels[:20])
        raise TamingError(
            f"{p.model} has no label {p.label}. Set the label of detect.curation.scores.{p.name} to one of: {known}."
        )
    return labels.index(p.label)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
