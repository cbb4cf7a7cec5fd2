"""Grids of images with captions."""

import numpy as np
from evaluations import picture
from PIL import Image

from taming_core.figures import image_grid
from taming_core.figures.image_grid import Cell


def test_a_grid_shows_every_picture_under_its_caption() -> None:
    rows = [
        [Cell(picture(1, 128), "one"), Cell(picture(2, 128))],
        [Cell(None), Cell(picture(3, 128), "wrong", good=False)],
    ]
    sheet = np.asarray(image_grid.grid("Heading", ["left", "right"], rows, 128))
    for number in (1, 2, 3):
        assert (sheet == np.asarray(picture(number))[0, 0]).all(-1).sum() >= 128 * 128
    red = np.asarray(Image.new("RGB", (1, 1), image_grid.BAD))[0, 0]
    assert (sheet == red).all(-1).any()


def test_a_long_caption_makes_room_for_itself() -> None:
    short, long = (
        image_grid.grid("", [text], [[Cell(picture(1))]], 128) for text in ("beach", "on a very long beach " * 6)
    )
    assert long.height > short.height
    assert long.width == short.width
