"""The content of a photo of the mini world: all its random numbers, drawn from one generator before rendering."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from taming_core.language.placeholder import OBJECT
from taming_core.seeds import seed_for
from taming_core.world.artwork import Cutout, World
from taming_core.world.styles import STYLES
from taming_core.world.wording import (
    COLOURS,
    choose_wording,
    colour_word,
    scene_wordings,
    sentence,
    style_wordings,
)

Colour = NDArray[np.float64]  # (3, 4), an affine map of RGB in [0, 1]


@dataclass(frozen=True)
class Chances:
    """How photos vary; probabilities in [0, 1] unless noted otherwise."""

    recolor: float = 0.3  # per object
    style: float = 0.35  # of a style other than a plain photo
    two_objects: float = 0.1
    silent: float = 0.1  # the caption omits the scene
    paraphrase: float = 0.0  # per fact, of a wording other than the canonical one
    attributes: float = 0.4  # size and position are in the caption where they are notable
    mirror: float = 0.5  # the same for both views of the object
    turn: float = 0.16  # radians, standard deviation of the rotation
    tilt: float = 0.13  # maximum perspective
    smallest: float = 0.36  # side of the artwork over side of the photo
    largest: float = 0.86


@dataclass(frozen=True)
class Placement:
    """Position, pose and light of an object; lengths in half photo sides, (0, 0) is the centre, y points down."""

    scale: float  # side of the artwork over side of the photo
    x: float
    y: float
    rotation: float  # radians, clockwise
    mirror: float  # -1 is mirrored
    tilt_x: float  # perspective
    tilt_y: float
    aspect: float
    light: float
    shade: float  # how much darker the lower right is than the upper left


@dataclass(frozen=True)
class PlannedObject:
    """One object of a photo: its artwork, its placement in the photo, and that in its reference view."""

    cutout: int
    colour: Colour | None  # None keeps the artwork's own
    words: str  # what `<object>` replaces: "blue squirrel"
    size: str  # "small", "large" or empty
    placement: Placement
    reference: Placement  # alone, large, and with the same mirroring


@dataclass(frozen=True)
class Window:
    """The visible part of a backdrop."""

    picture: int  # index among the backdrops of its scene
    zoom: float
    x: float
    y: float
    mirror: float
    light: float


@dataclass(frozen=True)
class Plan:
    """All random numbers of one photo, and its captions."""

    objects: tuple[PlannedObject, ...]
    scene: str
    window: Window
    style: str
    caption: str
    object_captions: tuple[str, ...]  # with `<object>` for each object in turn

    @property
    def object_caption(self) -> str:
        """The caption with `<object>` for the first object."""
        return self.object_captions[0]


def views_at(progress: float, full: Chances) -> Chances:
    """A curriculum of views: unmirrored and nearly upright in the first third, all of `full` from two thirds on.

    `progress` is the finished share of training, in [0, 1].
    """
    ease = float(np.clip(3 * progress - 1, 0, 1))
    share = 0.3 + 0.7 * ease
    return replace(full, mirror=full.mirror * ease, turn=full.turn * share, tilt=full.tilt * share)


def generator(seed: int, split: str, number: int) -> Generator:
    """The generator of photo `number`."""
    return np.random.default_rng(seed_for(seed, f"world/{split}", number))


def plan(world: World, candidates: Sequence[int], rng: Generator, chances: Chances) -> Plan:
    """Plan one photo of one or two of the candidate cut-outs."""
    first, second = (int(i) for i in rng.choice(np.asarray(candidates), 2, replace=False)) if len(candidates) > 1 else (
        candidates[0], candidates[0]
    )  # fmt: skip
    pair = len(candidates) > 1 and rng.random() < chances.two_objects
    return plan_of(world, (first, second) if pair else (first,), rng, chances)


def plan_of(
    world: World,
    cutouts: Sequence[int],
    rng: Generator,
    chances: Chances,
    colours: Sequence[Colour | None] | None = None,
    mirrored: Sequence[bool] | None = None,
) -> Plan:
    """Plan one photo of one or two given cut-outs, in given or random colours and mirrorings; the second is right."""
    placements = _side_by_side(rng, chances) if len(cutouts) == 2 else (_placement(rng, chances),)
    if mirrored is not None:
        placements = [replace(p, mirror=-1.0 if m else 1.0) for p, m in zip(placements, mirrored, strict=True)]
    random_colours = [recolour(rng) if rng.random() < chances.recolor else None for _ in cutouts]
    objects = tuple(
        _plan_object(world, cutout, colour, placement, rng, chances)
        for cutout, colour, placement in zip(cutouts, colours or random_colours, placements, strict=True)
    )
    scene = _scene(world, rng)
    style = STYLES[1 + rng.integers(len(STYLES) - 1)] if rng.random() < chances.style else STYLES[0]
    window = Window(
        int(rng.integers(len(world.backdrops[scene]))), rng.uniform(0.78, 0.96), rng.uniform(-1, 1), rng.uniform(-1, 1),
        _mirror_sign(rng, 0.5), rng.uniform(0.88, 1.1),
    )  # fmt: skip
    style_words = choose_wording(rng, style_wordings(style), chances.paraphrase)
    scene_words = choose_wording(rng, scene_wordings(scene), chances.paraphrase)
    if rng.random() < chances.silent:
        scene_words = ""
    place = _place(objects[0].placement) if rng.random() < chances.attributes and len(objects) == 1 else ""
    plain = [f"{t.size} {t.words}".strip() for t in objects]
    replaced = [f"{t.size} {OBJECT}".strip() for t in objects]
    return Plan(
        objects, scene, window, style,
        caption=sentence(style_words, plain, scene_words, place),
        object_captions=tuple(
            sentence(style_words, [*plain[:i], words, *plain[i + 1 :]], scene_words, place)
            for i, words in enumerate(replaced)
        ),
    )  # fmt: skip


def _scene(world: World, rng: Generator) -> str:
    # Plain backdrops teach little.
    weights = np.array([0.35 if "background" in s else 1.0 for s in world.scenes], np.float64)
    return world.scenes[int(np.searchsorted(np.cumsum(weights), rng.random() * float(weights.sum())))]


def _plan_object(
    world: World, cutout: int, colour: Colour | None, placement: Placement, rng: Generator, chances: Chances
) -> PlannedObject:
    art, notable = world.cutouts[cutout], rng.random() < chances.attributes
    size = "small" if placement.scale < 0.47 else "large" if placement.scale > 0.74 else ""
    return PlannedObject(
        cutout,
        colour,
        object_words(art, colour),
        size if notable else "",
        placement,
        _reference(rng, placement.mirror, chances),
    )


def object_words(art: Cutout, colour: Colour | None) -> str:
    """The name of an artwork in a colour; None keeps its own."""
    return art.name if colour is None else recoloured_name(art.name, colour @ np.array([*art.colour, 1.0]))


def recoloured_name(name: str, rgb: Sequence[float] | NDArray[np.float64]) -> str:
    """An object's name with its new colour instead of the colour in the name.

    >>> recoloured_name("red apple", (0.1, 0.3, 0.9))
    'blue apple'
    """
    return " ".join([colour_word(rgb), *(word for word in name.split() if word not in COLOURS)])


def _mirror_sign(rng: Generator, mirror: float) -> float:
    return -1.0 if rng.random() < mirror else 1.0


def _placement(rng: Generator, c: Chances, smallest: float | None = None, largest: float | None = None) -> Placement:
    scale = rng.uniform(smallest or c.smallest, largest or c.largest)
    reach = float(np.clip(1.02 - scale, 0.02, 0.6))
    return Placement(
        scale, x=rng.uniform(-1, 1) * reach, y=rng.uniform(-0.8, 1) * reach,
        rotation=float(np.clip(rng.normal(0, 1), -2.5, 2.5)) * c.turn, mirror=_mirror_sign(rng, c.mirror),
        tilt_x=rng.uniform(-1, 1) * c.tilt, tilt_y=rng.uniform(-1, 1) * c.tilt,
        aspect=float(np.exp(rng.normal(0, 0.05))), light=rng.uniform(0.85, 1.12), shade=rng.uniform(0, 0.25),
    )  # fmt: skip


def _reference(rng: Generator, mirror: float, c: Chances) -> Placement:
    """Another view of an object: alone, large, slightly rotated, and with the same mirroring."""
    return Placement(
        rng.uniform(0.8, 0.95), x=rng.uniform(-0.04, 0.04), y=rng.uniform(-0.04, 0.04),
        rotation=float(np.clip(rng.normal(0, 1), -2.5, 2.5)) * c.turn * 0.6, mirror=mirror,
        tilt_x=rng.uniform(-1, 1) * c.tilt * 0.6, tilt_y=rng.uniform(-1, 1) * c.tilt * 0.6,
        aspect=float(np.exp(rng.normal(0, 0.03))), light=rng.uniform(0.9, 1.1), shade=rng.uniform(0, 0.2),
    )  # fmt: skip


def _side_by_side(rng: Generator, c: Chances) -> tuple[Placement, Placement]:
    left, right = (_placement(rng, c, 0.3, 0.46) for _ in range(2))
    shift = rng.uniform(0.46, 0.54)
    return replace(left, x=-shift), replace(right, x=shift)


def recolour(rng: Generator) -> Colour:
    """A hue rotation with a change of saturation, in YIQ, or a swap of colour channels; then a small colour cast."""
    yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    angle, saturation = rng.uniform(0.5, 2 * np.pi - 0.5), rng.uniform(0.5, 1.6)
    turn = np.eye(3)
    turn[1:, 1:] = saturation * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.linalg.inv(yiq) @ turn @ yiq
    if rng.random() < 0.4:
        swap = [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)][rng.integers(5)]
        matrix = 0.85 * np.eye(3)[list(swap)] + 0.15 * rng.dirichlet(np.ones(3), 3)
    return np.column_stack([matrix, rng.uniform(-0.06, 0.06, 3)])


def _place(p: Placement) -> str:
    if abs(p.x) > max(0.7 * abs(p.y), 0.14):
        return ", on the left" if p.x < 0 else ", on the right"
    if abs(p.y) > 0.2:
        return ", at the top" if p.y < 0 else ", at the bottom"
    return ", in the center" if abs(p.x) < 0.08 and abs(p.y) < 0.1 else ""
