"""The painted scenes of the mini world: every picture is a function of (scene, seed, index)."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.random import Generator

from pipelines.mini import painters
from pipelines.mini.brushes import Colour, Picture
from taming_core.seeds import seed_for

COLOURS: dict[str, Colour] = {
    "red": (0.85, 0.15, 0.15), "blue": (0.15, 0.35, 0.85), "green": (0.2, 0.7, 0.3), "yellow": (0.97, 0.85, 0.2),
    "pink": (0.97, 0.6, 0.75), "purple": (0.5, 0.22, 0.7), "orange": (0.96, 0.55, 0.12),
    "white": (0.97, 0.97, 0.97), "black": (0.05, 0.05, 0.06), "gray": (0.5, 0.5, 0.52),
}  # fmt: skip

PAINTERS: dict[str, Callable[[Generator], Picture]] = {
    "on the beach": painters.beach,
    "in the snow": painters.snow,
    "in the desert": painters.desert,
    "under a starry night sky": painters.night,
    "underwater": painters.underwater,
    "in front of a brick wall": painters.brick_wall,
    "on a checkerboard floor": painters.checkerboard,
    "on a wooden table": painters.wooden_table,
    "in a city at night": painters.city_at_night,
    "in outer space": painters.outer_space,
    "on hot lava": painters.lava,
    "under a rainbow": painters.rainbow,
    "on polka dots": painters.polka_dots,
    "on a theater stage": painters.theater_stage,
    "in a room": painters.room,
    "on a grass field": painters.grass_field,
    "in the cloudy sky": painters.cloudy_sky,
    **{f"on a {name} background": partial(painters.backdrop, colour=colour) for name, colour in COLOURS.items()},
}


def scene_rng(scene: str, seed: int, index: int) -> Generator:
    """The random generator of picture number `index` of a scene, painted or photographed."""
    return np.random.default_rng(seed_for(seed, f"scenery/{scene}", index))


def paint(scene: str, seed: int, index: int) -> Picture:
    """Picture number `index` of a painted scene."""
    return PAINTERS[scene](scene_rng(scene, seed, index)).clip(0, 1)
