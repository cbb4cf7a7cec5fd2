"""The documentation is current: links, paths, names, the command line, and the examples of the Python API."""

import ast
import doctest
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cli_reference
import packages
import params_reference
import pytest
import tables_reference
import website
from shown import DOCS, PAGES, ROOT

from taming_core import TamingPipeline

CODE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", h)).strip().lower().replace(" ", "-") for h in headings}


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The files and anchors that a page links to."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = [(str(path), anchor) for path, anchor in links(page)
              if not path.exists() or (anchor and anchor not in anchors(path))]  # fmt: skip
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_path_in_backticks_exists(page: Path) -> None:
    named = re.findall(r"`((?:taming_core|stages|tests|docs|pipelines)/[^`\s*<{]+)`", prose(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_index_names_every_page_and_the_readme_the_index() -> None:
    named = {path for path, _ in links(DOCS / "README.md")}
    wanted = {page for page in PAGES if DOCS in page.parents} | {ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"}
    assert wanted - {DOCS / "README.md"} <= named
    assert DOCS / "README.md" in {path for path, _ in links(ROOT / "README.md")}


def test_the_changelog_has_a_section_for_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_command_line_reference_is_current() -> None:
    assert cli_reference.PAGE.read_text() == cli_reference.page(), "run `python docs/cli_reference.py`"


def test_the_reference_of_params_is_current() -> None:
    assert params_reference.PAGE.read_text() == params_reference.page(), "run `python docs/params_reference.py`"


def test_the_reference_of_tables_is_current() -> None:
    assert tables_reference.PAGE.read_text() == tables_reference.page(), "run `python docs/tables_reference.py`"


def test_every_key_of_params_has_an_effect() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \|.*\| (.*) \|$", params_reference.page(), re.MULTILINE)
    assert len(rows) > 200
    assert [key for key, effect in rows if not effect] == []


@pytest.mark.parametrize("script", [cli_reference, params_reference, tables_reference, website])
def test_the_examples_in_the_scripts_of_the_documentation_hold(script: ModuleType) -> None:
    assert doctest.testmod(script).failed == 0


ARCHITECTURE = (DOCS / "explanation/architecture.md").read_text()


def test_the_architecture_lists_the_packages_in_their_order() -> None:
    table = ARCHITECTURE.split("## Packages")[1].split("## Rules")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == packages.ORDER


def names_in(path: Path) -> set[str]:
    """`module.function`, `module.Class` and `module.Class.method` of a file."""
    found = set[str]()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(f"{path.stem}.{node.name}")
        if isinstance(node, ast.ClassDef):
            found |= {f"{path.stem}.{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


STEPS = re.findall(r"^\| `([\w/]+\.py)` \| (.+?) \|", ARCHITECTURE, re.MULTILINE)


def test_the_architecture_follows_three_paths() -> None:
    assert len(STEPS) > 30
    assert {"stages/detect.py", "stages/train.py", "stages/generate.py"} <= {path for path, _ in STEPS}


@pytest.mark.parametrize(("path", "functions"), STEPS, ids=[f"{n}-{path}" for n, (path, _) in enumerate(STEPS)])
def test_every_function_on_the_paths_exists(path: str, functions: str) -> None:
    assert set(re.findall(r"`([^`]+)`", functions)) - names_in(ROOT / path) == set()


API = (DOCS / "reference/api.md").read_text()


def test_the_api_page_names_every_argument_of_a_call() -> None:
    arguments = inspect.signature(TamingPipeline.__call__).parameters
    assert [name for name in arguments if name != "self" and f"`{name}`" not in API] == []


def test_the_examples_of_the_api_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shared: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", API, re.DOTALL):
        exec(block, shared)
    assert (tmp_path / "beach.png").is_file()


def test_the_package_is_typed() -> None:
    assert (ROOT / "taming_core/py.typed").is_file()
