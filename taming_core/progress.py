"""Progress bars for long loops: on standard error, and hidden without a terminal."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


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
