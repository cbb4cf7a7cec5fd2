"""Where `<object>` goes in a caption that a person wrote, whose other words stay as they are (str only)."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from taming_core.language.english import is_english, is_tag_list
from taming_core.language.placeholder import (
    OBJECT,
    Method,
    ObjectCaption,
    Replace,
    fill_template,
    head_object,
    insert_placeholder,
    name_objects,
)
from taming_core.language.tagged import DEFAULT_NOUN, parse_tagged_caption

WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # scripts, as Unicode names letters
METHOD: dict[Method, Method] = {"noun": "given noun", "head": "given head", "template": "given template"}


def place_objects(caption: str, nouns: Sequence[str | None], form: Replace, template: str) -> list[ObjectCaption]:
    """The caption with `<object>` for each object of a photo, by the first method that applies.

    1. given: the caption has `<object>` already, one for each object from left to right, or one for any of them.
    2. given noun: words name the class, in English; given head: the subject of a sentence, for an object without class.
    3. given class: the class itself is in the caption, in another language; an English dog house holds no dog.
    4. given template: the template goes before the caption.

    Args:
        caption: as the person wrote it.
        nouns: the classes of the objects from left to right; None for one without.
        form: the noun alone, or the phrase with its adjectives.
        template: a caption with `<object>`.

    >>> place_objects("zwei Kirschen", ["fruit"], "noun", "a photo of a <object>")[0].object_caption
    'a photo of a <object>, zwei Kirschen'
    """
    caption = re.sub(OBJECT, OBJECT, caption, flags=re.IGNORECASE)
    if OBJECT in caption:
        return [parse_tagged_caption(caption, nouns, number) for number in range(len(nouns))]
    found = _named(caption, nouns, form) if is_english(caption) else _named_verbatim(caption, nouns)
    return [w or before(caption, noun or DEFAULT_NOUN, template) for w, noun in zip(found, nouns, strict=True)]


def _named_verbatim(caption: str, nouns: Sequence[str | None]) -> list[ObjectCaption | None]:
    """By the classes themselves; None for those that the caption does not have."""
    return [None if noun is None else name_class(caption, noun, _rank(nouns, n)) for n, noun in enumerate(nouns)]


def _named(caption: str, nouns: Sequence[str | None], form: Replace) -> list[ObjectCaption | None]:
    """By the English words that name each object; None where none do."""
    named = iter(name_objects(caption, [noun for noun in nouns if noun], form))
    head = None if is_tag_list(caption) else head_object(caption, form)
    return [_as_given(next(named) if noun else head) for noun in nouns]


def _as_given(words: ObjectCaption | None) -> ObjectCaption | None:
    return words and replace(words, method=METHOD[words.method])


def _rank(nouns: Sequence[str | None], number: int) -> int:
    """How many objects of the same class are to the left of an object."""
    return nouns[:number].count(nouns[number])


def name_class(caption: str, noun: str, rank: int = 0) -> ObjectCaption | None:
    """`<object>` for the class itself, its mention number `rank` or else its first; None if the caption has none.

    >>> name_class("木桌上的两颗樱桃", "樱桃").object_caption
    '木桌上的两颗<object>'
    >>> name_class("zwei Katzen", "Katze") is None
    True
    """
    found = (_name_verbatim(caption, name, rank) for name in noun.split("/") if name)
    return next((words for words in found if words), None)


def _name_verbatim(caption: str, noun: str, rank: int) -> ObjectCaption | None:
    edge = "" if unicodedata.name(noun[-1], "").startswith(WITHOUT_SPACES) else r"\b"
    spans = [m.span() for m in re.finditer(edge + re.escape(noun) + edge, caption, re.IGNORECASE)]
    return insert_placeholder(caption, *spans[rank if rank < len(spans) else 0], "given class") if spans else None


def before(caption: str, noun: str, template: str) -> ObjectCaption:
    """The template with `<object>`, and then the caption.

    >>> before("木桌上的两颗樱桃", "apple", "a photo of a <object>").caption
    'a photo of an apple, 木桌上的两颗樱桃'
    """
    filled = fill_template(template, noun, "")
    ending = f", {caption}"
    return replace(filled, caption=filled.caption + ending, object_caption=filled.object_caption + ending,
                   method="given template")  # fmt: skip


def append(caption: str, scene: str) -> str:
    """The caption, and then words about the place, if there are any.

    >>> append("zwei Kirschen.", "on the beach"), append("zwei Kirschen.", "")
    ('zwei Kirschen, on the beach', 'zwei Kirschen.')
    """
    return f"{caption.rstrip(' .,')}, {scene}" if scene else caption
