"""How many rows each drop reason took: what every data stage prints at its end."""

from collections.abc import Mapping


def ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Kept rows first, then the reasons, the commonest first.

    >>> ordered({"no object": 1, "cut off": 3, "kept": 2})
    [('kept', 2), ('cut off', 3), ('no object', 1)]
    """
    return sorted(counts.items(), key=lambda item: (item[0] != "kept", -item[1], item[0]))


def summary(counts: Mapping[str, int]) -> str:
    """The counts in one line.

    >>> summary({"no object": 1, "kept": 2})
    '2 kept, 1 no object'
    """
    return ", ".join(f"{count} {reason}" for reason, count in ordered(counts))


def print_counts(counts: Mapping[str, int], title: str) -> None:
    """A heading and a small table on standard output."""
    from rich.console import Console
    from rich.table import Table

    total = sum(counts.values())
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(justify="right")
    table.add_column(justify="left")
    table.add_column(justify="right")
    for reason, count in ordered(counts):
        table.add_row(str(count), reason, f"{count / total:.1%}", style=None if reason == "kept" else "yellow")
    console = Console(highlight=False, soft_wrap=True)
    console.print(title, style="bold")
    console.print(table)


def reason_of(drop_reason: str | None) -> str:
    """The countable part of a drop reason: what stands before its details.

    >>> reason_of("unreadable: truncated file")
    'unreadable'
    >>> reason_of(None)
    'kept'
    """
    return "kept" if drop_reason is None else drop_reason.split(":")[0]
