"""Captions that are longer than the base's text encoders read: the words that are lost, and rows without `<object>`."""

from dataclasses import replace

from taming_core.bases.family import Family
from taming_core.errors import TamingError
from taming_core.params.train import TrainParams
from taming_core.tables.rows import Rows
from taming_core.training.batches import caption_for

COLUMNS = ("caption", "object_caption", "regularization")
SHOWN = 60  # letters of lost words in a message


def exclude_truncated(rows: Rows, family: Family, p: TrainParams) -> tuple[Rows, str | None]:
    """The rows without those whose `<object>` is cut off, and a line about all captions that are cut off, if any is.

    A row without its `<object>` would teach that an object has no place in the prompt. It remains a view of its
    identity for other rows.

    Raises:
        TamingError: no row with an object is left.
    """
    captions = training_captions(rows, p)
    unique = sorted(set(captions))
    lost = {c: words for c, words in zip(unique, family.lost_words(unique), strict=True) if words}
    without_object = {c for c, loses in zip(unique, family.loses_placeholder(unique), strict=True) if loses}
    excluded = frozenset(n for n, c in enumerate(captions) if c in without_object)
    count, length = sum(c in lost or c in without_object for c in captions), max(family.lengths)
    if not count:
        return rows, None
    kept = replace(rows, excluded=excluded)
    if not len(kept.objects):
        raise TamingError(f"Each caption of an object is longer than the {length} tokens that the base reads, and "
                          "loses its <object>. Shorten them, or move <object> towards their start.")  # fmt: skip
    example = f', such as "{_shortened(next(iter(lost.values())))}"' if lost else ""
    without = f"; {len(excluded)} rows lose <object>, and are not trained on" if excluded else ""
    return kept, (f"{count} of {len(captions)} captions are longer than the {length} tokens that the base reads, and "
                  f"lose their last words{example}{without}.")  # fmt: skip


def training_captions(rows: Rows, p: TrainParams) -> list[str]:
    """The caption of each row with its object, as the examples have it."""
    columns = zip(*map(rows.column, COLUMNS), strict=True)
    return [caption_for(dict(zip(COLUMNS, values, strict=True)), present=not values[-1], p=p) for values in columns]


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
