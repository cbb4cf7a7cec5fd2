"""Wording: which words of a caption name an object, and `<object>` in their place (str only).

The caption generation scheme of the Taming Encoder (Jia et al., 2023): describe all but the identity in words, and let
one token stand for the identity. How the words are found is our choice.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from taming_core.errors import TamingError
from taming_core.language import wordnet
from taming_core.language.noun_kinds import is_alive, is_part_or_picture
from taming_core.language.noun_phrases import Phrase, phrases
from taming_core.language.wordnet import Likeness

OBJECT = "<object>"
UNKNOWN_NOUN = "thing"  # a noun that nothing can be mistaken for, to read a caption with
Method = Literal["noun", "head", "conditional", "template"]
METHODS: tuple[Method, ...] = get_args(Method)
Replace = Literal["noun", "phrase"]

AN = re.compile(r"\b([Aa])n(\s+)$")
ARTICLE = re.compile(r"\b(a)n?(\s+)$", re.IGNORECASE)
VERY = re.compile(r"\b(?:very|too|so)\s+$", re.IGNORECASE)
LAST_CLAUSE = re.compile(r"\s*,(?!\s*(?:and|or)\b)[^,<>]*$", re.IGNORECASE)  # not the end of a list
VOWEL = re.compile(r"(?!u(?:ni|ku|s[aeiu]|t[ei])|eu|one\b)[aeiou]|hour|heir|hono", re.IGNORECASE)  # as it is spoken
DOUBTFUL = 0.1  # share of a word's uses; a sense below it counts only for what the caption is about


@dataclass(frozen=True)
class ObjectCaption:
    """A caption, and the same with `<object>`; `caption[start:end] == replaced`."""

    caption: str
    object_caption: str
    replaced: str
    start: int
    end: int
    method: Method


@dataclass(frozen=True)
class Mention:
    """Words that can name the object; positions are characters of the caption, half-open."""

    phrase: Phrase
    noun_start: int
    likeness: Likeness


def put_object(caption: str, start: int, end: int, method: Method) -> ObjectCaption:
    """`<object>` for the characters from `start` to `end`; an article before them becomes "a".

    >>> put_object("a photo of an apple", 14, 19, "noun").object_caption
    'a photo of a <object>'
    """
    before = AN.sub(r"\1\2", caption[:start])
    return ObjectCaption(caption, before + OBJECT + caption[end:], caption[start:end], start, end, method)


def name_object(caption: str, noun: str, replace: Replace) -> ObjectCaption | None:
    """The caption with `<object>` for the words that name a thing of the class `noun`; None if no words do.

    `replace` says whether the adjectives go too: the noun alone, or the phrase. An article stays.

    >>> name_object("a photo of a small squirrel on the beach", "animal", "noun").object_caption
    'a photo of a small <object> on the beach'
    >>> name_object("a hot dog on a plate", "dog", "noun") is None
    True
    """
    return name_objects(caption, [noun], replace)[0]


def name_objects(caption: str, nouns: Sequence[str], replace: Replace) -> list[ObjectCaption | None]:
    """`name_object` for all objects of one photo, whose classes stand from left to right.

    Objects of one class get words of their own if the caption has enough: captions tell from left to right.
    """
    return [_named(caption, mention, replace) for mention in _assign(caption, nouns)]


def _assign(caption: str, nouns: Sequence[str]) -> list[Mention | None]:
    """The mention for each object."""
    chosen: list[Mention | None] = [None] * len(nouns)
    for noun in dict.fromkeys(nouns):
        places = [i for i, other in enumerate(nouns) if other == noun]
        found = mentions(caption, noun)
        if 1 < len(places) <= len(found):
            own = sorted(found[: len(places)], key=lambda m: m.phrase.start)
        else:
            own = [_with_partner(found)] * len(places)
        for place, mention in zip(places, own, strict=True):
            chosen[place] = mention
    return chosen


def _with_partner(found: Sequence[Mention]) -> Mention | None:
    """The best mention; of "a hammer and wrench" both, if both could be it."""
    best = found[0] if found else None
    partner = next((m for m in found[1:] if best and _are_one(best.phrase, m.phrase)), None)
    return Mention(_joined(best.phrase, partner.phrase), best.noun_start, best.likeness) if best and partner else best


def _are_one(first: Phrase, second: Phrase) -> bool:
    """Whether one article makes one thing of two nouns; living things stay two: "a dog and cat"."""
    adjacent = 0 <= second.link_start - first.end <= 1
    return second.coordinated and adjacent and bool(first.nouns) and not is_alive(first.nouns[-1])


def _joined(first: Phrase, second: Phrase) -> Phrase:
    return dataclasses.replace(first, end=second.end)


def _named(caption: str, mention: Mention | None, replace: Replace) -> ObjectCaption | None:
    if mention is None:
        return None
    start = mention.phrase.start if replace == "phrase" else mention.noun_start
    return put_object(caption, start, mention.phrase.end, "noun")


def mentions(caption: str, noun: str) -> list[Mention]:
    """All words of the caption that can name a thing of the class `noun`, the likeliest first.

    What the caption is about comes before what is beside it, that before the scene, and the opener ("a photo") is last;
    among equals the closer meaning wins, then the more usual one, then the earlier word. A kind of the class does not
    count in the scene: neither "a cat in tall grass" nor "a robot on a wooden table" names the plant or the furniture
    that a detector saw. Unless the caption is about somebody: "a man on a motorbike" does show a motorcycle.
    """
    found = [p for p in phrases(caption) if p.nouns]
    named_apart = any(p.role == "subject" and (is_alive(noun) or not is_alive(p.nouns[-1])) for p in found)
    usable = [m for p in found if (m := _mention(caption, p, noun)) and _is_sound(m, named_apart)]
    return sorted(usable, key=_preference)


def _preference(m: Mention) -> tuple[bool, bool, int, bool, bool, int]:
    role = m.phrase.role
    closeness = wordnet.ORDER.index(m.likeness.kind)
    return role == "opener", role == "scene", closeness, m.likeness.share < DOUBTFUL, role != "subject", m.phrase.start


def _mention(caption: str, phrase: Phrase, noun: str) -> Mention | None:
    """The phrase as a name of the class, None if it is none."""
    start = _class_start(caption, phrase, wordnet.spelled(noun))
    if start is not None:
        return Mention(phrase, min(phrase.noun_start, start), Likeness("same", 1.0))
    *_, owner, head = (None, *phrase.nouns)
    likeness = wordnet.likeness(noun, head)
    if likeness is None and owner and is_part_or_picture(head):
        likeness = wordnet.likeness(noun, owner)
    return likeness and Mention(phrase, phrase.noun_start, likeness)


def _class_start(caption: str, phrase: Phrase, noun: str) -> int | None:
    """Where the class stands word for word at the end of the phrase: WordNet lacks potted plant and stop sign."""
    said = list(re.finditer(r"[^\s-]+", caption[phrase.start : phrase.end]))
    length = len(noun.split())
    if not len(phrase.nouns[-1].split()) <= length <= len(said):  # there is no dog in a hot dog
        return None
    start = phrase.start + said[-length].start()
    last = wordnet.spelled(caption[start : phrase.end])
    return start if noun in (last, wordnet.singular(last)) else None


def _is_sound(m: Mention, named_apart: bool) -> bool:
    """Whether to believe a mention; `named_apart` where what the caption is about could well be the object."""
    if m.phrase.role == "opener":
        return m.likeness.kind in ("same", "synonym")
    if m.phrase.role == "scene" and m.likeness.kind == "special" and named_apart:
        return False
    return m.phrase.role == "subject" or m.likeness.share >= DOUBTFUL


def head_object(caption: str, replace: Replace) -> ObjectCaption | None:
    """The caption with `<object>` for what it is about; None if there is no noun.

    >>> head_object("a pencil sketch of two red apples on a plate", "phrase").object_caption
    'a pencil sketch of two <object> on a plate'
    """
    found = [p for p in phrases(caption) if p.nouns]
    order = ("subject", "companion", "scene", "opener")
    head = min(found, key=lambda p: order.index(p.role), default=None)
    if head is None:
        return None
    after = found[found.index(head) + 1 :]
    if after and _are_one(head, after[0]):
        head = _joined(head, after[0])
    return put_object(caption, head.start if replace == "phrase" else head.noun_start, head.end, "head")


def scene(caption: str) -> str:
    """Where things are, in the caption's own words; empty if it does not tell.

    >>> scene("a dog sitting on the beach, on the left"), scene("a photo of a cat")
    ('on the beach, on the left', '')
    """
    found = phrases(caption)
    first = next((i for i, p in enumerate(found) if p.role == "scene"), len(found))
    last = next((i for i in range(first, len(found)) if found[i].role != "scene"), len(found)) - 1
    return caption[found[first].link_start : found[last].end] if first <= last else ""


def article(noun: str) -> str:
    """The indefinite article.

    >>> article("apple"), article("unicorn"), article("hourglass")
    ('an', 'a', 'an')
    """
    return "an" if VOWEL.match(noun) else "a"


def prefix_for(noun: str) -> str:
    """What a caption has to start with to name the class.

    >>> prefix_for("animal")
    'a photo of an animal'
    """
    return f"a photo of {article(noun)} {noun}"


def fill_template(template: str, noun: str, where: str) -> ObjectCaption:
    """The template with the class in plain words and with `<object>`, and the scene after it.

    >>> fill_template("a photo of a <object>", "animal", "on the beach").caption
    'a photo of an animal on the beach'
    """
    before, after = template.split(OBJECT)
    with_article = re.search(r"\b(a|an|the)\s+$", before, re.IGNORECASE)
    if with_article and with_article[1].lower() != "the":
        before = before[: with_article.start(1)] + article(noun) + " "
    words = noun if with_article else f"{article(noun)} {noun}"
    ending = f" {where}" if where else ""
    return put_object(before + words + after + ending, len(before), len(before + words), "template")


def read_given(caption: str, noun: str) -> ObjectCaption | None:
    """A caption in which somebody has put `<object>` already, with the class in plain words; None if it holds none.

    >>> read_given("a photo of a <object> on the beach", "dog").caption
    'a photo of a dog on the beach'
    """
    before, found, after = caption.partition(OBJECT)
    plain = before + noun + after.replace(OBJECT, noun)
    return put_object(plain, len(before), len(before + noun), "noun") if found else None


def with_noun(prompt: str, noun: str) -> str:
    """The inverse of `put_object`: plain words in the place of `<object>`.

    >>> with_noun("a photo of a <object> on the beach", "animal")
    'a photo of an animal on the beach'
    """
    before, found, after = prompt.partition(OBJECT)
    return _before(before, noun) + noun + after if found else prompt


def _before(text: str, noun: str) -> str:
    """The text with its last word, if it is an indefinite article, as the noun wants it."""
    return ARTICLE.sub(r"\1n\2" if article(noun) == "an" else r"\1\2", text)


def replaced_words(caption: str, object_caption: str) -> str | None:
    """The words of the caption that `<object>` stands for; None if the two differ elsewhere.

    >>> replaced_words("a photo of an old apple on a table", "a photo of an old <object> on a table")
    'apple'
    """
    before, _, after = object_caption.partition(OBJECT)
    head = caption.removesuffix(after)
    starts = [i for i in (len(before), len(before) + 1) if AN.sub(r"\1\2", head[:i]) == AN.sub(r"\1\2", before)]
    return head[starts[-1] :] or None if starts and caption.endswith(after) else None


def without_attributes(caption: str, object_caption: str) -> tuple[str, str]:
    """Both captions without the words for what may change of the object: its adjectives, and a last clause.

    Captions that differ in more than the words for the object lose the clause only.

    >>> without_attributes("a photo of an old pear, on the left", "a photo of an old <object>, on the left")
    ('a photo of a pear', 'a photo of a <object>')
    """
    words = replaced_words(caption, object_caption)
    bare = _without_adjectives(LAST_CLAUSE.sub("", object_caption))
    return with_noun(bare, words) if words else LAST_CLAUSE.sub("", caption), bare


def _without_adjectives(object_caption: str) -> str:
    """The caption without the words between the determiner and `<object>`."""
    before, found, after = object_caption.partition(OBJECT)
    said = phrases(before + UNKNOWN_NOUN + after)
    start = next((p.start for p in said if p.start <= len(before) < p.end), len(before))
    kept = VERY.sub("", before[:start]) if start < len(before) else before
    return AN.sub(r"\1\2", kept) + found + after if found else object_caption


def prompt_for(prompt: str, captions: str, noun: str | None) -> str:
    """The prompt in the words that training used: with `captions` "class_noun", the class noun stands for `<object>`.

    >>> prompt_for("a photo of a <object> in the snow", "class_noun", "animal")
    'a photo of an animal in the snow'

    Raises:
        TamingError: the noun is wanted, and there is none.
    """
    if captions != "class_noun":
        return prompt
    if noun is None:
        raise TamingError("An encoder trained with class nouns needs each object's class, and the rows hold one "
                          "without. Run `taming detect` on their photos.")  # fmt: skip
    return with_noun(prompt, noun)
