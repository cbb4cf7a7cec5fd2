"""any table -> counts and a contact sheet"""

from pathlib import Path
from typing import Annotated

import typer

from stages.options import RAW


def inspect(
    table: Annotated[Path, typer.Argument(help="objects.parquet, captions.parquet, or the folder of rows.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The sheet, .png or .html. Default: beside the table, as PNG.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows on the sheet, some of every drop reason.")] = 24,
    raw: Annotated[Path, typer.Option("--raw", help="Folder of the photos that the table speaks of.")] = RAW,
    only: Annotated[str | None, typer.Option("--only", help="Show just this drop reason, or kept.")] = None,
) -> None:
    """Count what a stage kept and dropped, and draw a contact sheet of it.

    \b
    Example: taming inspect data/objects.parquet --out objects.png
    """
    from collections import Counter

    from taming_core import inspection
    from taming_core.figures import contact_sheet
    from taming_core.tables import drop_counts

    target = out or table.with_suffix(".png")
    contact_sheet.check_name(target)
    found, look = inspection.open_table(table)
    kinds = inspection.reasons(found)
    chosen = inspection.chosen(kinds, rows, only)
    counted = Counter(kinds.tolist())
    contact_sheet.save(
        inspection.cards(found, look, chosen, raw), f"{table.name}: {drop_counts.summary(counted)}", look.side, target
    )
    drop_counts.print_counts(counted, f"{table}: {len(kinds)} rows")
    print(f"{target} shows {len(chosen)} of them")
