"""What is on a photo of the mini world: every number of it, drawn from one generator before anything is rendered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from taming_core.seeds import seed_for
from taming_core.world.artwork import World
from taming_core.world.styles import STYLES
from taming_core.world.wording import COLOURS, OBJECT, colour_word, scene_wordings, sentence, style_wordings, worded

Colour = NDArray[np.float64]  # (3, 4), an affine map of RGB in [0, 1]


@dataclass(frozen=True)
class Chances:
    """How photos vary; probabilities in [0, 1] unless said otherwise."""

    recolor: float = 0.3  # per object
    style: float = 0.35  # of a style other than a plain photo
    two_objects: float = 0.1
    silent: float = 0.1  # the caption says nothing of the scene
    paraphrase: float = 0.0  # per fact, of another wording than the canonical one
    attributes: float = 0.4  # size and place are said where they are notable
    mirror: float = 0.5  # both views of the object alike
    turn: float = 0.16  # radians, standard deviation of the rotation
    tilt: float = 0.13  # greatest perspective
    smallest: float = 0.36  # side of the artwork over side of the photo
    largest: float = 0.86


@dataclass(frozen=True)
class Placement:
    """Where an object stands and how it is lit; lengths in half photo sides, (0, 0) is the centre, y points down."""

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
class Thing:
    """One object of a photo: what it is, how it is seen here, and how in its reference view."""

    cutout: int
    colour: Colour | None  # None keeps the artwork's own
    words: str  # what `<object>` stands for: "blue squirrel"
    size: str  # "small", "large" or nothing
    placement: Placement
    reference: Placement  # alone, large, and with the same mirroring


@dataclass(frozen=True)
class Window:
    """The part of a backdrop that is seen."""

    picture: int  # of its scene
    zoom: float
    x: float
    y: float
    mirror: float
    light: float


@dataclass(frozen=True)
class Plan:
    """Every number one photo is made from, and what is said of it."""

    things: tuple[Thing, ...]
    scene: str
    window: Window
    style: str
    caption: str
    object_caption: str  # with `<object>` for the first thing


def views_at(progress: float, full: Chances) -> Chances:
    """Easier views early on: unmirrored and nearly upright in the first third, all of `full` from two thirds on.

    `progress` is the share of a training that is done, in [0, 1].
    """
    ease = float(np.clip(3 * progress - 1, 0, 1))
    share = 0.3 + 0.7 * ease
    return replace(full, mirror=full.mirror * ease, turn=full.turn * share, tilt=full.tilt * share)


def generator(seed: int, split: str, number: int) -> Generator:
    """The generator of photo `number`."""
    return np.random.default_rng(seed_for(seed, f"world/{split}", number))


def plan(world: World, candidates: Sequence[int], rng: Generator, chances: Chances) -> Plan:
    """Draw one photo of one or two of the candidate cut-outs."""
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
) -> Plan:
    """Draw one photo of one or two given cut-outs, in given colours or in drawn ones."""
    placements = _side_by_side(rng, chances) if len(cutouts) == 2 else (_placement(rng, chances),)
    drawn = [recolour(rng) if rng.random() < chances.recolor else None for _ in cutouts]
    things = tuple(
        _thing(world, cutout, colour, placement, rng, chances)
        for cutout, colour, placement in zip(cutouts, colours or drawn, placements, strict=True)
    )
    scene = _scene(world, rng)
    style = STYLES[1 + rng.integers(len(STYLES) - 1)] if rng.random() < chances.style else STYLES[0]
    window = Window(
        int(rng.integers(len(world.backdrops[scene]))), rng.uniform(0.78, 0.96), rng.uniform(-1, 1), rng.uniform(-1, 1),
        _side(rng, 0.5), rng.uniform(0.88, 1.1),
    )  # fmt: skip
    said = (
        worded(rng, style_wordings(style), chances.paraphrase),
        worded(rng, scene_wordings(scene), chances.paraphrase),
    )
    scene_said = "" if rng.random() < chances.silent else said[1]
    place = _place(things[0].placement) if rng.random() < chances.attributes and len(things) == 1 else ""
    whole, hidden = ([f"{t.size} {words}".strip() for t, words in zip(things, named, strict=True)]
                     for named in ([t.words for t in things], [OBJECT, *(t.words for t in things[1:])]))  # fmt: skip
    return Plan(
        things, scene, window, style,
        caption=sentence(said[0], whole, scene_said, place),
        object_caption=sentence(said[0], hidden, scene_said, place),
    )  # fmt: skip


def _scene(world: World, rng: Generator) -> str:
    weights = np.array([0.35 if "background" in s else 1.0 for s in world.scenes])  # plain backdrops teach little
    return world.scenes[int(np.searchsorted(weights.cumsum(), rng.random() * weights.sum()))]


def _thing(
    world: World, cutout: int, colour: Colour | None, placement: Placement, rng: Generator, chances: Chances
) -> Thing:
    art, notable = world.cutouts[cutout], rng.random() < chances.attributes
    words = art.name if colour is None else recoloured_name(art.name, colour @ [*art.colour, 1.0])
    size = "small" if placement.scale < 0.47 else "large" if placement.scale > 0.74 else ""
    return Thing(cutout, colour, words, size if notable else "", placement, _reference(rng, placement.mirror, chances))


def recoloured_name(name: str, rgb: Sequence[float] | NDArray[np.float64]) -> str:
    """A thing's name with the colour it has now, and without the one that it has by nature.

    >>> recoloured_name("red apple", (0.1, 0.3, 0.9))
    'blue apple'
    """
    return " ".join([colour_word(rgb), *(word for word in name.split() if word not in COLOURS)])


def _side(rng: Generator, mirror: float) -> float:
    return -1.0 if rng.random() < mirror else 1.0


def _placement(rng: Generator, c: Chances, smallest: float | None = None, largest: float | None = None) -> Placement:
    scale = rng.uniform(smallest or c.smallest, largest or c.largest)
    reach = float(np.clip(1.02 - scale, 0.02, 0.6))
    return Placement(
        scale, x=rng.uniform(-1, 1) * reach, y=rng.uniform(-0.8, 1) * reach,
        rotation=float(np.clip(rng.normal(0, 1), -2.5, 2.5)) * c.turn, mirror=_side(rng, c.mirror),
        tilt_x=rng.uniform(-1, 1) * c.tilt, tilt_y=rng.uniform(-1, 1) * c.tilt,
        aspect=float(np.exp(rng.normal(0, 0.05))), light=rng.uniform(0.85, 1.12), shade=rng.uniform(0, 0.25),
    )  # fmt: skip


def _reference(rng: Generator, mirror: float, c: Chances) -> Placement:
    """Another view of a thing, as its photo may show it: alone, large, turned a little otherwise, never mirrored."""
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
    """A hue rotation with another saturation, in YIQ, or a swap of colour channels; then a small cast."""
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
