"""The pages of documentation, as tests read them."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

if TYPE_CHECKING:
    from sybil.document import Document

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
"""Every page: those of docs/, and those that stand at the root."""


def parsed(page: Path) -> Document:
    """A page, its blocks of Python ready to run."""
    return Sybil([PythonCodeBlockParser()], path=str(page.parent), pattern=page.name).parse(page)


def names_of(page: Path, *words: str) -> dict[str, Any]:
    """The names that the code of a page leaves; with `words`, of those blocks that have one of them."""
    document = parsed(page)
    for example in document.examples():
        if not words or any(word in str(example.parsed) for word in words):
            example.evaluate()
    document.namespace["__builtins__"] = builtins  # Sybil takes it away, and pickle imports by it
    return document.namespace


def blocks(page: Path) -> list[tuple[str, str]]:
    """All blocks of a page, in order, each with its language: empty where it says none."""
    return re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
