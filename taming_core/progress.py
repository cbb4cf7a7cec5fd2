"""One progress bar for long work: on standard error, and silent without a terminal."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show how far they are; `total` where the items have no length."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    yield from rich_track(items, what, total, console=console, disable=not console.is_terminal, transient=True)


def track_to(done: Iterable[int], what: str, total: int) -> None:
    """Run through counts of finished items, and show each as a share of `total`."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=total)
        for count in done:
            progress.update(task, completed=count)
