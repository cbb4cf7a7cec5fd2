"""Progress bars for long loops: on standard error, and hidden without a terminal."""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")

REASONS = 5  # that a progress bar shows


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items under a progress bar; `total` is needed if the items have no length."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    yield from rich_track(items, description, total, console=console, disable=not console.is_terminal, transient=True)


def track_to(counts: Iterable[int], description: str, total: int) -> None:
    """Consume the counts of finished items, and show each as a share of `total`."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(description, total=total)
        for count in counts:
            progress.update(task, completed=count)


@runtime_checkable
class Done(Protocol):
    """A part of the work that is finished."""

    @property
    def sources(self) -> int:
        """How many photos it was made of."""
        ...

    @property
    def reasons(self) -> Counter[str]:
        """Its rows per drop reason."""
        ...


def track_shards(shards: Generator[Done], description: str, total: int) -> Counter[str]:
    """Consume the finished shards of `total` photos, and show photos per second, the time left and drop reasons.

    Returns:
        The rows per drop reason.
    """
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console, counts = Console(stderr=True), Counter[str]()
    columns = *Progress.get_default_columns(), TextColumn("{task.fields[notes]}")
    with (
        closing(shards),  # so that after Ctrl-C the engine ends here
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        task = progress.add_task(description, total=total, notes="")
        for shard in shards:
            counts += shard.reasons
            progress.update(task, advance=shard.sources)
            progress.update(task, notes=rate_and_counts(progress.tasks[0].speed, counts))
    return counts


def rate_and_counts(rate: float | None, counts: Mapping[str, int]) -> str:
    """Photos per second, and the commonest drop reasons with their counts, in words.

    >>> rate_and_counts(12.34, {"cut off": 1, "kept": 20})
    '12.3 photos/s, 20 kept, 1 cut off'
    """
    commonest = sorted(counts.items(), key=lambda item: -item[1])[:REASONS]
    return ", ".join([f"{rate or 0:.1f} photos/s", *(f"{count} {reason}" for reason, count in commonest)])
