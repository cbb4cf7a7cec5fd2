"""DINO, CLIP-I and CLIP-T, as papers report them: cosines of whole images with photos and prompts.

Ruiz et al., "DreamBooth", 2023, section 4.2, but compared with photos that the encoder did not see; the score against
the photo it saw stands beside. Images are preprocessed by each model's own processor.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from taming_core.evaluation.gallery import chunks
from taming_core.evaluation.independence import Roles
from taming_core.evaluation.judges import ImageJudge, Judge, TextJudge, load_judge, load_text_judge
from taming_core.evaluation.measures import ImageScores
from taming_core.evaluation.perceptual import PairDistance, load_dreamsim, load_lpips
from taming_core.evaluation.protocol import EvalSubject
from taming_core.evaluation.statistics import Features
from taming_core.evaluation.views import ViewFeatures, Views, best_object, features, other_numbers
from taming_core.language.placeholder import prompt_for
from taming_core.params.sections import EvaluationScores
from taming_core.weights.network_fingerprint import network_fingerprint

VISION, CLIPS = ("dino", "dinov2"), {"clip_b32": "b32", "clip_l14": "l14"}  # keys of params; endings of measures


class ScoreNetworks(NamedTuple):
    """The networks of the scores, by their keys in params."""

    vision: Mapping[str, ImageJudge]  # dino, dinov2
    clips: Mapping[str, TextJudge]  # clip_b32, clip_l14
    dreamsim: Judge | None = None
    lpips: PairDistance | None = None

    def images(self) -> dict[str, Judge]:
        """The image network of each key."""
        found = {**self.vision, **{key: clip.images for key, clip in self.clips.items()}}
        return found if self.dreamsim is None else {**found, "dreamsim": self.dreamsim}

    def models(self) -> dict[str, Any]:
        """The transformers model of each key."""
        return {key: network.model for key, network in (*self.vision.items(), *self.clips.items())}


def load_networks(p: EvaluationScores, device: str) -> ScoreNetworks:
    """The networks that the params name.

    Raises:
        TamingError: one of them cannot be loaded.
    """
    named = {key: spec for key in (*VISION, *CLIPS) if (spec := getattr(p, key)) is not None}
    return ScoreNetworks(
        {key: load_vision(named[key], device, f"evaluate.scores.{key}") for key in VISION if key in named},
        {key: load_text_judge(named[key], device, f"evaluate.scores.{key}") for key in CLIPS if key in named},
        None if p.dreamsim is None else load_dreamsim(p.dreamsim, device),
        None if p.lpips is None else load_lpips(p.lpips, device),
    )


def load_vision(spec: str, device: str, key: str) -> ImageJudge:
    """An image network whose feature is, of a ViT, the class token of the last hidden state.

    A pooler is left out: DINO was trained without, and what a file holds of one may be random.
    """
    judge = load_judge(spec, device, key=key)
    if getattr(judge.model, "pooler", None) is not None and spec != "mini":
        judge.model.pooler = None
    return judge


def add_similarity_scores(
    rows: Sequence[ImageScores], f: ViewFeatures, key: str, *, distance: bool = False
) -> list[ImageScores]:
    """The rows with the mean cosine of their images with the object's photos.

    `key` is that of the whole image with the other photos, `key_seen` with the seen one, and `key_masked` of the
    objects on grey: of the most similar detection, 0 without one, and not of images in a style. With `distance` the
    scores are 1 - cosine.
    """

    def scored(i: int, row: ImageScores) -> ImageScores:
        cosines = {f"{key}{ending}": c for ending, c in _cosines(row, i, f).items()}
        return {**row, **{name: 1 - c if distance else c for name, c in cosines.items()}}

    return [scored(i, row) for i, row in enumerate(rows)]


def _cosines(row: ImageScores, i: int, f: ViewFeatures) -> dict[str, float]:
    """The cosines of image `i`, by the ending of their measure."""
    photos, objects = f.photos[row["identity"]], f.photo_objects[row["identity"]]
    references = other_numbers(row, len(photos)) or [0]
    whole = photos @ f.images[i]
    cosines = {"": float(whole[references].mean()), "_seen": float(whole[0])}
    if row["kind"] == "style":
        return cosines
    best = best_object(row, i, f)
    masked = 0.0 if best is None else float((objects[references] @ f.objects[i][best]).mean())
    return {**cosines, "_masked": masked}


def add_prompt_scores(
    rows: Sequence[ImageScores], f: ViewFeatures, texts: Sequence[Features | None], key: str
) -> list[ImageScores]:
    """The rows with the cosine of their images with their prompts (E,), neither rescaled nor clipped.

    torchmetrics' CLIPScore is 100 max(cosine, 0). `key_masked` is that of the detection that is most similar to the
    object; 0 without one.
    """

    def scored(i: int, row: ImageScores, text: Features | None) -> ImageScores:
        if text is None:
            return row
        scores = {key: float(f.images[i] @ text)}
        if row["kind"] != "style":
            best = best_object(row, i, f)
            scores[f"{key}_masked"] = 0.0 if best is None else float(f.objects[i][best] @ text)
        return {**row, **scores}

    return [scored(i, row, text) for i, (row, text) in enumerate(zip(rows, texts, strict=True))]


def prompt_features(
    rows: Sequence[ImageScores], subjects: Sequence[EvalSubject], clip: TextJudge
) -> list[Features | None]:
    """The features (E,) of each row's prompt with the class noun in the token's place; None of a real photo."""
    nouns = {s.identity: s.class_name for s in subjects}
    prompts = [_plain_prompt(row["prompt"], nouns[row["identity"]]) if "prompt" in row else None for row in rows]
    different = sorted({prompt for prompt in prompts if prompt is not None})
    found = np.concatenate([clip.texts(chunk) for chunk in chunks(different)]) if different else ()
    by_prompt = dict(zip(different, found, strict=True))
    return [None if prompt is None else by_prompt[prompt] for prompt in prompts]


def _plain_prompt(prompt: str, noun: str | None) -> str:
    """The prompt with the class noun; without a class the text network reads "object"."""
    return prompt if noun is None else prompt_for(prompt, "class_noun", noun)


def add_all_scores(
    rows: Sequence[ImageScores], views: Views, networks: ScoreNetworks
) -> tuple[list[ImageScores], dict[str, ViewFeatures]]:
    """The rows with the scores of all networks, and the features of each by its key."""
    found = {key: features(network, views) for key, network in networks.images().items()}
    scored = list(rows)
    for key in networks.vision:
        scored = add_similarity_scores(scored, found[key], key)
    for key, clip in networks.clips.items():
        scored = add_similarity_scores(scored, found[key], f"clip_i_{CLIPS[key]}")
        texts = prompt_features(scored, views.subjects, clip)
        scored = add_prompt_scores(scored, found[key], texts, f"clip_t_{CLIPS[key]}")
    if networks.dreamsim is not None:
        scored = add_similarity_scores(scored, found["dreamsim"], "dreamsim", distance=True)
    return scored, found


def facts(p: EvaluationScores, networks: ScoreNetworks, trained_with: Roles) -> dict[str, str]:
    """What the scores were measured with, for the report; a network of the encoder's training is named as such."""
    roles = {key: trained_with.get(network_fingerprint(model)) for key, model in networks.models().items()}
    clauses = [f"{key} “{getattr(p, key)}”{_role_clause(role)}" for key, role in roles.items()]
    others = {key: getattr(p, key) for key in ("dreamsim", "lpips", "quality")}
    clauses += [f"{key} “{value}”" for key, value in others.items() if value is not None]
    return {"Reported scores": "; ".join(clauses)} if clauses else {}


def _role_clause(role: str | None) -> str:
    return "" if role is None else f", the {role} of this encoder's training, which may have taught what it scores"
