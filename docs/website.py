"""What mkdocs.yml hooks into the site: pages from outside of docs/, links between both, equations as MathML.

In the repository a link is a path of the repository; on the site the page of docs/how-to/export.md is
how-to/export.md, and that of pipelines/mini/README.md has the same path. What a page links to in the repository is a
page or file of the site.
"""

import re
from collections.abc import Iterator
from functools import cache
from os.path import normpath, relpath
from pathlib import Path, PurePosixPath
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")
FENCED = re.compile(r"(^ *```.*?^ *```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add what the pages link to outside of docs/, and what those pages link to."""
    for path in sorted(linked_outside()):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between files of the repository become links between pages of the site."""
    here = PurePosixPath(page.file.src_uri).parent
    own = repository_path(page.file.src_uri)
    parts = FENCED.split(markdown)  # every other one is code
    parts[::2] = [LINK.sub(lambda link: relpath(site_path(target(own, link[1])), here), part) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, **_: Any) -> str:
    """Equations as MathML, which browsers draw without a script."""
    return EQUATION.sub(lambda found: equation(unescaped(found[2]), found[1] == "div"), html)


def equation(tex: str, displayed: bool) -> str:
    """An equation as MathML: in its line, or displayed, where a narrow window scrolls it.

    >>> equation("x", False)
    '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mrow><mi>x</mi></mrow></math>'
    """
    return f'<div class="equation">{convert(tex, display="block")}</div>' if displayed else convert(tex)


def unescaped(text: str) -> str:
    """The TeX of an equation in HTML.

    >>> unescaped("a &lt; b &amp; c")
    'a < b & c'
    """
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def repository_path(path: str) -> str:
    """Where the file of a site's path is in the repository.

    >>> repository_path("how-to/export.md"), repository_path("pipelines/mini/README.md")
    ('docs/how-to/export.md', 'pipelines/mini/README.md')
    """
    return f"docs/{path}" if (ROOT / "docs" / path).exists() else path


def site_path(path: str) -> str:
    """Where a file of the repository is on the site; the README is the site's first page.

    >>> site_path("docs/how-to/export.md"), site_path("CHANGELOG.md"), site_path("README.md")
    ('how-to/export.md', 'CHANGELOG.md', 'README.md')
    """
    return path.removeprefix("docs/")


def target(page: str, link: str) -> str:
    """The path in the repository that a link of a page names.

    >>> target("docs/how-to/export.md", "../reference/cli.md"), target("README.md", "docs/hero.png")
    ('docs/reference/cli.md', 'docs/hero.png')
    """
    return normpath(PurePosixPath(page).parent / link)


def targets(page: str) -> Iterator[str]:
    """The paths in the repository that a page links to."""
    text = FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))
    yield from (target(page, link) for link in LINK.findall(text))


@cache
def linked_outside() -> frozenset[str]:
    """The files outside of docs/ that its pages lead to, directly or by others of them."""
    found, pages = set[str](), [str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")]
    while pages:
        new = {t for t in targets(pages.pop()) if not t.startswith("docs/") and t != "README.md"} - found
        found |= new
        pages += [path for path in new if path.endswith(".md")]
    return frozenset(found)
