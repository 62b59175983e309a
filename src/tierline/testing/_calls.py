"""What the calls of a test came to: their decisions, each with the request that it was made for."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tierline.binding import Binding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierline.values import Decision

SEEN_HEADER: Final = "x-tierline-binding"
"""Under `offline` alone, each response of an app with the middleware has the id of its Binding."""

_open: Final[list[Calls]] = []
"""What is being watched, the innermost last. Of the process, as what it watches is: a test has many contexts."""


class Calls:
    """The calls of an app while they are watched, over all Routers of this process, oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Binding, Decision]] = {}

    def __repr__(self) -> str:
        return f"<Calls {len(self._kept)}>"

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """All decisions, each as it is now: one that is not settled yet is replaced when it is."""
        with self._lock:
            return tuple(decision for _, decision in self._kept.values())

    @property
    def spent(self) -> int:
        """What they cost, with the questions about them, in nano-USD."""
        return sum(decision.cost for decision in self.decisions)

    def of_request(self, ident: str) -> tuple[Decision, ...]:
        """Those of one request, by the id of its Binding."""
        with self._lock:
            return tuple(decision for binding, decision in self._kept.values() if binding.id == ident)

    def of_router(self, router: object) -> tuple[Decision, ...]:
        """Those of one Router."""
        with self._lock:
            return tuple(decision for binding, decision in self._kept.values() if binding.owner is router)

    def note(self, binding: Binding, decision: Decision) -> None:
        """Keep a decision; one with the same id is replaced. From any thread."""
        with self._lock:
            self._kept[decision.id] = (binding, decision)

    def tiers(self) -> tuple[str, ...]:
        """The names of the tiers of their Routers, each once."""
        with self._lock:
            owners: list[Any] = [binding.owner for binding, _ in self._kept.values()]
        return tuple(dict.fromkeys(tier.name for owner in owners for tier in getattr(owner, "ladder", ())))


def watched() -> Calls | None:
    """The calls that are being watched here; None where nobody does."""
    return _open[-1] if _open else None


@contextmanager
def watching() -> Iterator[Calls]:
    """Note every decision that a Binding records, and let responses tell which Binding was theirs."""
    from tierline import asgi  # noqa: PLC0415  (starlette, for who tests an app)

    calls = Calls()
    record, shown = Binding.record, asgi._Sent._shown  # noqa: SLF001  (the seams that production code passes, too)

    def noting(self: Binding, decision: Decision) -> None:
        calls.note(self, decision)
        record(self, decision)

    def showing(self: Any, start: Any) -> Any:
        start = shown(self, start)
        headers = list(start.get("headers", ()))
        if any(name.lower() == SEEN_HEADER.encode() for name, _ in headers):
            return start
        return {**start, "headers": [*headers, (SEEN_HEADER.encode(), self.binding.id.encode())]}

    Binding.record, asgi._Sent._shown = noting, showing  # type: ignore[method-assign]  # noqa: SLF001
    _open.append(calls)
    try:
        yield calls
    finally:
        _open.remove(calls)
        Binding.record, asgi._Sent._shown = record, shown  # type: ignore[method-assign]  # noqa: SLF001
