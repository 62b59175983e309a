"""The reference has every public name, and the site is built of it."""

from __future__ import annotations

import ast
import importlib
import re
from typing import TYPE_CHECKING

import pytest

from tests.needs import need
from tests.pages import DOCS, PAGES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

need("mkdocstrings")

WHOLE = ("tierline.asgi", "tierline.errors", "tierline.fastapi", "tierline.starlette")
"""Public modules that say by their names alone what is public."""
INSIDE = {
    "tierline.batches.queue": "what carries deferred requests: an app has `Router.batches`",
    "tierline.classify.base": "the contract of classifiers: an app has it from `tierline.classify`",
    "tierline.telemetry": "spans: an app has `configure_tracing`",
}
"""Packages whose `__all__` is for other parts of Tierline, and what an app has instead."""


def modules() -> list[str]:
    """All modules that say what is public in them."""
    found = []
    for path in sorted((ROOT / "src" / "tierline").rglob("*.py")):
        if "__all__ = " in path.read_text("utf-8"):
            parts = path.relative_to(ROOT / "src").with_suffix("").parts
            found.append(".".join(part for part in parts if part != "__init__"))
    return found


def public(name: str) -> set[str]:
    """The public names of a module."""
    module = importlib.import_module(name)
    if hasattr(module, "__all__"):
        return {*module.__all__}
    tree = ast.parse((ROOT / "src" / f"{name.replace('.', '/')}.py").read_text("utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


@pytest.fixture(scope="module")
def anchors(site: Path) -> set[str]:
    """What can be linked to in the reference."""
    return {
        name
        for page in (site / "reference").rglob("index.html")
        for name in re.findall(r'id="((?:tierline|pytest_tierline)[.\w]*)"', page.read_text("utf-8"))
    }


@pytest.mark.parametrize("module", [name for name in (*modules(), *WHOLE) if name not in INSIDE])
def test_every_public_name_is_there(module: str, anchors: set[str]) -> None:
    """Whatever a module offers has its place in the reference."""
    names = public(module)
    assert names
    assert {
        name for name in names if f"{module}.{name}" not in anchors and f"{module}.{name}.{name}" not in anchors
    } == set()


@pytest.mark.parametrize(
    "name",
    ["anthropic.attach", "telemetry.configure_tracing", "batches.lane.Batches.defer", "fastapi.Claude",
     "store.redis.RedisStore", "prices.PriceBook", "values.usd"],
)  # fmt: skip
def test_what_apps_are_told_to_use_is_there(name: str, anchors: set[str]) -> None:
    """Of modules that are mostly for other parts of Tierline, what an app imports is in the reference."""
    assert f"tierline.{name}" in anchors


def test_every_page_of_it_is_of_something(site: Path) -> None:
    """No page of the reference is empty: a name that leads nowhere would leave one so."""
    for page in (DOCS / "reference").glob("*.md"):
        text = (site / "reference" / page.stem / "index.html").read_text("utf-8")
        named = re.findall(r"^::: ([\w.]+)$", page.read_text("utf-8"), re.MULTILINE)
        assert named, page
        assert text.count("doc doc-heading") >= len(named) - text.count("doc doc-object doc-module"), page


def test_what_is_told_of_a_router_is_there(anchors: set[str]) -> None:
    """Each method and property of a Router that a page names is in the reference, and so is each of a decision's."""
    text = "\n".join(page.read_text("utf-8") for page in PAGES if page.name not in ("architecture.md", "CHANGELOG.md"))
    named = set(re.findall(r"\brouter\.([a-z_]+)\(", text)) - {"post", "get"}
    assert len(named) > 20
    assert {name for name in named if f"tierline.Router.{name}" not in anchors} == set()
