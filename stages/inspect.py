"""table -> counts and a contact sheet"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.options import RAW, AnyPath, CacheDir, local_path, location


def inspect(
    table: Annotated[
        AnyPath,
        typer.Argument(
            parser=location,
            metavar="TABLE",
            help="objects.parquet, captions.parquet, the folder of rows, or the URL of one.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            parser=local_path,
            metavar="<path>",
            help="The sheet, .png or .html. Default: PNG next to the table; here, if that is at a URL.",
        ),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows on the sheet, some of every drop reason.")] = 24,
    raw: Annotated[
        AnyPath,
        typer.Option("--raw", parser=location, metavar="<path>", help="The folder of the table's photos, or its URL."),
    ] = RAW,
    only: Annotated[
        str | None, typer.Option("--only", help="Show only rows with this drop reason, or kept ones.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", help="Show rows by a number: score, sharpness, match_score, or a score of your own."),
    ] = None,
    show: Annotated[
        Literal["lowest", "highest", "spread"] | None,
        typer.Option("--show", help="With --sort: which rows. Default: spread over all values."),
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Count the kept and dropped rows of a table, and draw a contact sheet.

    \b
    Example: taming inspect data/objects.parquet --out objects.png
    Example: taming inspect data/objects.parquet --only kept --sort score --show lowest
    """
    from collections import Counter

    from taming_core import inspection
    from taming_core.errors import TamingError
    from taming_core.figures import contact_sheet
    from taming_core.storage.cache import use_cache_dir
    from taming_core.tables import drop_counts

    if show and sort is None:
        raise TamingError("--show has no effect without --sort. Name what to sort by, or leave --show out.")
    use_cache_dir(cache_dir, table)
    target = out or (table if isinstance(table, Path) else Path(table.name)).with_suffix(".png")
    contact_sheet.require_sheet_out(target, table, raw)
    dataset, layout = inspection.open_table(table)
    kinds = inspection.reasons(dataset)
    chosen = inspection.choose_rows(kinds, rows, only)
    values = None if sort is None else inspection.values_of(dataset, sort)
    if values is not None:
        chosen = inspection.choose_sorted(values, kinds == (only or kinds), rows, show or "spread")
    counts = Counter[str](kinds.tolist())
    contact_sheet.save(
        inspection.cards(dataset, layout, chosen, raw),
        f"{table.name}: {drop_counts.summary(counts)}",
        layout.side,
        target,
    )
    drop_counts.print_counts(counts, f"{table}: {len(kinds)} rows")
    by = "" if values is None else f", by {sort} from {values[chosen[0]]:.3g} to {values[chosen[-1]]:.3g}"
    print(f"{target} shows {len(chosen)} of them{by}")
