"""Captions that are written with `<object>`, by a person or by a captioner that was asked for it (str only)."""

from collections.abc import Sequence
from dataclasses import replace

from taming_core.language.class_words import first_name
from taming_core.language.placeholder import OBJECT, ObjectCaption, Replace, agree_article, head_object, name_object

DEFAULT_NOUN = "object"  # the class of an object without one


def parse_tagged_caption(caption: str, nouns: Sequence[str | None], number: int = 0) -> ObjectCaption:
    """A caption with `<object>` as it is, and its copy with class nouns.

    With one `<object>` for each object of the photo, that of object `number` stays and the others become nouns; else
    the first one stays.

    Args:
        caption: with `<object>`.
        nouns: the classes of the objects from left to right; None for one without.
        number: of the object.

    >>> parse_tagged_caption("a <object> beside a <object>", ["apple", "dog"], 1).object_caption
    'an apple beside a <object>'
    >>> parse_tagged_caption("a <object> on the beach", ["apple"]).caption
    'an apple on the beach'
    """
    parts = caption.split(OBJECT)
    one_each = len(parts) == len(nouns) + 1
    kept = number if one_each else 0
    fillers = [first_name(noun or DEFAULT_NOUN) for noun in (nouns if one_each else [nouns[number]] * (len(parts) - 1))]
    start = len(agree_article(_join(parts[: kept + 1], fillers[:kept]), fillers[kept]))
    end = start + len(fillers[kept])
    object_caption = _join(parts, [*fillers[:kept], OBJECT, *fillers[kept + 1 :]])
    return ObjectCaption(_join(parts, fillers), object_caption, fillers[kept], start, end, "given")


def _join(parts: Sequence[str], fillers: Sequence[str]) -> str:
    """The parts with the fillers between them; articles agree with nouns, and stay before `<object>`."""
    text = parts[0]
    for filler, part in zip(fillers, parts[1:], strict=True):
        text = (text if filler == OBJECT else agree_article(text, filler)) + filler + part
    return text


def fill_tagged(caption: str, noun: str | None) -> str:
    """The caption with a class noun for each `<object>`, of which there may be none.

    >>> fill_tagged("a <object> on the beach", None)
    'an object on the beach'
    """
    return parse_tagged_caption(caption, [noun]).caption if OBJECT in caption else caption


def parse_answer(answer: str, noun: str | None, form: Replace) -> ObjectCaption | None:
    """The caption of a captioner that was asked to write `<object>` once for an object of the class `noun`.

    If it did not, the words that name the class are found in its answer as in any caption; None if no words do.

    >>> parse_answer("A <object> on the beach.", "dog", "noun").method, parse_answer("A dog.", "dog", "noun").method
    ('captioner', 'noun')
    """
    if answer.count(OBJECT) == 1:
        return replace(parse_tagged_caption(answer, [noun]), method="captioner")
    plain = fill_tagged(answer, noun)
    return name_object(plain, noun, form) if noun else head_object(plain, form)
