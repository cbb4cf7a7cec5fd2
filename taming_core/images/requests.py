"""Images that are wanted: what each shows, in what words, by what seed; and the name of its file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    """One image that is wanted."""

    prompt: str
    objects: tuple[int, ...]  # which of the embeddings; several for several objects in one image, none for plain text
    seed: int


def batched(
    orders: Sequence[Order], size: int, alike: Callable[[Order], object] = lambda o: len(o.objects)
) -> Iterator[list[Order]]:
    """Runs of orders that are `alike`, in their number of objects and tokens, at most `size` long."""
    run: list[Order] = []
    for order in orders:
        if run and (len(run) == size or alike(run[0]) != alike(order)):
            yield run
            run = []
        run.append(order)
    if run:
        yield run


def slug(text: str) -> str:
    """Words that any file system takes.

    >>> slug("a photo of <object> on the beach")
    'a-photo-of-object-on-the-beach'
    """
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
