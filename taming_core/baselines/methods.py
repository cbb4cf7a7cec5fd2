"""The methods that tune a text-to-image model to one object, and the words by which each names it."""

from typing import Literal, get_args

from taming_core.errors import TamingError
from taming_core.language.class_words import first_name
from taming_core.params.baseline import BaselineParams

Method = Literal["textual-inversion", "dreambooth", "dreambooth-lora"]
METHODS: tuple[Method, ...] = get_args(Method)
UNKNOWN_CLASS = "object"  # the class noun of an object whose class is not known
SUBJECT = "<subject>"  # the new word of Textual Inversion

# Gal et al., "An Image is Worth One Word", 2022, supplementary: the templates of CLIP for ImageNet.
TEMPLATES = (
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}", "a photo of a clean {}",
    "a photo of a dirty {}", "a dark photo of the {}", "a photo of my {}", "a photo of the cool {}",
    "a close-up photo of a {}", "a bright photo of the {}", "a cropped photo of a {}", "a photo of the {}",
    "a good photo of the {}", "a photo of one {}", "a close-up photo of the {}", "a rendition of the {}",
    "a photo of the clean {}", "a rendition of a {}", "a photo of a nice {}", "a good photo of a {}",
    "a photo of the nice {}", "a photo of the small {}", "a photo of the weird {}", "a photo of the large {}",
    "a photo of a cool {}", "a photo of a small {}",
)  # fmt: skip


def require_method(name: str) -> Method:
    """A method by its name.

    Raises:
        TamingError: there is none of this name.
    """
    if name not in METHODS:
        raise TamingError(f"There is no method {name}. Use one of {', '.join(METHODS)}.")
    return name


def class_noun(noun: str | None) -> str:
    """The word for the class of an object in prompts.

    >>> class_noun("boat/ship"), class_noun(None)
    ('boat', 'object')
    """
    return UNKNOWN_CLASS if noun is None else first_name(noun)


def subject_tokens(vectors: int) -> list[str]:
    """The tokens of the new word, as diffusers names them.

    >>> subject_tokens(3)
    ['<subject>', '<subject>_1', '<subject>_2']
    """
    return [SUBJECT, *(f"{SUBJECT}_{n}" for n in range(1, vectors))]


def object_words(method: Method, noun: str | None, p: BaselineParams) -> str:
    """What a method calls the object in prompts: the new word, or the identifier with the class noun."""
    if method == "textual-inversion":
        return " ".join(subject_tokens(p.textual_inversion.vectors))
    return f"{p.identifier} {class_noun(noun)}"
