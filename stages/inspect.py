"""table -> counts and a contact sheet"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import RAW


def inspect(
    table: Annotated[Path, typer.Argument(help="objects.parquet, captions.parquet, or the folder of rows.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The sheet, .png or .html. Default: PNG next to the table.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows on the sheet, some of every drop reason.")] = 24,
    raw: Annotated[Path, typer.Option("--raw", help="The folder of the table's photos.")] = RAW,
    only: Annotated[
        str | None, typer.Option("--only", help="Show only rows with this drop reason, or kept ones.")
    ] = None,
) -> None:
    """Count the kept and dropped rows of a table, and draw a contact sheet.

    \b
    Example: taming inspect data/objects.parquet --out objects.png
    """
    from collections import Counter

    from taming_core import inspection
    from taming_core.figures import contact_sheet
    from taming_core.tables import drop_counts

    target = out or table.with_suffix(".png")
    contact_sheet.require_sheet_out(target, table, raw)
    dataset, layout = inspection.open_table(table)
    kinds = inspection.reasons(dataset)
    chosen = inspection.choose_rows(kinds, rows, only)
    counts = Counter[str](kinds.tolist())
    contact_sheet.save(
        inspection.cards(dataset, layout, chosen, raw),
        f"{table.name}: {drop_counts.summary(counts)}",
        layout.side,
        target,
    )
    drop_counts.print_counts(counts, f"{table}: {len(kinds)} rows")
    print(f"{target} shows {len(chosen)} of them")
