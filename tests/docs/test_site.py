"""The documentation builds as a site, and no link in it leads nowhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.needs import need
from tests.pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

need("mkdocs", "mkdocstrings")

ROOT_PAGES = ("CHANGELOG", "CONTRIBUTING", "RELEASING", "SECURITY")


def test_every_page_is_there(site: Path) -> None:
    """Those of docs/ and those of the root; each can be reached from the first."""
    pages = [path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")]
    named = [*(str(page) for page in pages if str(page) != "index"), *ROOT_PAGES]
    start = (site / "index.html").read_text("utf-8")
    for name in named:
        assert (site / name / "index.html").is_file(), name
        assert f'href="{name}/"' in start, f"{name} is not in the navigation of mkdocs.yml"


def test_links_of_the_root_lead_to_pages(site: Path) -> None:
    """What is `docs/new-model.md` in a file of the root is a page here; what is no page is linked to at the forge."""
    contributing = (site / "CONTRIBUTING" / "index.html").read_text("utf-8")
    assert 'href="../new-model/"' in contributing
    assert not re.search(r'(?:href|src)="docs/', contributing)
    assert "/blob/main/example_app/operators.py" in (site / "monitoring" / "index.html").read_text("utf-8")


def test_no_page_asks_the_forge(site: Path) -> None:
    """The theme would ask it for its stars, on each page, from whoever reads it."""
    assert 'data-md-component="source"' not in (site / "index.html").read_text("utf-8")


def test_nothing_is_asked_of_others(site: Path) -> None:
    """A page loads its scripts, styles and letters from the site itself."""
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img)[^>]*\ssrc="([^"]+)"|<link[^>]*rel="stylesheet"[^>]*href="([^"]+)"', text)
        assert not [each for pair in loaded for each in pair if each.startswith(("http:", "https:", "//"))], page


def test_lists_and_tables_are_shown_as_such(site: Path) -> None:
    """The forge is more generous than the site with what stands before a list, and with how far it is indented."""
    for page in site.rglob("index.html"):
        text = page.read_text("utf-8")
        article = text[text.find("<article") : text.find("</article>")]
        for paragraph in re.findall(r"<p>(.*?)</p>", article, re.DOTALL):
            assert not re.search(r"\n\s*(?:[-*|] |\d+\. )|```|\]\(", paragraph), (page, paragraph)
