"""The command line as docs/reference/cli.md, from the commands' own help.

    python docs/cli_reference.py          writes docs/reference/cli.md

tests/test_docs.py checks that the page is current.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from stages.cli import app

PAGE = Path(__file__).parent / "reference/cli.md"
HEAD = """# Command line

Written by `python docs/cli_reference.py` from the help of each command, which `taming COMMAND --help` prints too. Every
tunable number is a key of `params.yaml` ([params](params.md) lists them); options name files, devices, and what
changes from call to call.
"""
COLUMNS = ("option", "type", "default", "meaning")
EXAMPLE = "Example: "


def page() -> str:
    """The whole page (Markdown)."""
    commands = list(walk(typer.main.get_command(app), "taming"))
    contents = "".join(f"- [`{name}`](#{name.replace(' ', '-')}): {summary(c.help)}\n" for name, c in commands)
    return "\n".join([HEAD, contents, *(section(name, c) for name, c in commands)])


def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The commands below a group, with their full names, in the order of the command table."""
    if isinstance(command, TyperGroup):
        for own, below in command.commands.items():
            yield from walk(below, f"{name} {own}")
    else:
        yield name, command


def section(name: str, command: Any) -> str:
    """A command: what it does, examples, and a table of its options."""
    prose, examples = split_help(command.help)
    context = typer.Context(command, info_name=name)
    records = [record for p in command.params if (record := p.get_help_record(context))]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row(*record) for record in records)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"## {name}\n\n{prose}\n\n```bash\n{examples}\n```\n\n{table}"


def split_help(text: str) -> tuple[str, str]:
    r"""The paragraphs of a help text as Markdown, and its example lines.

    >>> split_help("Draw an <object>.\n\n\bExample: taming draw\nExample: taming draw --all")
    ('Draw an `<object>`.', 'taming draw\ntaming draw --all')
    """
    lines = text.replace("\b\n", "").replace("\b", "").splitlines()
    examples = [line.removeprefix(EXAMPLE) for line in lines if line.startswith(EXAMPLE)]
    prose = "\n".join(line for line in lines if not line.startswith(EXAMPLE))
    return markdown(prose.strip()), "\n".join(examples)


def summary(text: str) -> str:
    """The first paragraph of a help text, on one line."""
    return " ".join(split_help(text)[0].split("\n\n")[0].split())


def row(names: str, meaning: str) -> tuple[str, ...]:
    """An option as cells, from the two columns that `--help` prints.

    >>> row("--seed <int range>", "Of the first image.  [default: 0; x>=0]")
    ('`--seed`', 'int, >=0', '`0`', 'Of the first image.')
    >>> row("--port <int range>", "Of 127.0.0.1.  [1<=x<=65535]")
    ('`--port`', 'int, 1 to 65535', '', 'Of 127.0.0.1.')
    >>> row("--prompt <list[str]>", "With <object> in it.  [required]")
    ('`--prompt`', 'list[str]', 'required', 'With `<object>` in it.')
    """
    name, _, kind = names.partition(" <")
    text, _, facts = meaning.removesuffix("]").partition("  [") if meaning.endswith("]") else (meaning, "", "")
    kinds, default = [kind.removesuffix(">").removesuffix(" range") or "flag"], ""
    for fact in facts.split("; ") if facts else ():
        if fact.startswith("default: "):
            default = f"`{fact.removeprefix('default: ')}`"
        elif fact == "required":
            default = fact
        else:
            kinds.append(fact.replace("<=x<=", " to ").replace("x", ""))
    return f"`{name}`", ", ".join(kinds), default, markdown(text).replace("|", "\\|")


def markdown(text: str) -> str:
    """Help as Markdown, in which `<object>` is a word and not HTML."""
    return text.replace("`<object>`", "<object>").replace("<object>", "`<object>`")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
