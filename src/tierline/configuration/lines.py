"""On which line each key of a TOML text stands: `tomllib` does not say."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Path: TypeAlias = tuple[str | int, ...]
"""The keys that lead to a value; those of a list are counted from 0."""


def lines_of(text: str) -> dict[Path, int]:
    """The line, counted from 1, of every key and table of a text that is TOML. What is in a list has the list's."""
    found: dict[Path, int] = {}
    tables: dict[Path, int] = {}
    here: Path = ()
    chunk, begins = "", 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not chunk:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            begins = number
        chunk += line
        try:
            # A statement is whole where it can be read: until then it is in the midst of a list or of a long text.
            parsed = tomllib.loads(chunk)
        except tomllib.TOMLDecodeError:
            continue
        head = chunk.lstrip()
        if head.startswith("["):
            here = _opened(parsed, tables, again=head.startswith("[["))
            paths: list[Path] = [here]
        else:
            paths = [(*here, *path) for path in _keys(parsed)]
        for path in paths:
            for end in range(1, len(path) + 1):
                found.setdefault(path[:end], begins)
        chunk = ""
    return found


def _opened(parsed: Mapping[str, Any], tables: dict[Path, int], *, again: bool) -> Path:
    """The table that a header opens. `tables` counts those of lists; with `again` it is another one of a list."""
    path: Path = ()
    value: Any = parsed
    while isinstance(value, dict) and value:
        ((name, value),) = value.items()
        path = (*path, name)
        last = not (isinstance(value, dict) and value)
        if last and again:
            tables[path] = tables.get(path, -1) + 1
        if path in tables:
            path = (*path, tables[path])
    return path


def _keys(parsed: Mapping[str, Any]) -> Iterator[Path]:
    for name, value in parsed.items():
        yield (name,)
        if isinstance(value, dict):
            yield from ((name, *path) for path in _keys(value))
