"""Names that any file system takes."""

import re

from hypothesis import given
from hypothesis import strategies as st

from taming_core.files import MAX_NAME, distinct_names, safe_name

DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
WORDS = st.text() | st.text("aé樱😀 /\\\0.:<>-", max_size=12) | st.text("ab", min_size=80, max_size=300)
TEXTS = WORDS | st.sampled_from(["con", "CON", "aux.", "lpt1", "..", "", "\udcff", "a\nb"])


@given(TEXTS)
def test_a_name_is_valid_anywhere(text: str) -> None:
    name = safe_name(text)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert len(name) <= MAX_NAME
    assert name not in DEVICES
    assert safe_name(text) == name


@given(st.lists(TEXTS, max_size=12))
def test_different_texts_have_different_names(texts: list[str]) -> None:
    names = distinct_names([safe_name(t) for t in texts], texts)
    assert len(set(names)) == len(set(texts))
    assert all(len(name) <= MAX_NAME for name in names)


def test_letters_that_are_lost_or_cut_still_tell_names_apart() -> None:
    assert len({safe_name(t) for t in ("a 🐱", "a 🐶", "a", "樱桃", "草莓", "y" * 250, "y" * 251)}) == 7
