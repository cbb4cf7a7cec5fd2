"""table -> counts and a contact sheet"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.options import RAW, AnyPath, CacheDir, Overrides, local_path, location


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
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            parser=local_path,
            metavar="<path>",
            help="Instead of a sheet, a page that is one file, without server or network: photos with boxes, masks and "
            "captions, to filter, sort and enlarge. Objects are shown with the captions and rows beside their table.",
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows", min=1, help="Rows that are shown, some of every drop reason. Default: 24; with --html up to 5000."
        ),
    ] = None,
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
    overrides: Overrides = None,
    cache_dir: CacheDir = None,
) -> None:
    """Count the kept and dropped rows of a table, and draw a contact sheet or write a page.

    Objects are shown with what a person said of them in the table of overrides.

    \b
    Example: taming inspect data/objects.parquet --html data.html
    Example: taming inspect data/objects.parquet --out objects.png
    Example: taming inspect data/objects.parquet --only kept --sort score --show lowest
    """
    from collections import Counter

    from taming_core.errors import TamingError
    from taming_core.figures import contact_sheet
    from taming_core.files import write_text
    from taming_core.inspection import cards, page
    from taming_core.overrides.corrected import shown
    from taming_core.params.arguments import require_no_effect
    from taming_core.storage.cache import use_cache_dir
    from taming_core.tables import drop_counts

    if show and sort is None:
        raise TamingError("--show has no effect without --sort. Name what to sort by, or leave --show out.")
    if html is not None:
        require_no_effect("--html", {"--out": out is not None, "--only": only is not None, "--sort": sort is not None})
    use_cache_dir(cache_dir, table)
    target = html or out or (table if isinstance(table, Path) else Path(table.name)).with_suffix(".png")
    (page.require_page_out if html else contact_sheet.require_sheet_out)(target, table, raw)
    with shown(table, overrides) as fixed:
        dataset, layout = cards.open_table(fixed.table or table)
        kinds = cards.reasons(dataset)
        counts = Counter[str](kinds.tolist())
        summary = drop_counts.summary(counts)
        chosen = cards.choose_rows(kinds, rows or (page.MOST if html else 24), only)
        values = None if sort is None else cards.values_of(dataset, sort)
        if values is not None:
            chosen = cards.choose_sorted(values, kinds == (only or kinds), len(chosen), show or "spread")
        if html:
            write_text(html, page.html(dataset, sorted(chosen), raw, table.name, summary, page.beside(table)))
        else:
            contact_sheet.save(
                cards.cards(dataset, layout, chosen, raw), f"{table.name}: {summary}", layout.side, target
            )
    drop_counts.print_counts(counts, f"{table}: {len(kinds)} rows")
    by = "" if values is None else f", by {sort} from {values[chosen[0]]:.3g} to {values[chosen[-1]]:.3g}"
    print(f"{target} shows {len(chosen)} of them{by}")
    for line in fixed.notes:
        print(line)
