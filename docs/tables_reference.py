"""The tables between stages as docs/reference/tables.md: columns, drop reasons and scores.

    python docs/tables_reference.py       writes docs/reference/tables.md

tests/test_docs.py checks that the page is current.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from taming_core import drop_reasons
from taming_core.evaluation.measures import MEASURES
from taming_core.tables import schema

PAGE = Path(__file__).parent / "reference/tables.md"
HEAD = f"""# Tables

Written by `python docs/tables_reference.py` from `taming_core/tables/schema.py`, `taming_core/drop_reasons.py` and
`taming_core/evaluation/measures.py`. Tables are Parquet (zstd) of version {schema.VERSION}, which their metadata names;
those of another version are refused. Each has a row for everything that its stage saw: what is not used further on has
a `drop_reason`. The description of every column is in the metadata of the file too.

```python
import pyarrow.parquet as pq

objects = pq.read_table("data/objects.parquet").to_pylist()
print({{row["drop_reason"] for row in objects}})
```
"""
WHERE = {
    "objects": "`data/objects.parquet`: a row for each object, and one for each photo without any.",
    "captions": "`data/captions.parquet`: a row for each kept object, and one for each photo.",
    "rows": "`data/rows/SPLIT-*.parquet`: a row for each training example; the dropped ones are in "
    "`data/rows-dropped.parquet`.",
}


def page() -> str:
    """The whole page (Markdown)."""
    tables = [section(table) for table in (schema.OBJECTS, schema.CAPTIONS, schema.ROWS)]
    return "\n".join([HEAD, *tables, reasons(), scores()])


def section(table: pa.Schema) -> str:
    """A table: who writes it where, and its columns."""
    metadata = table.metadata or {}
    name, command = (metadata[key].decode() for key in (b"taming.table", b"taming.command"))
    fields: Any = table  # partly untyped
    rows = [(f"`{f.name}`", kind(f.type), "yes" if f.nullable else "", described(f)) for f in fields]
    return (
        f"## {name}\n\nWritten by `{command}`. {WHERE[name]}\n\n{as_table(('column', 'type', 'null', 'meaning'), rows)}"
    )


def described(field: Any) -> str:
    """A column's description as Markdown."""
    return field.metadata[b"description"].decode().replace("<object>", "`<object>`")


def kind(arrow: Any) -> str:
    """An Arrow type in words.

    >>> kind(pa.list_(pa.int32(), 4)), kind(schema.IMAGE), kind(pa.list_(pa.string()))
    ('list of 4 int32', 'image', 'list of string')
    """
    if arrow == schema.IMAGE:
        return "image"
    if isinstance(arrow, pa.FixedSizeListType):
        return f"list of {arrow.list_size} {kind(arrow.value_type)}"
    if isinstance(arrow, pa.ListType):
        return f"list of {kind(arrow.value_type)}"
    if isinstance(arrow, pa.StructType):
        return f"({', '.join(f'{f.name}: {kind(f.type)}' for f in arrow)})"
    return str(arrow)


def reasons() -> str:
    """Every drop reason, by stage as its module has them, with what makes such photos usable."""
    source = Path(drop_reasons.__file__).read_text(encoding="utf-8").partition("ADVICE")[0]
    groups = re.findall(r"^# (.+)\n((?:[A-Z_]+ = .+\n)+)", source, re.MULTILINE)
    rows = [(stage.lower(), f"`{getattr(drop_reasons, name)}`", advice(name))
            for stage, lines in groups for name in re.findall(r"^([A-Z_]+) =", lines, re.MULTILINE)]  # fmt: skip
    head = "What stands after a colon is a detail, such as the error of a photo that cannot be read."
    return f"## Drop reasons\n\n{head}\n\n{as_table(('of', 'reason', 'what helps'), rows)}"


def advice(name: str) -> str:
    """What makes the photos that were dropped for a reason usable; empty where nothing general does."""
    return drop_reasons.ADVICE.get(getattr(drop_reasons, name), "")


def scores() -> str:
    """The scores of an evaluation, by their key in metrics.json and scores.jsonl."""
    rows = [(f"`{m.key}`", m.title, "share" if m.unit else f"{m.lowest:g} to {m.highest:g}",
             "" if m.higher_is_better else "low is good", m.meaning) for m in MEASURES]  # fmt: skip
    head = ("`scores.jsonl` of `taming eval` has a line per image, `metrics.json` the means by condition. "
            "[evaluation](../explanation/evaluation.md) explains them.")  # fmt: skip
    return f"## Scores\n\n{head}\n\n{as_table(('key', 'title', 'range', '', 'meaning'), rows)}"


def as_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [names, ["---"] * len(names), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
