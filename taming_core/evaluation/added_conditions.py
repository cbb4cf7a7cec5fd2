"""The images that params add to an evaluation: of baselines, at other guidances, and copies of the seen photo.

Each has the prompt and the seed of the encoder's image that it is compared with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from taming_core.baselines.methods import METHODS, Method
from taming_core.errors import TamingError
from taming_core.evaluation.conditions import CLASS_NOUN, PASTED, after_steps, with_guidance
from taming_core.evaluation.protocol import EvalImage, EvalSubject, object_images
from taming_core.language.placeholder import prompt_for
from taming_core.params.baseline import BaselineParams
from taming_core.params.sections import EvaluateParams

NEED_A_CLASS = ("class-noun", "dreambooth", "dreambooth-lora")


def condition_of(method: Method) -> str:
    """The condition of a method's images.

    >>> condition_of("dreambooth-lora")
    'dreambooth_lora'
    """
    return method.replace("-", "_")


def trained(p: EvaluateParams) -> list[Method]:
    """The baselines that are trained, in the order of the params."""
    return [cast(Method, name) for name in p.baselines if name in METHODS]


def require_classes(subjects: Sequence[EvalSubject], p: EvaluateParams) -> None:
    """Raises TamingError if a baseline needs the class of every object, and an object has none."""
    named = [name for name in p.baselines if name in NEED_A_CLASS]
    if nameless := [s.identity for s in subjects if named and s.class_name is None]:
        raise TamingError(f"The object {nameless[0]} has no class, which the baseline {named[0]} needs. Name it in a "
                          "column class of the photos' metadata, or remove that from evaluate.baselines.")  # fmt: skip


def added_images(
    planned: Sequence[EvalImage], subjects: Sequence[EvalSubject], p: EvaluateParams, b: BaselineParams
) -> list[EvalImage]:
    """The images of all added conditions, by condition.

    Args:
        planned: the images of the encoder, with its prompts.
        subjects: the evaluated subjects.
        p: the conditions.
        b: steps of baselines, after which the control objects are drawn too.

    Raises:
        TamingError: a baseline needs a class, and a subject has none.
    """
    require_classes(subjects, p)
    of_one = [image for image in object_images(len(subjects), p) if len(image.request.objects) == 1]
    noun = [_with_noun(image, subjects) for image in of_one if "class-noun" in p.baselines]
    pasted = [replace(image, condition=PASTED) for image in of_one if p.pasted]
    tuned = [image for method in trained(p) for image in baseline_images(method, of_one, p, b)]
    return [*guided_images(planned, p), *noun, *pasted, *tuned]


def guided_images(planned: Sequence[EvalImage], p: EvaluateParams) -> Iterator[EvalImage]:
    """The control objects' images at each other guidance."""
    for scale in p.guidance:
        for image in planned:
            if image.subject < p.control_objects:
                yield replace(image, condition=with_guidance(scale))


def baseline_images(
    method: Method, images: Sequence[EvalImage], p: EvaluateParams, b: BaselineParams
) -> Iterator[EvalImage]:
    """The images of one baseline: of the control objects also after fewer steps."""
    condition, own = condition_of(method), b.of(method)
    for steps in own.checkpoints:
        for image in images:
            if image.subject < p.control_objects:
                yield replace(image, condition=after_steps(condition, steps), steps=steps)
    for image in images:
        yield replace(image, condition=condition, steps=own.steps)


def _with_noun(image: EvalImage, subjects: Sequence[EvalSubject]) -> EvalImage:
    """The image with the class noun and no object."""
    prompt = prompt_for(image.request.prompt, "class_noun", subjects[image.subject].class_name)
    return replace(image, condition=CLASS_NOUN, request=replace(image.request, prompt=prompt, objects=()))
