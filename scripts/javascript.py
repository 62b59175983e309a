"""Looks for faults in the JavaScript of the pages, without a browser: `python -m scripts.javascript [DIRECTORY …]`.

What cannot be parsed, names that nothing declares, and imports that are not there or not used. What the pages do is
tested in Chromium.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import tree_sitter_javascript
from tree_sitter import Language, Parser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tree_sitter import Node

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = (ROOT / "src" / "tierline" / "dashboard" / "static", ROOT / "example_app" / "static")
_GIVEN: Final = """
AbortController AbortSignal Array BigInt Boolean Blob clearInterval clearTimeout console crypto CSS customElements
CustomEvent Date document DOMException Error Event EventSource fetch FormData getComputedStyle history Infinity Intl
isNaN JSON location Map matchMedia Math MutationObserver NaN navigator Number Object Promise Proxy Reflect RegExp
requestAnimationFrame ResizeObserver sessionStorage localStorage Set setInterval setTimeout String structuredClone
Symbol TextDecoder TextEncoder TypeError Uint8Array undefined URL URLSearchParams WeakMap window arguments uPlot
addEventListener decodeURIComponent encodeURIComponent globalThis innerWidth queueMicrotask TextDecoderStream WebSocket
await
"""
"""What a browser gives, and the one library that is no module; `await (…)` looks like a call."""
_DECLARES: Final = (
    "formal_parameters", "array_pattern", "rest_pattern", "import_specifier", "namespace_import", "import_clause",
)  # fmt: skip
"""Of what kind a node is all of whose names are declared by it."""
_NAMES: Final = {
    "variable_declarator": "name", "assignment_pattern": "left", "object_assignment_pattern": "left",
    "pair_pattern": "value", "arrow_function": "parameter", "for_in_statement": "left", "catch_clause": "parameter",
    "function_declaration": "name", "generator_function_declaration": "name", "class_declaration": "name",
    "function_expression": "name", "class": "name",
}  # fmt: skip
"""Of what kind one is that declares the name in this place."""


def faults(folder: Path) -> list[str]:
    """What is wrong with the files of a folder, `file:line: what`."""
    return [each for path in sorted(folder.glob("*.js")) for each in _faults_of(path)]


def _faults_of(path: Path) -> Iterator[str]:
    root = _root(path)
    for node in _all(root):
        if node.is_error or node.is_missing:
            yield f"{path.name}:{node.start_point.row + 1}: this cannot be parsed"
            return
    declared = {_text(node) for node in _all(root) if _is_declared(node)}.union(_GIVEN.split())
    used: dict[str, int] = {}
    for node in _all(root):
        named = node.type in ("identifier", "shorthand_property_identifier")
        if named and not _is_declared(node) and not _is_imported(node):
            used.setdefault(_text(node), node.start_point.row + 1)
    for name, line in used.items():
        if name not in declared:
            yield f"{path.name}:{line}: nothing declares {name}"
    for statement in root.children:
        if statement.type == "import_statement":
            yield from _of_import(path, statement, used)


def _of_import(path: Path, statement: Node, used: dict[str, int]) -> Iterator[str]:
    source = _text(statement.child_by_field_name("source")).strip("\"'")
    other, line = path.parent / source, statement.start_point.row + 1
    if not other.is_file():
        yield f"{path.name}:{line}: there is no {other.name}"
        return
    for node in _all(statement):
        if node.type != "import_specifier":
            continue
        name, alias = node.child_by_field_name("name"), node.child_by_field_name("alias")
        if other.parent == path.parent and _text(name) not in _exported(other):  # vendored ones say it in their own way
            yield f"{path.name}:{line}: {other.name} does not export {_text(name)}"
        if _text(alias or name) not in used:
            yield f"{path.name}:{line}: {_text(alias or name)} is not used"


def _exported(path: Path) -> set[str]:
    found = set()
    for statement in _root(path).children:
        if statement.type == "export_statement":
            found |= {_text(node) for node in _all(statement) if _is_declared(node) or node.type == "export_specifier"}
    return found


def _is_declared(node: Node) -> bool:
    if node.type == "shorthand_property_identifier_pattern":
        return True
    parent = node.parent
    if node.type != "identifier" or parent is None:
        return False
    return parent.type in _DECLARES or parent.child_by_field_name(_NAMES.get(parent.type, "none")) == node


def _is_imported(node: Node) -> bool:
    return node.parent is not None and node.parent.type == "import_specifier"


@lru_cache
def _root(path: Path) -> Node:
    return Parser(Language(tree_sitter_javascript.language())).parse(path.read_bytes()).root_node


def _all(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _all(child)


def _text(node: Node | None) -> str:
    return (node.text or b"").decode() if node is not None else ""


if __name__ == "__main__":
    found = [each for folder in (list(map(Path, sys.argv[1:])) or FOLDERS) for each in faults(folder)]
    print("\n".join(found) or "the JavaScript of the pages has no faults")
    sys.exit(bool(found))
