"""Whether a caption can be parsed: sentences in English can, lists of tags and other languages cannot (str only)."""

import re

from taming_core.language import wordnet
from taming_core.language.noun_phrases import DETERMINERS, LINKS, PLACES
from taming_core.language.wordnet import Kind

CLOSED = DETERMINERS | LINKS.keys() | PLACES
KINDS: tuple[Kind, ...] = ("noun", "verb", "adjective", "adverb")
LETTERS = re.compile(r"[^\W\d_]+")
SHORT = 3  # letters; WordNet has abbreviations of fewer that are words of other languages: en, la, un
KNOWN = 0.6  # share of known words; captions with invented names have more, other languages fewer
SEPARATOR = re.compile(r"\s*[,;|\n]\s*")
TAG_WORDS = 4  # words of a tag at most


def is_english(caption: str) -> bool:
    """Whether more than `KNOWN` of the words are English ones.

    >>> is_english("my fluffy blorpo on a sofa"), is_english("zwei Kirschen"), is_english("木桌上的两颗樱桃")
    (True, False, False)
    """
    words = [wordnet.normalize_spelling(word) for word in LETTERS.findall(caption)]
    return sum(map(_is_known, words)) > KNOWN * len(words)


def _is_known(word: str) -> bool:
    if word in CLOSED or len(word) < SHORT:
        return word in CLOSED
    return bool(wordnet.lemmas(word) or wordnet.verb(word)) or any(wordnet.uses(k, word) is not None for k in KINDS)


def is_tag_list(caption: str) -> bool:
    """Whether the caption is a list of tags rather than a sentence: short parts, none of which has a determiner.

    >>> is_tag_list("1girl, solo, looking at viewer"), is_tag_list("a dog, a cat and a bird"), is_tag_list("a dog")
    (True, False, False)
    """
    parts = [LETTERS.findall(part.lower()) for part in SEPARATOR.split(caption)]
    return len(parts) > 1 and all(len(p) <= TAG_WORDS and not DETERMINERS & set(p) for p in parts)
