"""Which row stands where in a training: buckets take turns, rows are mixed and shuffled, all by the place alone."""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from taming_core.params.train import TrainParams
from taming_core.seeds import seed_for
from taming_core.tables.rows import Bucket, Rows


def row_at(rows: Rows, position: int, p: TrainParams) -> int:
    """The number of the row that stands at `position` of the whole training.

    All rows of a batch are of one bucket. Its regularization rows are spread evenly among the others; both kinds are
    reshuffled each time they are used up.
    """
    step, place = divmod(position, p.batch_size)
    bucket, share, earlier_batches = bucket_at(rows, step, p)
    position = earlier_batches * p.batch_size + place
    earlier = int(position * share)
    if int((position + 1) * share) > earlier:
        return int(bucket.regularization[shuffled(len(bucket.regularization), p.seed, "general order", earlier)])
    return int(bucket.objects[shuffled(len(bucket.objects), p.seed, "order", position - earlier)])


def bucket_at(rows: Rows, step: int, p: TrainParams) -> tuple[Bucket, float, int]:
    """The bucket of a step, its share of regularization rows, and how many earlier batches were of it.

    Buckets take turns as often as their rows ask for: the batches of the first one are spread evenly among all, those
    of the second among the rest, and so on.
    """
    for bucket, turns, regularization in bucket_shares(rows, p.regularization):
        earlier = step * turns // 1
        if (step + 1) * turns // 1 > earlier:
            return bucket, float(regularization), int(earlier)
        step -= int(earlier)
    raise AssertionError("the last bucket takes all that is left")


def bucket_shares(rows: Rows, regularization: float) -> Iterator[tuple[Bucket, Fraction, Fraction]]:
    """Each bucket in use, its share of the batches left by those before it, and its share of regularization rows.

    Every object row is seen as often as any other, whatever its bucket, and so is every regularization row.
    """
    share, left = Fraction(regularization), Fraction(1)
    for b in rows.buckets:
        plain = share * len(b.regularization) / len(rows.regularization) if share else Fraction(0)
        own = plain + (1 - share) * Fraction(len(b.objects), len(rows.objects))
        if own:
            yield b, own / left, plain / own
            left -= own


def shuffled(count: int, seed: int, purpose: str, position: int) -> int:
    """What stands at `position` when the numbers below `count` are shuffled anew in every epoch."""
    epoch, place = divmod(position, count)
    return int(_permutation(count, seed_for(seed, purpose, epoch))[place])


@lru_cache(maxsize=16)  # two kinds of rows, the batches at the border of two epochs, and some buckets
def _permutation(count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(count)
