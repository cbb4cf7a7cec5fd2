"""How well the matcher of `mini` separates true captions from false ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.mini.blip import SIZE
from pipelines.mini.matcher_captions import FALSE, TRUE, Caption, MatcherParams, text_of, training_captions
from pipelines.mini.metrics import share_with_interval
from pipelines.mini.teacher_features import facts_of
from pipelines.mini.tower_heads import trained_names
from pipelines.mini.world_data import WorldData
from taming_core.captions.matcher import Matcher, load_matcher
from taming_core.seeds import seed_for
from taming_core.world.photos import render


def measure(folder: Path, data: WorldData, p: MatcherParams) -> dict[str, Any]:
    """Metrics on new photos of trained and of held-out concepts.

    Held-out concepts are described by their class, for their names are in no training caption.
    """
    match, metrics = load_matcher(str(folder), data.device), dict[str, Any]({"photos": p.eval_photos})
    for split, true in (("train", 0), ("unseen-concepts", 1)):
        result = measure_split(match, data, split, true, p)
        metrics |= {f"{split}/{name}": value for name, value in result.items()}
    return metrics


def measure_split(match: Matcher, data: WorldData, split: str, true: int, p: MatcherParams) -> dict[str, float]:
    """AUC of true captions (kind `true` of TRUE) against each kind of false ones.

    Each photo has one caption of each kind, with a scene. `accepted` and `refused` are shares at probability 0.5.
    """
    world, seed = data.world, seed_for(p.seed, "matcher/test", 0)
    photos = render(world, data.pictures, seed, 0, p.eval_photos, SIZE, split, p.chances)
    facts, rng = [facts_of(world, plan) for plan in photos.plans], np.random.default_rng(p.seed)
    plain, names = p.model_copy(update={"no_scene_share": 0.0, "object_share": 0.0}), trained_names(world)
    pairs = zip(facts, [*facts[1:], facts[0]], strict=True)
    captions = [training_captions(own, other, world, names, rng, plain) for own, other in pairs]
    scores = scores_of(match, [image.numpy() for image in photos.image], captions)
    false = {k: scores[i] for i, k in enumerate(FALSE, len(TRUE)) if split == "train" or k != "other name"}
    one_fact = np.concatenate([column for kind, column in false.items() if kind != "other photo"])
    subjects = [f.name for f in facts]
    return {
        **{kind: roc_auc(scores[true], column) for kind, column in false.items()},
        "any one fact": roc_auc(scores[true], one_fact),
        **share_with_interval("accepted", scores[true] > 0.5, subjects),
        **share_with_interval("refused", false["other photo"] < 0.5, subjects),
    }


def scores_of(
    match: Matcher, images: Sequence[NDArray[np.uint8]], captions: Sequence[Sequence[Caption]]
) -> NDArray[np.float32]:
    """The matcher's scores (kinds, photos) of the captions of each photo."""
    return np.stack([match(images, [text_of(c) for c in kind]) for kind in zip(*captions, strict=True)])


def roc_auc(true: NDArray[np.float32], false: NDArray[np.float32]) -> float:
    """Area under the ROC curve: how often a true caption scores above a false one.

    >>> roc_auc(np.float32([0.9, 0.4]), np.float32([0.4, 0.1]))
    0.875
    """
    above, equal = true[:, None] > false[None], true[:, None] == false[None]
    return float(above.mean() + 0.5 * equal.mean())
