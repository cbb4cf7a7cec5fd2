"""The order of the rows in a training: buckets interleaved, rows mixed and shuffled, as a function of the position."""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from taming_core.params.train import TrainParams
from taming_core.seeds import seed_for
from taming_core.tables.rows import Bucket, Rows


def row_at(rows: Rows, position: int, p: TrainParams) -> int:
    """The index of the row at `position`, counted over the whole training.

    All rows of a batch are of one bucket. Regularization rows are spread evenly among the object rows; both kinds are
    reshuffled in every epoch of their own.
    """
    step, place = divmod(position, p.batch_size)
    bucket, share, earlier_batches = bucket_at(rows, step, p)
    position = earlier_batches * p.batch_size + place
    earlier = int(position * share)
    if int((position + 1) * share) > earlier:
        return int(bucket.regularization[shuffled_index(len(bucket.regularization), p.seed, "general order", earlier)])
    return int(bucket.objects[shuffled_index(len(bucket.objects), p.seed, "order", position - earlier)])


def bucket_at(rows: Rows, step: int, p: TrainParams) -> tuple[Bucket, float, int]:
    """The bucket of a step, its share of regularization rows, and how many earlier batches were of this bucket.

    Buckets alternate in proportion to their rows: the batches of the first one are spread evenly among all, those of
    the second among the rest, and so on.
    """
    for bucket, turns, regularization in bucket_shares(rows, p.regularization):
        earlier = step * turns // 1
        if (step + 1) * turns // 1 > earlier:
            return bucket, float(regularization), int(earlier)
        step -= int(earlier)
    raise AssertionError("the last bucket takes all that is left")


def bucket_shares(rows: Rows, regularization: float) -> Iterator[tuple[Bucket, Fraction, Fraction]]:
    """Each bucket in use, its share of the batches that the buckets before it leave, and its regularization share.

    All object rows are used equally often, independent of their bucket, and so are all regularization rows.
    """
    share, left = Fraction(regularization), Fraction(1)
    for b in rows.buckets:
        without_object = share * len(b.regularization) / len(rows.regularization) if share else Fraction(0)
        total = without_object + (1 - share) * Fraction(len(b.objects), len(rows.objects))
        if total:
            yield b, total / left, without_object / total
            left -= total


def shuffled_index(count: int, seed: int, purpose: str, position: int) -> int:
    """The index at `position` of an endless sequence of shuffled epochs of `range(count)`."""
    epoch, place = divmod(position, count)
    return int(_permutation(count, seed_for(seed, purpose, epoch))[place])


@lru_cache(maxsize=16)  # two kinds of rows, two epochs at their border, and several buckets
def _permutation(count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(count)
