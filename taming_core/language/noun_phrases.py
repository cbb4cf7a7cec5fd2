"""The noun phrases of a caption and their roles (str only).

A small parser for the language of captioning models, not for English: the closed word classes are listed here, every
other word is looked up in WordNet.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from taming_core.language import wordnet
from taming_core.language.noun_kinds import is_opener, is_physical

# opener: "a photo" of ..., "a group" of ...; subject: what the caption is about; companion: what is beside it, or the
# object of a verb; scene: the place.
Role = Literal["opener", "subject", "companion", "scene"]
Link = Literal["companion", "scene", "of", "and", "verb", "to be", "'s", ""]

NUMBERS = frozenset(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
DETERMINER = (
    "a an the this these those each every another some any no its his her their my your our all both several many few "
    "dozen multiple other more most various numerous"
)
DETERMINERS = NUMBERS | frozenset(DETERMINER.split())
SCENE = (
    "on in at under underneath below above over inside into onto through across against along behind beneath by atop "
    "outside within around upon towards toward off from before during amid among between beyond up down"
)
COMPANION = "with near beside besides for without about like as next than alongside including"
TO_BE = (
    "is are was were be been being am has have had that which who whose to not it they he she someone something "
    "will does there"
)
ADVERBS = "very too also just still together away out upside while where when what"
PLACES = frozenset(["underwater", "outdoors", "indoors"])  # a scene in one word
LINKS: dict[str, Link] = {
    **dict.fromkeys(SCENE.split(), "scene"),
    **dict.fromkeys(COMPANION.split(), "companion"),
    **dict.fromkeys(TO_BE.split(), "to be"),
    **dict.fromkeys(ADVERBS.split(), ""),
    **dict.fromkeys(["in front of", "on top of", "inside of", "outside of", "out of"], "scene"),
    **dict.fromkeys(["next to", "close to", "such as"], "companion"),
    **dict.fromkeys(["and", "or", ","], "and"),
    **dict.fromkeys(["of", "showing", "depicting", "featuring"], "of"),
    "s": "'s",
}
LONGEST = 4  # words of a compound or a preposition
# A word with its hyphens and inner apostrophes; or "'s"; or a mark.
WORD = re.compile(r"['’]s\b|[^\W_]+(?:(?:-|['’](?!s\b))[^\W_]+)*|[^\w\s]")


@dataclass(frozen=True)
class Word:
    """One word, a run of hyphened ones, or a mark."""

    text: str  # of `wordnet.normalize_spelling`; marks unchanged
    start: int
    end: int

    @property
    def open(self) -> bool:
        """Whether it belongs to no closed class."""
        return self.text[:1].isalpha() and self.text not in LINKS and self.text not in DETERMINERS


@dataclass(frozen=True)
class Phrase:
    """A noun phrase without its determiner; positions are characters of the caption, half-open."""

    start: int  # of the first adjective
    noun_start: int  # of the noun with the nouns that qualify it
    end: int
    nouns: tuple[str, ...]  # the last one is the head: ("golden retriever", "puppy"); none in "underwater"
    determined: bool  # has a determiner
    link_start: int  # of the preposition before it; of itself where there is none
    role: Role = "subject"
    coordinated: bool = False  # shares the determiner of the phrase before it: "a nut and BOLT"


@lru_cache(maxsize=1024)
def phrases(caption: str) -> tuple[Phrase, ...]:
    """All noun phrases in the order of the caption.

    >>> [(p.nouns, p.role) for p in phrases("a photo of a small golden retriever puppy on the beach")]
    [(('photo',), 'opener'), (('golden retriever', 'puppy'), 'subject'), (('beach',), 'scene')]
    """
    parsed: list[Phrase] = []
    role: Role = "subject"
    joined = False
    for event in _events(_words(caption)):
        if isinstance(event, Phrase):
            parsed.append(replace(event, role=role, coordinated=joined and not event.determined))
            joined = False
            continue
        if parsed and (event == "'s" or (event == "of" and role == "subject" and _opens(parsed[-1]))):
            parsed[-1] = replace(parsed[-1], role="companion" if event == "'s" else "opener")
        else:
            role, joined = _role_after(event, parsed, role), event == "and"
    return tuple(parsed)


def _opens(phrase: Phrase) -> bool:
    return bool(phrase.nouns) and is_opener(phrase.nouns[-1])


def _role_after(link: Link, before: Sequence[Phrase], role: Role) -> Role:
    """The role of the noun phrase after `link`."""
    if link in ("scene", "companion"):
        return link
    last = before[-1].role if before else role
    if link == "of" or (link == "verb" and before):
        return "scene" if last == "scene" and link == "of" else "companion"
    return last if link == "and" and last != "opener" else role


def _words(caption: str) -> list[Word]:
    """The words and marks of a caption; "'s" is a word."""
    matches = re.finditer(WORD, caption)
    return [Word(wordnet.normalize_spelling(m[0]) or m[0], *m.span()) for m in matches]


def _events(words: list[Word]) -> Iterator[Phrase | Link]:
    """Noun phrases and the links between them."""
    at, linked_at, determined, after = 0, -1, "", "start"  # `determined`: the determiner, if any
    while at < len(words):
        link, length = _link(words, at)
        word = words[at]
        if length:
            determined, after, linked_at = "", link or after, word.start if link else linked_at
            yield link
        elif word.text in PLACES and not determined:
            length = 1
            yield "scene"
            yield Phrase(word.start, word.start, word.end, (), False, word.start)
        elif _starts_phrase(words, at, determined) and (determined or not _is_verb_at(words, at, after)):
            phrase, length = _phrase(words, at, bool(determined))
            if phrase:
                yield replace(phrase, link_start=linked_at if linked_at >= 0 else phrase.start)
            determined, after, linked_at = "", "phrase", -1
        elif word.open:
            after, length, linked_at = "verb", 1, -1
            yield "verb"
        else:
            determined, length = word.text if word.text in DETERMINERS else determined, 1
        at += length


def _starts_phrase(words: Sequence[Word], at: int, determined: str) -> bool:
    """Whether a noun phrase starts at a word; "a two hump camel" has one camel."""
    counts_nothing = words[at].text in NUMBERS and determined in ("a", "an")
    return words[at].open or (counts_nothing and at + 1 < len(words) and words[at + 1].open)


def _link(words: Sequence[Word], at: int) -> tuple[Link, int]:
    """The link at position `at` and its number of words; 0 for none."""
    for length in range(min(LONGEST, len(words) - at), 0, -1):
        if (text := _text(words[at : at + length])) in LINKS:
            return LINKS[text], length
    return "", 0


def _text(words: Sequence[Word]) -> str:
    return " ".join(w.text for w in words)


def _is_verb_at(words: Sequence[Word], at: int, after: str) -> bool:
    """Whether an open word that no determiner precedes is a verb."""
    word = words[at].text
    if after == "phrase":
        return True  # a noun would be part of that phrase
    base = wordnet.verb(word)
    if after == "to be":
        return base is not None
    followed_by_noun = at + 1 < len(words) and words[at + 1].open
    return base not in (None, word) and not is_physical(wordnet.singular(word)) and not followed_by_noun


def _phrase(words: Sequence[Word], start: int, determined: bool) -> tuple[Phrase | None, int]:
    """The noun phrase that starts at an open word, None if there is no noun; and the number of words parsed."""
    parts: list[tuple[int, int]] = []  # words of each part, half-open
    at = start
    while at < len(words) and (length := _part(words, at, parts)):
        parts.append((at, at + length))
        at += length
    final = parts[-1:]
    while parts and not _can_be_noun(_text(words[slice(*parts[-1])])):
        parts.pop()
    if not parts and determined and is_physical(_text(words[slice(*final[0])])):
        parts = final  # "a remote" is a noun, as rare as that is
    if not parts:
        return None, max(at - start, 1)
    nouns = [parts[-1]]
    while len(nouns) < len(parts) and not _is_adjective(_text(words[slice(*parts[-1 - len(nouns)])])):
        nouns.insert(0, parts[-1 - len(nouns)])
    texts = tuple(_text(words[slice(*n)]) for n in nouns)
    first, last = words[start], words[nouns[-1][1] - 1]
    phrase = Phrase(first.start, words[nouns[0][0]].start, last.end, texts, determined, first.start)
    return phrase, nouns[-1][1] - start


def _part(words: Sequence[Word], at: int, parts: Sequence[tuple[int, int]]) -> int:
    """The number of words from `at` on that form the next part of a noun phrase; 0 if it ends before them."""
    for length in range(min(LONGEST, len(words) - at), 1, -1):
        if _is_compound(words[at : at + length]) and not _is_compound(words[at + length - 1 : at + length + 1]):
            return length  # not "red fire" in "red fire engine"
    before = [_text(words[slice(*p)]) for p in parts]
    if parts and not words[at].open:
        colours = _link(words, at)[0] == "and" and all(map(_is_adjective, before))
        return int(colours and at + 1 < len(words) and words[at + 1].open and _is_adjective(words[at + 1].text))
    nouns = [b for b in before if _can_be_noun(b) and not _is_adjective(b)]
    return int(not (nouns and _is_verb_after(nouns[-1], words, at)))


def _is_compound(words: Sequence[Word]) -> bool:
    """Whether the words are one lemma in WordNet: fire engine, ice cream, lily of the valley."""
    text = _text(words)
    whole = len(words) > 1 and words[0].open and (words[-1].open or is_opener(text))
    known = wordnet.lemmas(text) if whole else ()
    coloured = words[-1].open and all(_is_adjective(w.text) for w in words)  # black and white
    return bool(known) and is_physical(known[0]) and not coloured


def _is_verb_after(noun: str, words: Sequence[Word], at: int) -> bool:
    """Whether a word after a noun is a verb rather than part of the noun phrase: "a dog WEARING glasses"."""
    word = words[at].text
    base, lemma = wordnet.verb(word), wordnet.singular(word)
    plural = wordnet.singular(noun) != noun
    if base is None or (base == word and not plural):
        return False
    verb_uses, noun_uses = wordnet.uses("verb", base) or 0, wordnet.uses("noun", lemma) or 0
    if base == word or word.endswith("s"):
        return verb_uses > noun_uses
    with_object = at + 1 < len(words) and words[at + 1].text in DETERMINERS
    return with_object or verb_uses > 5 * noun_uses or not is_physical(lemma)  # a participle, but "building" is a noun


def _is_adjective(text: str) -> bool:
    """Whether a word before a noun is an adjective."""
    if text in LINKS or text in NUMBERS:
        return True
    adjective_uses, noun_uses = _adjective_uses(text), wordnet.uses("noun", wordnet.singular(text))
    participle = wordnet.verb(text) not in (None, text) and not text.endswith("s")
    unknown = not wordnet.lemmas(text) and (" " in text or text.endswith(("ed", "ing")))
    if participle or unknown:
        return True
    return adjective_uses is not None and (noun_uses is None or 5 * adjective_uses >= max(noun_uses, 1))


def _adjective_uses(text: str) -> int | None:
    """How often a word is an adjective or adverb; None if it cannot be one."""
    return max((n for kind in ("adjective", "adverb") if (n := wordnet.uses(kind, text)) is not None), default=None)


def _can_be_noun(text: str) -> bool:
    """Whether a word can end a noun phrase; words that WordNet does not know can."""
    if text in LINKS or text in NUMBERS:
        return False
    if not wordnet.lemmas(text):
        return not _is_adjective(text) and wordnet.verb(text) is None
    return (_adjective_uses(text) or 0) <= 5 * ((wordnet.uses("noun", wordnet.singular(text)) or 0) + 1)
