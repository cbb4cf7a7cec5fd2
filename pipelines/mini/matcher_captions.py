"""True and false captions of a photo, with a label for each token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.random import Generator
from pydantic import Field, PositiveInt

from pipelines.mini.blip import ANY_OBJECT
from pipelines.mini.stage_params import TrainingParams
from pipelines.mini.teacher_features import PhotoFacts
from taming_core.world.artwork import World, class_nouns
from taming_core.world.plan import Chances
from taming_core.world.styles import STYLES
from taming_core.world.wording import article, choose_wording, scene_wordings, sentence, style_wordings

TRUE = ("named", "class")  # kinds of true captions of each photo
FALSE = ("other style", "other scene", "other name", "other class", "other photo")


class MatcherParams(TrainingParams):
    """How the matcher is trained; shares are of training captions."""

    swap_share: float = Field(ge=0, le=1)  # of photos whose object is swapped, see `swap_objects`
    no_scene_share: float = Field(ge=0, le=1)  # true captions without a scene, which are no error
    object_share: float = Field(ge=0, le=1)  # with "object" instead of a class
    paraphrase: float = Field(ge=0, le=1)  # per fact, in another wording than the canonical one
    size_share: float = Field(ge=0, le=1)  # with a size, where it is notable
    eval_photos: PositiveInt
    chances: Chances  # of the photos it is measured on


@dataclass(frozen=True)
class Caption:
    """A caption in parts, and which of them are false."""

    style: str  # in any wording
    size: str
    noun: str
    scene: str
    false: frozenset[str] = frozenset()  # names of fields


def true_caption(facts: PhotoFacts, noun: str, rng: Generator, p: MatcherParams) -> Caption:
    """A true caption in random wording, with this noun for the object."""
    size = facts.size if rng.random() < p.size_share else ""
    scene = choose_wording(rng, scene_wordings(facts.scene), p.paraphrase)
    return Caption(choose_wording(rng, style_wordings(facts.style), p.paraphrase), size, noun, scene)


def training_captions(
    facts: PhotoFacts, other: PhotoFacts, world: World, names: Sequence[str], rng: Generator, p: MatcherParams
) -> list[Caption]:
    """One caption of each kind in TRUE, then in FALSE; `other` are the facts of another photo."""
    nouns = (facts.name, ANY_OBJECT if rng.random() < p.object_share else facts.noun)
    true = [true_caption(facts, noun, rng, p) for noun in nouns]
    true = [replace(c, scene="") if rng.random() < p.no_scene_share else c for c in true]
    base = [true_caption(facts, noun, rng, p) for noun in (facts.name, facts.noun)]
    style = choose_wording(rng, style_wordings(_other_than(facts.style, STYLES, rng)), p.paraphrase)
    scene = choose_wording(rng, scene_wordings(_other_than(facts.scene, world.scenes, rng)), p.paraphrase)
    return [
        *true,
        replace(base[rng.integers(2)], style=style, false=frozenset({"style"})),
        replace(base[rng.integers(2)], scene=scene, false=frozenset({"scene"})),
        replace(base[0], noun=_other_than(facts.name, names, rng), false=frozenset({"noun"})),
        replace(base[1], noun=_other_than(facts.noun, class_nouns(), rng), false=frozenset({"noun"})),
        caption_of_other(facts, other, rng, p),
    ]


def caption_of_other(facts: PhotoFacts, other: PhotoFacts, rng: Generator, p: MatcherParams) -> Caption:
    """The caption of another photo, with the parts that are false here."""
    named = rng.random() < 0.5
    caption = true_caption(other, other.name if named else other.noun, rng, p)
    true = {
        "style": other.style == facts.style,
        "size": caption.size == facts.size,
        "noun": other.name == facts.name if named else other.noun == facts.noun,
        "scene": other.scene == facts.scene,
    }
    return replace(caption, false=frozenset(part for part, fits in true.items() if getattr(caption, part) and not fits))


def text_of(c: Caption) -> str:
    """The caption as text."""
    return sentence(c.style, [f"{c.size} {c.noun}".strip()], c.scene)


def token_labels(tokenizer: Any, c: Caption, length: int) -> list[int]:
    """Per token 1 for true and 0 for false, -100 for the last token and padding; the first is for the whole caption."""
    labels = [int(not c.false)]
    parts = (("style", c.style), ("size", f"{article(f'{c.size} {c.noun}'.strip())} {c.size}".strip()),
             ("noun", c.noun), ("scene", c.scene))  # fmt: skip
    for part, text in parts:
        labels += [int(part not in c.false)] * len(tokenizer.encode(text, add_special_tokens=False))
    return labels + [-100] * (length - len(labels))


def _other_than(value: str, choices: Sequence[str], rng: Generator) -> str:
    others = [c for c in choices if c != value]
    return others[rng.integers(len(others))]
