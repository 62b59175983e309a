"""One way to call Claude (or an app), as a worker runs it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from benchmarks.peers.rows import Kind


class World(NamedTuple):
    """What columns call and keep things in."""

    url: str
    """Of the local Messages API."""
    redis: str | None
    folder: str


class NotDoneError(Exception):
    """A column did not do the thing that is to be measured."""


async def _nothing() -> None:
    pass


@dataclass
class Column:
    """One way to call.

    - `calls`: by kind, a function of the prompt that makes one whole call and gives what came of it
    - `check`: says in words what a call has done, by its kind and what came of it; NotDoneError where that is not what
      is to be measured. It is asked after calls that are not measured
    - `flush`: ends a block: what its calls left to be done later is theirs
    - `around`: surrounds a block, for what patches the SDK as a whole
    - `beside`: CPU seconds so far of processes that work for this column
    - `also`: further columns of the same worker that this one is held against
    """

    name: str
    calls: Mapping[Kind, Callable[[str], Awaitable[Any]]]
    check: Callable[[Kind, Any], str]
    flush: Callable[[], Awaitable[None]] = _nothing
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    beside: Callable[[], float] = lambda: 0.0
    also: tuple[str, ...] = field(default=())
