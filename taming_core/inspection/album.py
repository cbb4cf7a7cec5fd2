"""The pictures of a page that is one file: each once, all together no larger than its budget of bytes."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from PIL import Image

from taming_core.evaluation.report import pictures
from taming_core.evaluation.report.pictures import BUDGET, SAMPLE

Load = Callable[[], Image.Image | str]  # the picture, or why there is none
FULL = "left out, so that the page stays below 25 MB"


class Album(NamedTuple):
    """The pictures as data URLs, and of each key the number of its picture, or why it has none."""

    urls: list[str]
    places: Mapping[str, int | str]


def album(loads: Mapping[str, Load], budget: int = BUDGET) -> Album:
    """Load and encode the pictures, one at a time, at the largest side at which the budget holds them all.

    At the smallest side the last ones are left out where they do not fit.
    """
    side = _side(list(loads.values()), budget)
    urls, places, spent = list[str](), dict[str, int | str](), 0
    for key, load in loads.items():
        picture = load() if spent < budget else FULL
        if isinstance(picture, str):
            places[key] = picture
            continue
        url = pictures.url(picture, side)
        spent += len(url) * 3 // 4
        if spent > budget:
            places[key] = FULL
            continue
        places[key] = len(urls)
        urls.append(url)
    return Album(urls, places)


def _side(loads: list[Load], budget: int) -> int:
    """The side that fits, judged by some of the pictures."""
    sample = list(_loaded(loads[:: max(len(loads) // SAMPLE, 1)]))
    side, _ = pictures.fitting(sample, budget * len(sample) // max(len(loads), 1))
    return side


def _loaded(loads: Iterable[Load]) -> Iterable[Image.Image]:
    return (picture for load in loads if not isinstance(picture := load(), str))
