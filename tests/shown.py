"""What the documentation shows: its pages, code blocks, commands, and the command line that parses them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from stages.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "pipelines").rglob("README.md")),
    ROOT / "taming_core/mini/README.md",
]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LAUNCHERS = ("torchrun", "accelerate", "python", "srun")  # which `taming` may stand behind


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str  # "" where none is named
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page in one of the languages, or all of them."""
    text = page.read_text(encoding="utf-8")
    found = [Block(page, text[: m.start()].count("\n") + 1, m[2], m[3]) for m in BLOCK.finditer(text)]
    return [block for block in found if not languages or block.language in languages]


def lines(block: Block) -> Iterator[list[str]]:
    """The words of each command of a shell block, without comments."""
    for line in block.code.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def commands(page: Path) -> list[list[str]]:
    """The words of every `taming` command in a page's shell blocks, without `taming` itself."""
    return [words[1:] for block in blocks(page, "bash") for words in lines(block) if words[0] == "taming"]


def inner_command(words: list[str]) -> list[str] | None:
    """The `taming` command that a launcher starts, without `taming` itself; None where there is none."""
    at = words.index("taming") if "taming" in words and words[0] in LAUNCHERS else None
    return None if at is None else words[at + 1 :]


def inline_commands(page: Path) -> list[list[str]]:
    """The words of `taming` commands in the prose of a page, which may leave arguments out."""
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"`taming ([^`]+)`", prose)
    return [shlex.split(" ".join(text.split())) for text in found]


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command of the command line that words name, and the rest of them.

    Raises:
        KeyError: there is no such command.
    """
    command: Any = typer.main.get_command(app)
    while isinstance(command, TyperGroup):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def parse(words: list[str]) -> None:
    """Parse a whole command as the command line does, without running it; what it refuses is raised."""
    command, rest = command_of(words)
    command.make_context(" ".join(words[:1]), list(rest))


def options_of(command: Any) -> set[str]:
    """All names of a command's options."""
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
