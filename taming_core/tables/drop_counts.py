"""Counts of rows per drop reason, which every data stage prints at its end."""

from collections.abc import Mapping

from taming_core.drop_reasons import ADVICE


def sort_counts(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Kept rows first, then the reasons by decreasing count.

    >>> sort_counts({"no object": 1, "cut off": 3, "kept": 2})
    [('kept', 2), ('cut off', 3), ('no object', 1)]
    """
    return sorted(counts.items(), key=lambda item: (item[0] != "kept", -item[1], item[0]))


def summary(counts: Mapping[str, int]) -> str:
    """The counts in one line.

    >>> summary({"no object": 1, "kept": 2})
    '2 kept, 1 no object'
    """
    return ", ".join(f"{count} {reason}" for reason, count in sort_counts(counts))


def advice(counts: Mapping[str, int]) -> list[str]:
    """A line for each reason that the user can do something about.

    >>> advice({"HEIC photo": 12, "camera raw photo": 1, "kept": 3})
    ["12 HEIC photos: pip install 'taming[heif]'", '1 camera raw photo: convert it to JPEG, PNG or TIFF']
    """
    return [
        f"{count} {reason}{'s' if reason.endswith('photo') and count > 1 else ''}: {ADVICE[reason]}"
        for reason, count in sort_counts(counts)
        if reason in ADVICE
    ]


def print_counts(counts: Mapping[str, int], title: str) -> None:
    """A heading and a small table on standard output."""
    from rich.console import Console
    from rich.table import Table

    total = sum(counts.values())
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(justify="right")
    table.add_column(justify="left")
    table.add_column(justify="right")
    for reason, count in sort_counts(counts):
        table.add_row(str(count), reason, f"{count / total:.1%}", style=None if reason == "kept" else "yellow")
    console = Console(highlight=False, soft_wrap=True)
    console.print(title, style="bold")
    console.print(table)
    for line in advice(counts):
        console.print(line, style="yellow", markup=False)
