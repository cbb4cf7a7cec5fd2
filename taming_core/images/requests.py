"""Images that are wanted: what each shows, in what words, by what seed; and the name of its file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageRequest:
    """One image that is wanted."""

    prompt: str
    objects: tuple[int, ...]  # which of the embeddings; several for several objects in one image, none for plain text
    seed: int


def batch_requests(
    requests: Sequence[ImageRequest], size: int, alike: Callable[[ImageRequest], object] = lambda o: len(o.objects)
) -> Iterator[list[ImageRequest]]:
    """Runs of orders that are `alike`, in their number of objects and tokens, at most `size` long."""
    batch: list[ImageRequest] = []
    for request in requests:
        if batch and (len(batch) == size or alike(batch[0]) != alike(request)):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


def slug(text: str) -> str:
    """Words that any file system takes.

    >>> slug("a photo of <object> on the beach")
    'a-photo-of-object-on-the-beach'
    """
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
