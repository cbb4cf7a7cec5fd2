"""Captions of the mini world in several wordings, and the facts of a caption.

The first wording of a fact is the canonical one. Size and position are attributes, since they change from photo to
photo; a colour is part of an object's identity, so it belongs to the words that `<object>` replaces.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from taming_core.language.placeholder import article
from taming_core.world.styles import STYLES

STYLE_WORDINGS = {
    "a photo of": ("a picture of", "a shot of", "a snapshot of"),
    "a pencil sketch of": ("a pencil drawing of", "a sketch of"),
    "a sepia photo of": ("a sepia picture of", "an old brown photo of"),
    "a black and white photo of": ("a black and white picture of", "a monochrome photo of"),
    "a pixel art of": ("a pixel art picture of", "a pixelated picture of"),
    "an oil painting of": ("a painting of", "a canvas of"),
    "a pop art poster of": ("a pop art print of", "a pop art picture of"),
    "a foggy photo of": ("a misty photo of", "a hazy picture of"),
    "a neon drawing of": ("a neon sign of", "a glowing drawing of"),
}
SCENE_WORDINGS = {
    "on the beach": ("at the seaside", "on a sandy beach"),
    "in the snow": ("in a snowy field", "on snowy ground"),
    "in the desert": ("among sand dunes", "in a sandy desert"),
    "under a starry night sky": ("at night under the stars", "under the stars"),
    "underwater": ("under water", "at the bottom of the sea"),
    "in front of a brick wall": ("by a brick wall", "before a wall of bricks"),
    "on a checkerboard floor": ("on a checkered floor", "on black and white tiles"),
    "on a wooden table": ("on a table of wood", "on a table"),
    "in a city at night": ("in a town by night", "in front of a skyline at night"),
    "in outer space": ("in space", "among the planets"),
    "on hot lava": ("on lava", "on glowing lava"),
    "under a rainbow": ("below a rainbow", "with a rainbow above"),
    "on polka dots": ("on a dotted pattern", "on dots"),
    "on a theater stage": ("on stage", "on a stage with red curtains"),
    "in a room": ("indoors", "in a room with a window"),
    "on a grass field": ("on a meadow", "on a green hill"),
    "in the cloudy sky": ("in the clouds", "up in the sky"),
    "in a flower garden": ("among flowers", "in front of flowers"),
    "on autumn leaves": ("on fallen leaves", "among autumn leaves"),
    "by a lake at sunset": ("at a lake in the evening", "by a lake at dusk"),
    "in a dark forest": ("in the woods", "in a forest"),
    "by a mountain lake": ("in front of mountains", "at a lake in the mountains"),
    "on colorful paint swirls": ("on swirls of paint", "in front of colorful swirls"),
    "on green moss": ("on moss", "on mossy ground"),
    "on a stormy road": ("on a road under dark clouds", "by a road in a storm"),
    "on wooden planks": ("on planks of wood", "on a pier"),
    "on a seashore": ("at the edge of the sea", "where waves meet sand"),
    "in tall grass": ("in high grass", "in the grass"),
}
BACKGROUND = " background"
PLACES = (", on the left", ", on the right", ", at the top", ", at the bottom", ", in the center")
SIZES = ("small", "large")
# Berlin and Kay's basic colours, RGB.
COLOURS = {
    "red": (0.85, 0.12, 0.12), "orange": (0.96, 0.55, 0.12), "yellow": (0.97, 0.85, 0.2), "green": (0.2, 0.65, 0.25),
    "blue": (0.15, 0.4, 0.85), "purple": (0.5, 0.22, 0.7), "pink": (0.97, 0.6, 0.75), "brown": (0.48, 0.3, 0.18),
    "white": (0.95, 0.95, 0.95), "gray": (0.5, 0.5, 0.5), "black": (0.08, 0.08, 0.08),
}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """The content of a caption; a part that it omits is empty."""

    style: str  # canonical: "a photo of"
    object_words: str  # "squirrel", without size
    scene: str  # canonical: "on the beach"
    size: str = ""
    place: str = ""  # with its comma


def scene_wordings(scene: str) -> tuple[str, ...]:
    """All wordings of a scene, the canonical one first.

    >>> scene_wordings("on a red background")
    ('on a red background', 'on plain red', 'against a red background')
    """
    if scene.endswith(BACKGROUND):
        colour = scene.split()[-2]
        return scene, f"on plain {colour}", f"against a {colour} background"
    return scene, *SCENE_WORDINGS.get(scene, ())


def style_wordings(style: str) -> tuple[str, ...]:
    """All wordings of a style, the canonical one first."""
    return style, *STYLE_WORDINGS[style]


def sentence(style: str, objects: Sequence[str], scene: str, place: str = "") -> str:
    """A caption from its parts, in any wording.

    >>> sentence("a photo of", ["small squirrel", "apple"], "on the beach", ", on the left")
    'a photo of a small squirrel and an apple on the beach, on the left'
    """
    subject = " and ".join(f"{article(words)} {words}" for words in objects)
    return f"{style} {subject} {scene}".rstrip() + place


def choose_wording(rng: Generator, wordings: Sequence[str], paraphrase: float) -> str:
    """The canonical wording, or with the probability `paraphrase` one of the others."""
    other = rng.random() < paraphrase
    pick = int(rng.integers(max(len(wordings) - 1, 1)))  # drawn always, so that nothing later depends on the wording
    return wordings[1 + pick] if other and len(wordings) > 1 else wordings[0]


def facts_of(caption: str, scenes: Sequence[str]) -> Facts:
    """The facts of a caption of one object, in canonical wording.

    >>> facts_of("a shot of a small blue squirrel at the seaside, on the left", ["on the beach"])
    Facts(style='a photo of', object_words='blue squirrel', scene='on the beach', size='small', place=', on the left')
    """
    place = next((p for p in PLACES if caption.endswith(p)), "")
    text = caption.removesuffix(place)
    style, opening = _longest({w: s for s in STYLES for w in style_wordings(s)}, text.startswith)
    scene, ending = _longest({w: s for s in scenes for w in scene_wordings(s)}, text.endswith)
    words = text[len(opening) : len(text) - len(ending)].split()[1:]
    size = words[0] if words and words[0] in SIZES else ""
    return Facts(style, " ".join(words[len(size.split()) :]), scene, size, place)


def _longest(wordings: dict[str, str], fits: Callable[[str], bool]) -> tuple[str, str]:
    wording = max((w for w in wordings if fits(w)), key=len, default="")
    return wordings.get(wording, ""), wording


def colour_word(rgb: Sequence[float] | NDArray[np.float64]) -> str:
    """The nearest basic colour in CIELAB, with lightness weighted less than hue.

    >>> colour_word((0.9, 0.1, 0.2)), colour_word((0.3, 0.5, 0.9)), colour_word((0.93, 0.92, 0.95))
    ('red', 'blue', 'white')
    """
    lab = _lab(np.asarray([rgb, *COLOURS.values()]))
    distances = np.linalg.norm((lab[1:] - lab[0]) * [0.6, 1, 1], axis=1)  # lightness changes with shade, hue does not
    return tuple(COLOURS)[int(distances.argmin())]


def _lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of sRGB in [0, 1], (n, 3)."""
    rgb = np.clip(rgb, 0, 1)
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
