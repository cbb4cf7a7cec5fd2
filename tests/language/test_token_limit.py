"""Which words of a text a text encoder does not read."""

import pytest
import tiny
import tiny_bases

from taming_core.bases.families import family_of
from taming_core.language.token_limit import words_beyond

LONG = "a photo of a dog " * 10 + "and a <object> on the beach"


def test_words_are_lost_from_the_first_token_that_does_not_fit() -> None:
    tokenizer = tiny.tokenizer()
    text = "a <object> on the Beach, in the  snow"
    found = [words_beyond(tokenizer, [text], length)[0] for length in (4, 6, 7, 9, 12)]
    assert found == ["on the Beach, in the  snow", "Beach, in the  snow", ", in the  snow", "the  snow", ""]


@pytest.mark.parametrize("length", [8, 16, 32])
def test_what_is_left_is_what_truncation_keeps(length: int) -> None:
    tokenizer = tiny.tokenizer()
    kept = LONG.removesuffix(words_beyond(tokenizer, [LONG], length)[0])
    truncated = tokenizer(LONG, truncation=True, max_length=length).input_ids
    assert tokenizer(kept).input_ids == truncated
    assert words_beyond(tokenizer, [kept, ""], length) == ["", ""]


def test_no_text_loses_nothing() -> None:
    assert words_beyond(tiny.tokenizer(), [], 4) == []


@pytest.mark.parametrize("name", tiny_bases.FAMILIES)
def test_words_that_one_text_encoder_reads_are_not_lost(name: str) -> None:
    """Tiny CLIPs read 32 tokens, and tiny T5s 16; FLUX has the place of an object in T5's states."""
    family = family_of(tiny_bases.parts(name))
    texts = ["a dog " * 9 + "<object> on the beach", "a <object> " + "dog " * 40]
    assert ["".join(words[:3]) for words in family.lost_words(texts)] == ["", "dog"]
    assert family.loses_placeholder(texts) == [name == "flux", False]
