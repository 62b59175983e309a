"""What a store of verdicts must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIZE: Final = 100_000
"""Verdicts that a store keeps."""


class Kept(NamedTuple):
    """A verdict as it is stored.

    `key` is a keyed digest of what it is a verdict on, in hexadecimal digits, `account` one of whose it is. `value` is
    sealed (see `tierline.verdicts.sealing`). `ttl` is for how many seconds it counts.
    """

    key: str
    account: str
    value: str
    ttl: float


@dataclass(frozen=True, slots=True)
class StoredVerdicts:
    """What a store has, over all processes: verdicts that still count, how often one was found, nano-USD saved by it.

    Those that a process had in its memory are not counted here.
    """

    size: int
    hits: int
    saved: int


class VerdictStore(Protocol):
    """Where the processes of an app share their verdicts.

    - `get` gives the value of each key, in order; None where there is none, it is too old, or it is no text
    - `put` keeps verdicts; one whose key is there takes its place
    - `used` counts how often keys were found, and what that saved
    - it is bounded: the oldest are dropped above its size, and those that are too old in any case
    - `forget` drops the verdicts of an account (its digest), `clear` those of all; what was counted stays
    - where the store is away, every method raises LedgerUnavailableError within its patience
    - each method may be called from any event loop
    """

    async def get(self, keys: Sequence[str]) -> list[str | None]:
        """The value of each key."""
        ...

    async def put(self, kept: Sequence[Kept]) -> None:
        """Keep verdicts."""
        ...

    async def used(self, counts: Mapping[str, int], saved: int) -> None:
        """Count keys that were found, and nano-USD that this saved."""
        ...

    async def forget(self, account: str) -> None:
        """Drop the verdicts of an account."""
        ...

    async def clear(self) -> None:
        """Drop all verdicts."""
        ...

    async def stats(self) -> StoredVerdicts:
        """What there is."""
        ...
