"""The documentation builds as a site, and no link in it leads nowhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.needs import need
from tests.pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

need("mkdocs", "mkdocstrings")


def test_every_page_is_there(site: Path) -> None:
    """Those of docs/ and those of the root, the README as the first; each can be reached from there."""
    pages = [path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")]
    named = [*map(str, pages), "CHANGELOG", "CONTRIBUTING", "RELEASING", "SECURITY"]
    start = (site / "index.html").read_text("utf-8")
    for name in named:
        assert (site / name / "index.html").is_file(), name
        assert f'href="{name}/"' in start, f"{name} is not in the navigation of mkdocs.yml"


def test_links_of_the_root_lead_to_pages(site: Path) -> None:
    """What is `docs/choosing.md` in the README is a page here, and what is a page there can be found from it."""
    start = (site / "index.html").read_text("utf-8")
    assert 'href="choosing/"' in start
    assert 'src="images/page.png"' in start
    assert not re.search(r'(?:href|src)="docs/', start)
    security = (site / "SECURITY" / "index.html").read_text("utf-8")
    assert 'href="../#what-it-does-not"' in security
    assert "/blob/main/example_app/main.py" in (site / "monitoring" / "index.html").read_text("utf-8")


def test_no_page_asks_the_forge(site: Path) -> None:
    """The theme would ask it for its stars, on each page, from whoever reads it."""
    assert 'data-md-component="source"' not in (site / "index.html").read_text("utf-8")


def test_nothing_is_asked_of_others(site: Path) -> None:
    """A page loads its scripts, styles and letters from the site itself."""
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img)[^>]*\ssrc="([^"]+)"|<link[^>]*rel="stylesheet"[^>]*href="([^"]+)"', text)
        assert not [each for pair in loaded for each in pair if each.startswith(("http:", "https:", "//"))], page
