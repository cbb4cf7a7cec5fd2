"""What later stages will lack, said when the rows are made: an evaluation follows hours of training."""

from collections.abc import Callable, Iterator

from taming_core.errors import TamingError
from taming_core.params.load import Params
from taming_core.params.sections import EvaluateParams
from taming_core.params.train import TrainParams
from taming_core.storage.paths import AnyPath
from taming_core.tables.requirements import count_identities, require_identities, require_rows
from taming_core.tables.rows import Rows, load_rows


def shortfalls(folder: AnyPath, p: Params) -> Iterator[str]:
    """What training and evaluation by these params will lack in a folder of rows, and what to do; no line is fine."""
    try:
        train, validation = load_rows(folder, "train"), load_rows(folder, "validation")
    except TamingError as error:
        yield str(error)
        return
    held_out = load_rows(folder, p.evaluate.split)
    if p.evaluate.split == "test" and len(held_out.objects) and not len(train) and not len(validation):
        yield "All objects are in the split test, as a benchmark's are: they are for `taming eval`, not to train on."
    else:
        yield from _held_back(train, validation, p)
    yield from _evaluation(held_out, p.evaluate)


def _held_back(train: Rows, validation: Rows, p: Params) -> Iterator[str]:
    """The lines about training and its validation."""
    yield from _training(train, p.train)
    if p.materialize.validation and p.evaluate.split != "validation" and not len(validation.objects):
        yield (
            "No identity is left for the split validation, so that training draws validation images of what it trains "
            "on. Add photos of more objects, or set materialize.validation to 0."
        )


def _training(rows: Rows, p: TrainParams) -> Iterator[str]:
    yield from _refusal(lambda: require_rows(rows, p))
    views = count_identities(rows)
    if p.cross_reference and views.alone:
        yield (
            f"{views.alone} of {views.count} identities in training have one view: it is augmented where training "
            "wants another. Add photos of them in other poses and scenes."
        )


def _evaluation(rows: Rows, p: EvaluateParams) -> Iterator[str]:
    yield from _refusal(lambda: require_identities(rows, p.split))
    views = count_identities(rows)
    if 1 < views.count < p.objects:
        yield (
            f"evaluate.objects is {p.objects}, and the split {p.split} has {views.count} identities: all of them will "
            f"be evaluated. Add photos of more objects, or raise materialize.{p.split}."
        )
    if views.alone:
        yield (
            f"{views.alone} of {views.count} identities in the split {p.split} have one view: images of them can be "
            "compared with the photo that the encoder sees alone. Add photos of them in other scenes."
        )


def _refusal(require: Callable[[], None]) -> Iterator[str]:
    """The message with which a stage will refuse to begin, if it will."""
    try:
        require()
    except TamingError as error:
        yield str(error)
