"""Which words of a caption name an object, and replacing them by the placeholder `<object>` (str only).

The caption generation scheme of the Taming Encoder (Jia et al., 2023): describe all but the identity in words, and let
one token represent the identity. The paper does not say how the words are found; this is our method.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from taming_core.errors import TamingError
from taming_core.language import class_words, wordnet
from taming_core.language.class_words import Likeness
from taming_core.language.noun_kinds import is_alive, is_part_or_picture
from taming_core.language.noun_phrases import Phrase, phrases

OBJECT = "<object>"
UNKNOWN_NOUN = "thing"  # replaces <object> to parse a caption; a noun in no class of a detector
Method = Literal[
    "noun", "head", "captioner", "conditional", "template",
    "override", "given", "given noun", "given head", "given class", "given template",
]  # fmt: skip
METHODS: tuple[Method, ...] = get_args(Method)
Replace = Literal["noun", "phrase"]

AN = re.compile(r"\b([Aa])n(\s+)$")
ARTICLE = re.compile(r"\b(a)n?(\s+)$", re.IGNORECASE)
VERY = re.compile(r"\b(?:very|too|so)\s+$", re.IGNORECASE)
LAST_CLAUSE = re.compile(r"\s*,(?!\s*(?:and|or)\b)[^,<>]*$", re.IGNORECASE)  # not the end of a list
VOWEL = re.compile(r"(?!u(?:ni|ku|s[aeiu]|t[ei])|eu|one\b)[aeiou]|hour|heir|hono", re.IGNORECASE)  # by sound
DOUBTFUL = 0.1  # share of a word's uses; rarer senses count only for the subject of the caption


@dataclass(frozen=True)
class ObjectCaption:
    """A caption, and its copy with `<object>`; `caption[start:end] == replaced`."""

    caption: str
    object_caption: str
    replaced: str
    start: int
    end: int
    method: Method


@dataclass(frozen=True)
class Mention:
    """A noun phrase that can name the object; positions are characters of the caption, half-open."""

    phrase: Phrase
    noun_start: int
    likeness: Likeness


def insert_placeholder(caption: str, start: int, end: int, method: Method) -> ObjectCaption:
    """Replace the characters from `start` to `end` by `<object>`; an article before them becomes "a".

    >>> insert_placeholder("a photo of an apple", 14, 19, "noun").object_caption
    'a photo of a <object>'
    """
    before = AN.sub(r"\1\2", caption[:start])
    return ObjectCaption(caption, before + OBJECT + caption[end:], caption[start:end], start, end, method)


def name_object(caption: str, noun: str, replace: Replace) -> ObjectCaption | None:
    """Replace the words that name an object of the class `noun` by `<object>`; None if no words do.

    `replace` chooses the noun alone, or the phrase with its adjectives. An article stays.

    >>> name_object("a photo of a small squirrel on the beach", "animal", "noun").object_caption
    'a photo of a small <object> on the beach'
    >>> name_object("a hot dog on a plate", "dog", "noun") is None
    True
    """
    return name_objects(caption, [noun], replace)[0]


def name_objects(caption: str, nouns: Sequence[str], replace: Replace) -> list[ObjectCaption | None]:
    """`name_object` for all objects of one photo, given their classes from left to right.

    Objects of one class get different words if the caption has enough: captions describe from left to right.
    """
    return [_replace_mention(caption, mention, replace) for mention in _assign(caption, nouns)]


def _assign(caption: str, nouns: Sequence[str]) -> list[Mention | None]:
    """The mention for each object."""
    chosen: list[Mention | None] = [None] * len(nouns)
    for noun in dict.fromkeys(nouns):
        places = [i for i, other in enumerate(nouns) if other == noun]
        candidates = mentions(caption, noun)
        if 1 < len(places) <= len(candidates):
            assigned = sorted(candidates[: len(places)], key=lambda m: m.phrase.start)
        else:
            assigned = [_best_mention(candidates)] * len(places)
        for place, mention in zip(places, assigned, strict=True):
            chosen[place] = mention
    return chosen


def _best_mention(candidates: Sequence[Mention]) -> Mention | None:
    """The best mention; of "a hammer and wrench" both, if both could be it."""
    best = candidates[0] if candidates else None
    partner = next((m for m in candidates[1:] if best and _are_one(best.phrase, m.phrase)), None)
    return Mention(_join(best.phrase, partner.phrase), best.noun_start, best.likeness) if best and partner else best


def _are_one(first: Phrase, second: Phrase) -> bool:
    """Whether two nouns share one article and name one object; animate nouns stay two: "a dog and cat"."""
    adjacent = 0 <= second.link_start - first.end <= 1
    return second.coordinated and adjacent and bool(first.nouns) and not is_alive(first.nouns[-1])


def _join(first: Phrase, second: Phrase) -> Phrase:
    return dataclasses.replace(first, end=second.end)


def _replace_mention(caption: str, mention: Mention | None, replace: Replace) -> ObjectCaption | None:
    if mention is None:
        return None
    start = mention.phrase.start if replace == "phrase" else mention.noun_start
    return insert_placeholder(caption, start, mention.phrase.end, "noun")


def mentions(caption: str, noun: str) -> list[Mention]:
    """All phrases of the caption that can name an object of the class `noun`, the likeliest first.

    The order of roles is subject, companion, scene, opener ("a photo"); ties go to the closer meaning, then to the more
    frequent sense, then to the earlier word. A hyponym of the class does not count in the scene: neither "a cat in tall
    grass" nor "a robot on a wooden table" names a detected plant or piece of furniture. It does if the subject is a
    living being and the class is not: "a man on a motorbike" shows a motorcycle.
    """
    candidates = [p for p in phrases(caption) if p.nouns]
    subject_fits = any(p.role == "subject" and (is_alive(noun) or not is_alive(p.nouns[-1])) for p in candidates)
    usable = [m for p in candidates if (m := _mention(caption, p, noun)) and _is_plausible(m, subject_fits)]
    return sorted(usable, key=_preference)


def _preference(m: Mention) -> tuple[bool, bool, int, bool, bool, int]:
    role = m.phrase.role
    closeness = class_words.ORDER.index(m.likeness.kind)
    return role == "opener", role == "scene", closeness, m.likeness.share < DOUBTFUL, role != "subject", m.phrase.start


def _mention(caption: str, phrase: Phrase, noun: str) -> Mention | None:
    """The phrase as a mention of the class; None if it does not name it."""
    start = _class_start(caption, phrase, wordnet.normalize_spelling(noun))
    if start is not None:
        return Mention(phrase, min(phrase.noun_start, start), Likeness("same", 1.0))
    *_, owner, head = (None, *phrase.nouns)
    likeness = class_words.likeness(noun, head)
    if likeness is None and owner and wordnet.lemmas(f"{owner} {head}"):  # traffic signal
        likeness = class_words.likeness(noun, f"{owner} {head}")
    if likeness is None and owner and is_part_or_picture(head):
        likeness = class_words.likeness(noun, owner)
    return likeness and Mention(phrase, phrase.noun_start, likeness)


def _class_start(caption: str, phrase: Phrase, noun: str) -> int | None:
    """Where the class name begins if the phrase ends in it verbatim: WordNet lacks potted plant and stop sign."""
    words = list(re.finditer(r"[^\s-]+", caption[phrase.start : phrase.end]))
    length = len(noun.split())
    if not len(phrase.nouns[-1].split()) <= length <= len(words):  # there is no dog in a hot dog
        return None
    start = phrase.start + words[-length].start()
    last = wordnet.normalize_spelling(caption[start : phrase.end])
    return start if noun in (last, wordnet.singular(last)) else None


def _is_plausible(m: Mention, subject_fits: bool) -> bool:
    """Whether to accept a mention; `subject_fits`: the subject of the caption could be the object."""
    if m.phrase.role == "opener":
        return m.likeness.kind in ("same", "synonym")
    if m.phrase.role == "scene" and m.likeness.kind == "special" and subject_fits:
        return False
    return m.phrase.role == "subject" or m.likeness.share >= DOUBTFUL


def head_object(caption: str, replace: Replace) -> ObjectCaption | None:
    """Replace the subject of the caption by `<object>`; None if there is no noun.

    >>> head_object("a pencil sketch of two red apples on a plate", "phrase").object_caption
    'a pencil sketch of two <object> on a plate'
    """
    candidates = [p for p in phrases(caption) if p.nouns]
    order = ("subject", "companion", "scene", "opener")
    head = min(candidates, key=lambda p: order.index(p.role), default=None)
    if head is None:
        return None
    after = candidates[candidates.index(head) + 1 :]
    if after and _are_one(head, after[0]):
        head = _join(head, after[0])
    return insert_placeholder(caption, head.start if replace == "phrase" else head.noun_start, head.end, "head")


def scene(caption: str) -> str:
    """The words of the caption that describe the place; empty if there are none.

    >>> scene("a dog sitting on the beach, on the left"), scene("a photo of a cat")
    ('on the beach, on the left', '')
    """
    parsed = phrases(caption)
    first = next((i for i, p in enumerate(parsed) if p.role == "scene"), len(parsed))
    last = next((i for i in range(first, len(parsed)) if parsed[i].role != "scene"), len(parsed)) - 1
    return caption[parsed[first].link_start : parsed[last].end] if first <= last else ""


def article(noun: str) -> str:
    """The indefinite article of a noun.

    >>> article("apple"), article("unicorn"), article("hourglass")
    ('an', 'a', 'an')
    """
    return "an" if VOWEL.match(noun) else "a"


def prefix_for(noun: str) -> str:
    """The start of a caption that names the class.

    >>> prefix_for("animal"), prefix_for("boat/ship")
    ('a photo of an animal', 'a photo of a boat')
    """
    name = class_words.first_name(noun)
    return f"a photo of {article(name)} {name}"


def fill_template(template: str, noun: str, place: str) -> ObjectCaption:
    """The template with the class noun and with `<object>`, followed by the scene `place`.

    >>> fill_template("a photo of a <object>", "animal", "on the beach").caption
    'a photo of an animal on the beach'
    """
    noun = class_words.first_name(noun)
    before, after = template.split(OBJECT)
    with_article = re.search(r"\b(a|an|the)\s+$", before, re.IGNORECASE)
    if with_article and with_article[1].lower() != "the":
        before = before[: with_article.start(1)] + article(noun) + " "
    words = noun if with_article else f"{article(noun)} {noun}"
    ending = f" {place}" if place else ""
    return insert_placeholder(before + words + after + ending, len(before), len(before + words), "template")


def fill_placeholder(prompt: str, noun: str) -> str:
    """The inverse of `insert_placeholder`: replace `<object>` by a noun.

    >>> fill_placeholder("a photo of a <object> on the beach", "animal")
    'a photo of an animal on the beach'
    """
    before, placeholder, after = prompt.partition(OBJECT)
    return agree_article(before, noun) + noun + after if placeholder else prompt


def agree_article(text: str, noun: str) -> str:
    """The text before a noun; an indefinite article at its end agrees with the noun.

    >>> agree_article("a photo of a ", "apple")
    'a photo of an '
    """
    return ARTICLE.sub(r"\1n\2" if article(noun) == "an" else r"\1\2", text)


def replaced_words(caption: str, object_caption: str) -> str | None:
    """The words of the caption that `<object>` stands for; None if the two differ elsewhere.

    >>> replaced_words("a photo of an old apple on a table", "a photo of an old <object> on a table")
    'apple'
    """
    span = replaced_span(caption, object_caption)
    return None if span is None else caption[slice(*span)] or None


def replaced_span(caption: str, object_caption: str) -> tuple[int, int] | None:
    """Start and end, half-open, of the words that `<object>` stands for; None if the captions differ elsewhere.

    >>> replaced_span("a photo of an apple on a table", "a photo of a <object> on a table")
    (14, 19)
    """
    before, _, after = object_caption.partition(OBJECT)
    head = caption.removesuffix(after)
    starts = [i for i in (len(before), len(before) + 1) if AN.sub(r"\1\2", head[:i]) == AN.sub(r"\1\2", before)]
    return (starts[-1], len(head)) if starts and caption.endswith(after) else None


def replace_both(caption: str, first: str, second: str) -> tuple[str, bool] | None:
    """A caption with `<object>` for two objects, and whether the first comes first; None if their words overlap.

    Args:
        caption: the caption without a placeholder.
        first: the same with `<object>` for one of the objects.
        second: the same with `<object>` for the other one.

    >>> replace_both("an apple and a dog", "an apple and a <object>", "a <object> and a dog")
    ('a <object> and a <object>', False)
    """
    spans = [replaced_span(caption, object_caption) for object_caption in (first, second)]
    known = [span for span in spans if span is not None and span[0] < span[1]]
    left, right = sorted(known) if len(known) == 2 else ((0, 1), (0, 1))
    if right[0] < left[1]:
        return None
    with_right = insert_placeholder(caption, *right, "noun").object_caption
    return insert_placeholder(with_right, *left, "noun").object_caption, spans[0] == left


def drop_attributes(caption: str, object_caption: str) -> tuple[str, str]:
    """Both captions without the object's changeable attributes: its adjectives, and a last clause.

    If the captions differ in more than the words for the object, the plain one loses the clause only.

    >>> drop_attributes("a photo of an old pear, on the left", "a photo of an old <object>, on the left")
    ('a photo of a pear', 'a photo of a <object>')
    """
    words = replaced_words(caption, object_caption)
    bare = _drop_adjectives(LAST_CLAUSE.sub("", object_caption))
    return fill_placeholder(bare, words) if words else LAST_CLAUSE.sub("", caption), bare


def _drop_adjectives(object_caption: str) -> str:
    """The caption without the words between the determiner and `<object>`."""
    before, placeholder, after = object_caption.partition(OBJECT)
    parsed = phrases(before + UNKNOWN_NOUN + after)
    start = next((p.start for p in parsed if p.start <= len(before) < p.end), len(before))
    kept = VERY.sub("", before[:start]) if start < len(before) else before
    return AN.sub(r"\1\2", kept) + placeholder + after if placeholder else object_caption


def prompt_for(prompt: str, captions: str, noun: str | None) -> str:
    """The prompt as in training: with `captions` "class_noun", the class noun replaces `<object>`.

    >>> prompt_for("a photo of a <object> in the snow", "class_noun", "animal")
    'a photo of an animal in the snow'

    Raises:
        TamingError: `captions` is "class_noun", and there is no noun.
    """
    if captions != "class_noun":
        return prompt
    if noun is None:
        raise TamingError("An encoder trained with class nouns needs each object's class, and the rows hold one "
                          "without. Name it in a column class of the photos' metadata.")  # fmt: skip
    return fill_placeholder(prompt, class_words.first_name(noun))
