"""Every command and snippet that the documentation shows: parsed by the real command line, run, or resolved."""

import ast
import importlib
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import shown
from ruamel.yaml import YAML
from shown import PAGES, ROOT, Block
from torch.distributed.run import get_args_parser

from taming_core.params.load import Params, packaged_params, read_yaml
from taming_core.projects import profiles

SHELL = [block for page in PAGES for block in shown.blocks(page, "bash")]
COMMANDS = [(page, words) for page in PAGES for words in shown.commands(page)]
INLINE = [(page, words) for page in PAGES for words in shown.inline_commands(page)]
PYTHON = [block for page in PAGES for block in shown.blocks(page, "python")]
YAML_BLOCKS = [block for page in PAGES for block in shown.blocks(page, "yaml")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
# Other programs: what they do is theirs.
OTHERS = {
    "cd",
    "cp",
    "cat",
    "done",
    "for",
    "git",
    "llama-server",
    "mkdir",
    "npm",
    "ollama",
    "tar",
    "tensorboard",
    "touch",
    "unzip",
    "vllm",
}
# Pages of which every Python block is run: by tests/journey and tests/test_docs.py.
RUN = {
    "README.md", "docs/reference/api.md", "docs/reference/tables.md", "docs/explanation/stages.md",
    "docs/how-to/generate.md", "docs/how-to/masks.md", "docs/how-to/metadata.md", "docs/tutorials/mini.md",
    "docs/tutorials/furniture.md", "docs/tutorials/comfyui.md",
}  # fmt: skip


def name(shown_by: tuple[Path, list[str]]) -> str:
    page, words = shown_by
    return f"{page.relative_to(ROOT)}: {shlex.join(words)}"


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) > 120
    assert len(INLINE) > 100
    assert len(PYTHON) > 20


@pytest.mark.parametrize("command", COMMANDS, ids=map(name, COMMANDS))
def test_the_command_line_parses_every_command(command: tuple[Path, list[str]]) -> None:
    shown.parse(command[1])


@pytest.mark.parametrize("command", INLINE, ids=map(name, INLINE))
def test_every_command_in_prose_exists_with_its_options(command: tuple[Path, list[str]]) -> None:
    words = command[1]
    if words[0].startswith("--"):
        assert words in (["--version"], ["--help"])
    elif not (words[0] == "COMMAND" or words == ["bench"]):
        found, rest = shown.command_of([words[0].partition("|")[0], *words[1:]])
        assert {w.partition("=")[0] for w in rest if w.startswith("--")} <= shown.options_of(found)


def check_line(words: list[str]) -> None:
    """A line of a shell block: what it names of this project exists."""
    if (inner := shown.inner_command(words)) is not None:
        shown.parse(inner)
    match words:
        case ["taming", *_]:
            shown.parse(words[1:])
        case ["make", *targets]:
            assert set(targets) <= TARGETS
        case ["pip", "install", *wanted]:
            extras = {extra for w in wanted for extra in re.findall(r"[\w-]+", w.partition("[")[2])}
            assert extras <= PROJECT["optional-dependencies"].keys()
            assert all(re.match(r"(taming|\.)(\[|$)", w) for w in wanted if w != "-e")
        case ["dvc", "init", "--no-scm"] | ["dvc", "repro"]:
            pass
        case ["dvc", "repro", target]:
            assert (ROOT / target.partition(":")[0]).is_file()
        case ["dvc", "exp", "run", *rest]:
            target = next((w for w in rest if "dvc.yaml" in w), "dvc.yaml")
            assert (ROOT / target.partition(":")[0]).is_file()
            for setting in (w for w in rest if "=" in w and ":" not in w):
                section, *keys = setting.partition("=")[0].split(".")
                value = read_yaml(packaged_params(), packaged_params())[section]
                for key in keys:
                    value = value[key]
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module)
        case ["python", file, *_]:
            assert (ROOT / file).is_file()
        case ["pytest", *rest]:
            assert all((ROOT / w).exists() for w in rest if "/" in w)
        case ["torchrun", *rest]:
            get_args_parser().parse_args(rest)
        case [program, *_]:
            assert program in OTHERS, "a program that no check knows"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_shell_line_names_what_exists(block: Block) -> None:
    for words in shown.lines(block):
        check_line(words)


def dotted(node: ast.expr) -> list[str] | None:
    """The names of an attribute chain, such as torch.Generator; None for any other expression."""
    if isinstance(node, ast.Name):
        return [node.id]
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else None
    return [*inner, node.attr] if inner and isinstance(node, ast.Attribute) else None


def member(module: Any, name: str) -> Any:
    """What `from module import name` gives: an attribute, or else a module of a package."""
    return getattr(module, name) if hasattr(module, name) else importlib.import_module(f"{module.__name__}.{name}")


def resolve(code: str) -> None:
    """Import what a snippet imports, and look up every attribute that it takes of a module or a class of those."""
    tree, known = ast.parse(code), dict[str, Any]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            known |= {alias.asname or alias.name: member(module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            known |= {(a.asname or a.name).partition(".")[0]: importlib.import_module(a.name) for a in node.names}
    for node in ast.walk(tree):
        names = dotted(node) if isinstance(node, ast.Attribute) else None
        if names and names[0] in known:
            value = known[names[0]]
            for attribute in names[1:]:
                value = getattr(value, attribute)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_every_name_in_python_exists(block: Block) -> None:
    resolve(block.code)


def test_the_check_of_names_finds_a_wrong_one() -> None:
    resolve("import torch\ntorch.Generator().manual_seed(0)")
    with pytest.raises(AttributeError):
        resolve("import torch\ntorch.Generater()")


@pytest.mark.parametrize("page", sorted(RUN))
def test_pages_that_are_run_have_python(page: str) -> None:
    assert shown.blocks(ROOT / page, "python")


def merged(values: Any, changes: Any) -> Any:
    """The params with the changes of a YAML block, sections key by key."""
    if not isinstance(values, dict) or not isinstance(changes, dict):
        return changes
    return {**values, **{key: merged(values.get(key), change) for key, change in changes.items()}}


def accepts(profile: str, changes: Any) -> bool:
    """Whether a profile's params are valid with the changes."""
    values = YAML(typ="safe", pure=True).load(profiles.params_text(profile, None))
    try:
        Params.model_validate(merged(values, changes))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("block", YAML_BLOCKS, ids=str)
def test_every_params_block_is_valid_in_a_profile(block: Block) -> None:
    changes = YAML(typ="safe", pure=True).load(block.code)
    assert changes.keys() <= Params.model_fields.keys()
    assert any(accepts(profile, changes) for profile in profiles.PROFILES)


URL = re.compile(r"\]\(([a-z]+:[^)\s]+)\)")
LINKS = [(page, url) for page in PAGES for url in URL.findall(shown.BLOCK.sub("", page.read_text(encoding="utf-8")))]


@pytest.mark.parametrize(("page", "url"), LINKS, ids=lambda value: str(value))
def test_every_external_link_is_well_formed(page: Path, url: str) -> None:
    parts = urlsplit(url)
    assert parts.scheme == "https"
    assert re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", parts.netloc)
    assert not url.endswith((".", ","))
