"""The prompts of a benchmark that has its own for each subject, in the captions beside its photos: DreamBench++."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from taming_core.errors import TamingError
from taming_core.language.given import name_class, place_objects
from taming_core.language.placeholder import OBJECT
from taming_core.params.sections import EvaluateParams, PromptParams
from taming_core.photos.folder import read_folder
from taming_core.storage.paths import AnyPath

CaptionPrompts = Mapping[str, Sequence[str]]  # by identity
Kind = Literal["photorealistic", "style", "imaginative"]
# Of a subject's prompts, in their order. Source: Peng et al., "DreamBench++", arXiv 2406.16855, and its README.
KINDS: tuple[Kind, ...] = (
    "photorealistic", "photorealistic", "photorealistic", "photorealistic", "style", "style", "style", "imaginative",
    "imaginative",
)  # fmt: skip


def read_caption_prompts(p: EvaluateParams, folder: AnyPath | None) -> CaptionPrompts:
    """The prompts in the captions of a folder of photos; none where the params do not ask for them.

    Raises:
        TamingError: they do and there is no folder, or it has none; or they do not and there is one.
    """
    if folder is None and p.caption_prompts:
        raise TamingError("evaluate.caption_prompts is true, and no table has the captions. Name the folder that "
                          "`taming detect` read with --raw.")  # fmt: skip
    if folder is None:
        return {}
    if not p.caption_prompts:
        raise TamingError("--raw would be ignored, since evaluate.caption_prompts is false. Leave it out, or name a "
                          "protocol whose prompts are captions, such as dreambench-plus.")  # fmt: skip
    found = {name: lines for benchmark in read_folder(folder).benchmarks for name, lines in benchmark.prompts.items()}
    if not found:
        raise TamingError(f"{folder} has no captions that are prompts. Name a folder in the layout of DreamBench++, "
                          "with images/object/00.jpg and captions/object/00.txt.")  # fmt: skip
    return found


def with_caption_prompts(
    p: EvaluateParams, prompts: CaptionPrompts, classes: Mapping[str, str | None]
) -> EvaluateParams:
    """The params with each subject's own prompts; as they are where there are no captions.

    Args:
        p: the params.
        prompts: those of `read_caption_prompts`.
        classes: the evaluated identities with the class of each.

    Raises:
        TamingError: the captions of a subject are missing.
    """
    if not prompts:
        return p
    if missing := [identity for identity in classes if not prompts.get(identity)]:
        raise TamingError(f"{missing[0]} has no prompts in the captions of --raw. Name the folder of photos that the "
                          "rows are made of, or add the captions file.")  # fmt: skip
    own = [prompt for identity, noun in classes.items() for prompt in _prompts(identity, noun, prompts[identity])]
    return p.model_copy(update={"prompts": [*p.prompts, *own]})


def _prompts(identity: str, noun: str | None, lines: Sequence[str]) -> Iterator[PromptParams]:
    """The prompts of a subject, which tables call by their kind and number."""
    for number, line in enumerate(lines):
        kind = KINDS[min(number, len(KINDS) - 1)]
        name = f"{kind} {number - KINDS.index(kind) + 1}"
        yield PromptParams(kind=kind, text=place_object(line, noun), subject=identity, name=name)


def place_object(prompt: str, noun: str | None) -> str:
    """The prompt with `<object>` for the class, for other words that name it, or before a prompt that has neither.

    >>> place_object("A roll of film on a desk", "Roll of film"), place_object("A cat with wings", "kitten")
    ('A <object> on a desk', 'A <object> with wings')
    >>> place_object("Dreaming of the sea", "kitten")
    'a <object>, Dreaming of the sea'
    """
    words = name_class(prompt, noun) if noun else None
    return (words or place_objects(prompt, [noun], "noun", f"a {OBJECT}")[0]).object_caption
