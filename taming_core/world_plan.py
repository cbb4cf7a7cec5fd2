"""What is on a photo of the mini world: every number of it, drawn from one generator before anything is rendered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from taming_core.world_styles import STYLES

COLOUR_WORDS = frozenset(["red", "blue", "green", "white", "black", "orange", "brown", "yellow"])


@dataclass(frozen=True)
class Cutout:
    """One piece of artwork: a concept drawn in one design, as an RGBA picture."""

    name: str  # of the concept: "squirrel"
    noun: str  # of its group: "animal"
    design: str  # who drew it: "noto"
    split: str  # "train", "unseen_concept" or "unseen_identity"
    png: bytes


@dataclass(frozen=True)
class World:
    """Artwork and scenery; pictures stay encoded until they are rendered."""

    cutouts: tuple[Cutout, ...]
    scenes: tuple[str, ...]  # "on the beach"
    backdrops: dict[str, tuple[bytes, ...]]  # scene -> encoded pictures


@dataclass(frozen=True)
class Chances:
    """Probabilities in [0, 1] of the photo's features."""

    recolor: float = 0.3  # per object
    style: float = 0.35  # of a style other than a plain photo
    two_objects: float = 0.1
    unnamed_scene: float = 0.1  # the caption is silent about the scene


@dataclass(frozen=True)
class Placement:
    """Where an object stands and how it is lit; lengths in half photo sides, (0, 0) is the centre, y points down."""

    scale: float  # side of the artwork over side of the photo
    x: float
    y: float
    rotation: float  # radians, clockwise
    flip: float  # -1 is mirrored
    tilt_x: float  # perspective
    tilt_y: float
    aspect: float
    light: float


@dataclass(frozen=True)
class Plan:
    """Every number one photo is made from."""

    cutouts: tuple[int, ...]
    placements: tuple[Placement, ...]
    colours: tuple[NDArray[np.float64] | None, ...]  # affine map of RGB in [0, 1]; None keeps the artwork's own
    scene: str
    backdrop: int
    window: tuple[float, float, float, float, float]  # zoom, x, y, flip, light of the backdrop
    style: str
    phrases: tuple[str, ...]
    caption: str


def plan(world: World, candidates: Sequence[int], rng: Generator, chances: Chances) -> Plan:
    """Draw one photo."""
    pair = rng.random() < chances.two_objects
    cutouts = tuple(int(i) for i in rng.choice(np.asarray(candidates), 2 if pair else 1, replace=False))
    placements = _side_by_side(rng) if pair else (_placement(rng, 0.36, 0.86),)
    colours = tuple(_recolour(rng) if rng.random() < chances.recolor else None for _ in cutouts)
    weights = np.array([0.35 if "background" in s else 1.0 for s in world.scenes])  # plain backdrops teach little
    scene = world.scenes[rng.choice(len(world.scenes), p=weights / weights.sum())]
    style = STYLES[1 + rng.integers(len(STYLES) - 1)] if rng.random() < chances.style else STYLES[0]
    names = [world.cutouts[i].name for i in cutouts]
    phrases = tuple(_phrase(rng, *named, pair) for named in zip(names, placements, colours, strict=True))
    place = [] if rng.random() < chances.unnamed_scene else [scene]
    position = [] if pair else _position(rng, placements[0])
    subject = " and ".join(f"{article(phrase)} {phrase}" for phrase in phrases)
    return Plan(
        cutouts, placements, colours, scene,
        backdrop=int(rng.integers(len(world.backdrops[scene]))),
        window=(rng.uniform(0.78, 0.96), rng.uniform(-1, 1), rng.uniform(-1, 1), rng.choice([-1.0, 1.0]),
                rng.uniform(0.88, 1.1)),
        style=style, phrases=phrases, caption=" ".join([style, subject, *place, *position]),
    )  # fmt: skip


def _placement(rng: Generator, smallest: float, largest: float) -> Placement:
    scale = rng.uniform(smallest, largest)
    reach = float(np.clip(1.02 - scale, 0.02, 0.6))
    return Placement(
        scale, x=rng.uniform(-1, 1) * reach, y=rng.uniform(-0.8, 1) * reach,
        rotation=float(np.clip(rng.normal(0, 0.16), -0.4, 0.4)), flip=rng.choice([-1.0, 1.0]),
        tilt_x=rng.uniform(-0.13, 0.13), tilt_y=rng.uniform(-0.13, 0.13),
        aspect=float(np.exp(rng.normal(0, 0.05))), light=rng.uniform(0.85, 1.12),
    )  # fmt: skip


def _side_by_side(rng: Generator) -> tuple[Placement, Placement]:
    left, right = (_placement(rng, 0.3, 0.46) for _ in range(2))
    shift = rng.uniform(0.46, 0.54)
    return replace(left, x=-shift), replace(right, x=shift)


def _recolour(rng: Generator) -> NDArray[np.float64]:
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


def article(phrase: str) -> str:
    """The indefinite article before `phrase`.

    >>> article("apple"), article("unicorn"), article("pear")
    ('an', 'a', 'a')
    """
    return "an" if phrase[0] in "aeiou" and not phrase.startswith(("uni", "eu", "one")) else "a"


def _phrase(rng: Generator, name: str, placement: Placement, colour: object, pair: bool) -> str:
    spoken = rng.random() < 0.5 and not pair  # drawn always, so that the photo does not depend on the wording
    size = ["small"] if spoken and placement.scale < 0.47 else ["large"] if spoken and placement.scale > 0.74 else []
    if colour is None:
        return " ".join([*size, name])
    return " ".join([*size, "recolored", *(word for word in name.split() if word not in COLOUR_WORDS)])


def _position(rng: Generator, p: Placement) -> list[str]:
    if rng.random() > 0.3:
        return []
    if abs(p.x) > max(0.7 * abs(p.y), 0.14):
        return [", on the left" if p.x < 0 else ", on the right"]
    if abs(p.y) > 0.2:
        return [", at the top" if p.y < 0 else ", at the bottom"]
    return [", in the center"] if abs(p.x) < 0.08 and abs(p.y) < 0.1 else []
