"""Words for what may change of an object, in its caption: beside `<object>`, not part of it (str only).

A single word goes before the object ("a sleeping <object>"), a phrase to the end ("a <object>, seen from above"): where
`placeholder.drop_attributes` looks for them.
"""

import re
from collections.abc import Sequence

from taming_core.language.placeholder import ObjectCaption, agree_article, insert_placeholder


def states_any(caption: str, attributes: Sequence[str]) -> bool:
    """Whether the caption has one of the words or phrases.

    >>> states_any("a dog sleeping on a sofa", ["sleeping", "running"]), states_any("a wetland", ["wet"])
    (True, False)
    """
    return any(re.search(rf"\b{re.escape(a)}\b", caption, re.IGNORECASE) for a in attributes)


def keep_attributes(words: ObjectCaption, attributes: Sequence[str]) -> ObjectCaption:
    """The caption, where the attributes among the adjectives that `<object>` stands for stay as words before it.

    >>> keep_attributes(insert_placeholder("an old sleeping dog", 3, 19, "noun"), ["sleeping"]).object_caption
    'a sleeping <object>'
    """
    *adjectives, noun = words.replaced.split(" ")
    stay = [adjective for adjective in adjectives if adjective.lower() in attributes]
    replaced = " ".join([*(a for a in adjectives if a not in stay), noun])
    bare = insert_placeholder(
        words.caption[: words.start] + replaced + words.caption[words.end :],
        words.start, words.start + len(replaced), words.method,
    )  # fmt: skip
    return add_attributes(bare, stay) if stay else words


def add_attributes(words: ObjectCaption, attributes: Sequence[str]) -> ObjectCaption:
    """Both captions with the attributes.

    >>> add_attributes(insert_placeholder("a photo of a dog", 13, 16, "noun"), ["open", "seen from above"]).caption
    'a photo of an open dog, seen from above'
    """
    adjectives = "".join(f"{a} " for a in attributes if " " not in a)
    ending = " and ".join(a for a in attributes if " " in a)
    before, after = words.caption[: words.start], words.caption[words.end :]
    before = agree_article(before, adjectives) + adjectives if adjectives else before
    after = f"{after.rstrip(' .')}, {ending}" if ending else after
    return insert_placeholder(before + words.replaced + after, len(before), len(before + words.replaced), words.method)
