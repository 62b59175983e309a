"""Reprs without what a prompt may stand in: they end up in logs, in messages of errors, and with who tracks errors."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_MOST: Final = 200
"""Characters of a value that are shown."""


def veiled(*hidden: str) -> Callable[[type[T]], type[T]]:
    """Give a dataclass or a named tuple a repr that shows of the `hidden` fields only whether there is something."""

    def veil(kind: Any) -> Any:
        names = [each.name for each in fields(kind)] if is_dataclass(kind) else kind._fields
        if unknown := set(hidden).difference(names):
            raise TypeError(f"{kind.__name__} has no fields {sorted(unknown)}")

        def shown(self: Any) -> str:
            values = ((name, getattr(self, name)) for name in names)
            told = (f"{name}=…" if name in hidden and value else f"{name}={value!r:.{_MOST}}" for name, value in values)
            return f"{kind.__name__}({', '.join(told)})"

        kind.__repr__ = shown
        return kind

    return veil
