"""The keys of params.yaml as docs/reference/params.md, from the sections in taming_core/params.

    python docs/params_reference.py       writes docs/reference/params.md

A key's effect is the comment beside its field; tests/test_docs.py checks that the page is current and each key has one.
"""

import io
import re
import tokenize
from ast import AnnAssign, ClassDef, Name, parse, walk
from collections.abc import Iterator, Mapping
from functools import cache
from inspect import getfile
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from taming_core.params.load import Params, packaged_params, read_yaml
from taming_core.params.section import Section

PAGE = Path(__file__).parent / "reference/params.md"
HEAD = """# Params

Written by `python docs/params_reference.py` from the sections in `taming_core/params`. `params.yaml` has a section for
each stage, and a key for every tunable number. The column *default* has the values of `mini`, with which the package
comes; `taming init --profile NAME` writes those of the other profiles. *null* is a value too, and stands for what the
effect says. An unknown key, a missing one, a value out of its range, and one that would have no effect beside the
others are errors that name the key.

A key of a section in a section is written with dots: `sampling.steps` is the key `steps` of `sampling`. To change one
for a run, edit the file, or `dvc exp run -S train.steps=2000`.
"""
COLUMNS = ("key", "type", "default", "range", "effect")
ABSENT = object()
NAMES = {str: "str", int: "int", float: "float", bool: "bool"}


def page() -> str:
    """The whole page (Markdown)."""
    defaults = read_yaml(packaged_params(), packaged_params())
    return "\n".join([HEAD, *(section(name, field, defaults[name]) for name, field in Params.model_fields.items())])


def section(name: str, field: FieldInfo, defaults: Mapping[str, Any]) -> str:
    """A section of params.yaml: what it is of, and a table of its keys."""
    kind: Any = field.annotation
    lines = [COLUMNS, ("---",) * len(COLUMNS), *keys(kind, defaults)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"## {name}\n\n{markdown(summary(kind))}\n\n{table}"


def summary(kind: type) -> str:
    """The first paragraph of a section's docstring."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def keys(kind: type[Section], defaults: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """The rows of a section's keys, each followed by those of the section that it holds."""
    for name, field in kind.model_fields.items():
        default = defaults.get(name, ABSENT if field.is_required() else field.get_default())
        inner = inner_section(field.annotation)
        text = effect(kind, name) or (summary(inner) if inner else "")
        yield (f"`{prefix}{name}`", type_of(field.annotation), shown(default, inner), range_of(field), markdown(text))
        if inner is not None:
            yield from keys(inner, default if isinstance(default, Mapping) else {}, f"{prefix}{name}.")


def inner_section(annotation: Any) -> type[Section] | None:
    """The section that a field holds, alone, in a list or beside null."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(inner_section, get_args(annotation))), None)


def type_of(annotation: Any) -> str:
    """A field's type in words.

    >>> type_of(list[int] | None), type_of(Literal["a", "b"]), type_of(dict[str, list[str]])
    ('list of int, or null', '`a`, `b`', 'list of str by name')
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        words = [type_of(kind) for kind in inner if kind is not NoneType]
        return ", or ".join([*words, "null"] if NoneType in inner else words)
    if origin is list:
        return f"list of {type_of(inner[0])}".replace("list of section", "list of sections")
    if origin is dict:
        return f"{type_of(inner[1])} by name"
    return type_of(inner[0]) if inner else NAMES[annotation]


def range_of(field: FieldInfo) -> str:
    """The range of a number, or the length of a list, from its constraints."""
    bounds = {
        name: getattr(m, name) for m in metadata_of(field) for name in ("gt", "ge", "lt", "le") if hasattr(m, name)
    }
    lengths = {n: getattr(m, n) for m in metadata_of(field) for n in ("min_length", "max_length") if hasattr(m, n)}
    if bounds.get("gt") == 0 and "int" in type_of(field.annotation):
        bounds = {"ge": 1, **{name: bound for name, bound in bounds.items() if name != "gt"}}
    return bounded(bounds) or counted(lengths)


def metadata_of(field: FieldInfo) -> list[Any]:
    """The constraints of a field, those beside null among them."""
    inner = [m for kind in get_args(field.annotation) for m in getattr(kind, "__metadata__", ())]
    return [part for m in (*field.metadata, *inner) for part in (getattr(m, "metadata", None) or [m])]


def bounded(bounds: Mapping[str, float]) -> str:
    """Bounds of a number in words.

    >>> bounded({"ge": 0, "le": 1}), bounded({"gt": 0}), bounded({"ge": 0, "lt": 1})
    ('0 to 1', 'above 0', '0 to below 1')
    """
    low = f"above {bounds['gt']}" if "gt" in bounds else str(bounds.get("ge", ""))
    high = f"below {bounds['lt']}" if "lt" in bounds else str(bounds.get("le", ""))
    return f"{low} to {high}" if low and high else f"{low} or more" if "ge" in bounds else low or high


def counted(lengths: Mapping[str, int]) -> str:
    """Bounds of a length in words.

    >>> counted({"min_length": 2, "max_length": 2}), counted({"min_length": 1}), counted({})
    ('2 entries', '1 or more entries', '')
    """
    low, high = lengths.get("min_length"), lengths.get("max_length")
    return "" if low is None else f"{low} entries" if low == high else f"{low} or more entries"


def shown(value: Any, inner: type[Section] | None) -> str:
    """A default as YAML has it; that of a section stands at its keys, a long one is cut.

    >>> shown(None, None), shown([], None), shown(2.0e-5, None), shown("a photo", None)
    ('`null`', '`[]`', '`2e-05`', '`a photo`')
    """
    if value is ABSENT or (inner is not None and value not in (None, [])):
        return ""
    texts = {None: "null", True: "true", False: "false"}
    text = texts[value] if value is None or isinstance(value, bool) else str(value).replace("'", "")
    return f"`{text if len(text) <= 60 else text[:50].rsplit(' ', 1)[0] + ' …'}`"


def effect(kind: type, name: str) -> str:
    """The comment beside the field of a class, or of the one that it inherits it from."""
    found = (
        comments(base).get(name) for base in kind.__mro__ if base not in (Section, object) and issubclass(base, Section)
    )
    return next(filter(None, found), "")


@cache
def comments(kind: type) -> dict[str, str]:
    """The comment of each field of a class: at the end of its lines, else in the lines above it."""
    source = Path(getfile(kind)).read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = [t for t in tokens if t.type == tokenize.COMMENT and not t.string.startswith("# fmt:")]
    inline, own = (
        {t.start[0]: t.string[2:] for t in found if (t.line[: t.start[1]].strip() != "") is kind}
        for kind in (True, False)
    )
    body = next(n.body for n in walk(parse(source)) if isinstance(n, ClassDef) and n.name == kind.__name__)
    fields = [n for n in body if isinstance(n, AnnAssign) and isinstance(n.target, Name)]
    return {n.target.id: beside(n, inline) or above(n.lineno, own) for n in fields if isinstance(n.target, Name)}


def beside(field: AnnAssign, lines: Mapping[int, str]) -> str:
    """The comment at the end of the lines of a field."""
    return " ".join(lines[n] for n in range(field.lineno, (field.end_lineno or 0) + 1) if n in lines)


def above(number: int, lines: Mapping[int, str]) -> str:
    """The comment in the lines right above a line.

    >>> above(5, {2: "of another", 3: "first", 4: "second"})
    'of another first second'
    """
    first = number
    while first - 1 in lines:
        first -= 1
    return " ".join(lines[n] for n in range(first, number))


def markdown(text: str) -> str:
    """A comment as Markdown, as a sentence in a table."""
    shielded = (
        text.removesuffix(".").replace("`<object>`", "<object>").replace("<object>", "`<object>`").replace("|", "\\|")
    )
    return re.sub(r"docs/(\w+)/(\w+)\.md", r"[\2](../\1/\2.md)", shielded)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
