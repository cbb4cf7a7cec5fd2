"""The examples of a step: views of the photos, class images, and their prompts."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from taming_core.baselines.methods import TEMPLATES, Method
from taming_core.baselines.views import Posteriors
from taming_core.language.placeholder import article
from taming_core.training.sampler import shuffled_index


@dataclass(frozen=True)
class ClassImages:
    """The images of prior preservation."""

    posteriors: Posteriors
    prompt: str
    weight: float  # of their loss


class Examples(NamedTuple):
    """The images of one step, and what is said of them."""

    posteriors: Posteriors
    prompts: list[str]
    weights: Float[Tensor, " images"]  # in the loss; they add up to 1 over the photos


def prompt_of(words: str) -> str:
    """The prompt of DreamBooth's photos and class images.

    >>> prompt_of("sks robot"), prompt_of("animal")
    ('a photo of a sks robot', 'a photo of an animal')
    """
    return f"a photo of {article(words)} {words}"


def examples(
    method: Method, images: Posteriors, words: str, prior: ClassImages | None, count: int, seed: int, step: int
) -> Examples:
    """`count` views of the photos, and as many class images, in shuffled epochs."""
    places = range(step * count, (step + 1) * count)
    chosen = [shuffled_index(len(images.mean), seed, "photos", n) for n in places]
    prompts = [prompt_at(method, words, seed, n) for n in places]
    found = Examples(images.take(chosen), prompts, torch.full((count,), 1 / count))
    if prior is None:
        return found
    others = [shuffled_index(len(prior.posteriors.mean), seed, "class images", n) for n in places]
    return Examples(
        Posteriors(*map(torch.cat, zip(found.posteriors, prior.posteriors.take(others), strict=True))),
        prompts + [prior.prompt] * count,
        torch.cat([found.weights, prior.weight * found.weights]),
    )


def prompt_at(method: Method, words: str, seed: int, place: int) -> str:
    """The prompt of a photo: for Textual Inversion one of the templates in turn."""
    if method != "textual-inversion":
        return prompt_of(words)
    return TEMPLATES[shuffled_index(len(TEMPLATES), seed, "templates", place)].format(words)
