"""The score in the answer of a vision-language model, however it words it."""

import re

from taming_core.vlm.questions import THOUGHTS

LARGEST = 4  # of a score; 0 is the smallest
RANGE = re.compile(r"[(\[]?\b0\s*(?:-|–|to)\s*4\b[)\]]?")  # the scale itself, where an answer repeats it
VALUE = r"(?P<value>-?\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*(?P<scale>\d+))?(?P<percent>\s*%)?"
WORDS = r"(?:(?:is|of|an?|be|would|should|very|poor|fair|good|excellent|boxed|value|number)\b\W*)*"
NAMED = re.compile(rf"\b(?:score|rating)\b[^\w\n-]*(?:-\s+)?{WORDS}(?:\n\s*)?{VALUE}", re.IGNORECASE)
ALONE = re.compile(rf"\W*?{VALUE}\W*")


def parse_score(answer: str) -> int | None:
    """The last score from 0 to 4 that an answer names, or the number that it consists of; None without one.

    >>> parse_score("The handle is missing.\\nScore: 3"), parse_score('{"score": "2"}'), parse_score("**4/4**")
    (3, 2, 4)
    >>> parse_score("I'm sorry, I can't compare people."), parse_score("Score: 7"), parse_score("Score: 2.5")
    (None, None, None)
    """
    text = RANGE.sub(" ", THOUGHTS.sub("", answer)).strip()
    found = [*NAMED.finditer(text)][-1:] or [m for m in [ALONE.fullmatch(text)] if m]
    return _whole(found[0]) if found else None


def _whole(found: re.Match[str]) -> int | None:
    """The number as a score; None off the scale, on another one, or between two scores."""
    value = float(found["value"])
    fits = int(found["scale"] or LARGEST) == LARGEST and not found["percent"] and value.is_integer()
    return int(value) if fits and 0 <= value <= LARGEST else None
