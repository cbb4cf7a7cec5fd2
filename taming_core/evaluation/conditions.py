"""The conditions of an evaluation: what the images of a group were drawn with."""

from collections.abc import Iterable
from typing import NamedTuple

OURS, NO_OBJECT, ANOTHER, REAL = "ours", "no_object", "another_object", "real_photos"
CLASS_NOUN, PASTED = "class_noun", "pasted"
TEXTUAL_INVERSION, DREAMBOOTH_LORA, DREAMBOOTH = "textual_inversion", "dreambooth_lora", "dreambooth"
GUIDANCE, STEP = "guidance_", "_step_"

# In words, in the order of tables.
NAMES = {
    OURS: "the object's tokens", TEXTUAL_INVERSION: "Textual Inversion", DREAMBOOTH_LORA: "DreamBooth LoRA",
    DREAMBOOTH: "DreamBooth", CLASS_NOUN: "class noun only", REAL: "real photos", ANOTHER: "another object's tokens",
    NO_OBJECT: "no object tokens", PASTED: "the seen photo itself",
}  # fmt: skip
COLOURS = {
    OURS: "#2f6db3", TEXTUAL_INVERSION: "#3a9a8c", DREAMBOOTH_LORA: "#7a5ba8", DREAMBOOTH: "#b3508a",
    CLASS_NOUN: "#a3a84f", REAL: "#8a8f98", ANOTHER: "#d8a03a", NO_OBJECT: "#c9cdd3", PASTED: "#d8703a",
}  # fmt: skip


class Variant(NamedTuple):
    """A condition as a variant of another: with another object guidance, or after fewer steps of training."""

    of: str  # the condition itself where it is no variant
    guidance: float | None = None
    steps: int | None = None


def with_guidance(scale: float) -> str:
    """The condition of the object's tokens at another object guidance.

    >>> with_guidance(1.5)
    'guidance_1.5'
    """
    return f"{GUIDANCE}{scale:g}"


def after_steps(condition: str, steps: int) -> str:
    """The condition of a baseline after fewer steps of training.

    >>> after_steps("dreambooth_lora", 100)
    'dreambooth_lora_step_100'
    """
    return f"{condition}{STEP}{steps}"


def variant(condition: str) -> Variant:
    """What a condition is a variant of.

    >>> variant("guidance_1.5"), variant("dreambooth_lora_step_100").steps
    (Variant(of='ours', guidance=1.5, steps=None), 100)
    """
    if condition.startswith(GUIDANCE):
        return Variant(OURS, guidance=float(condition.removeprefix(GUIDANCE)))
    of, _, steps = condition.partition(STEP)
    return Variant(of, steps=int(steps) if steps else None)


def name_of(condition: str) -> str:
    """A condition in words.

    >>> name_of("guidance_1.5"), name_of("dreambooth_lora_step_100"), name_of("dreambooth_lora")
    ('guidance 1.5', 'DreamBooth LoRA, 100 steps', 'DreamBooth LoRA')
    """
    v = variant(condition)
    if v.guidance is not None:
        return f"guidance {v.guidance:g}"
    return NAMES[v.of] + ("" if v.steps is None else f", {v.steps} steps")


def colour_of(condition: str) -> str:
    """The colour of a condition in plots; a variant has that of its condition."""
    return COLOURS[variant(condition).of]


def in_order(conditions: Iterable[str]) -> list[str]:
    """The conditions in the order of tables, each followed by its variants by their values.

    >>> in_order(["real_photos", "ours", "guidance_5", "dreambooth", "dreambooth_step_100", "guidance_1.5"])
    ['ours', 'guidance_1.5', 'guidance_5', 'dreambooth', 'dreambooth_step_100', 'real_photos']
    """
    order = list(NAMES)

    def place(condition: str) -> tuple[int, float]:
        v = variant(condition)
        return order.index(v.of), (v.guidance if v.guidance is not None else v.steps if v.steps is not None else -1)

    return sorted(conditions, key=place)
