"""How good a tier's answer was: as an app says it, and as it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from tierline.errors import ConfigurationError
from tierline.numeric import is_whole
from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE: Final = 20_000
"""Evidence that a store keeps."""
REMEMBER: Final = 8 * 86_400.0
"""Seconds for which ids stay taken: longer than a handle lives, for clocks differ."""


@veiled("text")
@dataclass(frozen=True, slots=True)
class Outcome:
    """How good a tier's answer to a request was.

    - `route`: the template of the route that asked, such as `/answer`, or any name of the app's own
    - `text`: the latest turn that a person wrote; it is read for its features and then let go
    - `tier`: the name of the tier that answered
    - `good`: True or False, or a grade from 0 (useless) to 1 (good enough)
    - `tools`: how many were offered
    - `source`: who says so: `app`, `user`, `judge`, `check`, …
    - `weight`: how many outcomes this one counts as, above 0

    Raises ConfigurationError for values that cannot be.
    """

    route: str
    text: str
    tier: str
    good: bool | float
    tools: int = 0
    source: str = "app"
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("route", "tier", "source"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"Outcome({name}={value!r:.80}): write a name")
        if not isinstance(self.text, str):
            raise ConfigurationError(f"Outcome(text=…) must be a text, not a {type(self.text).__name__}")
        check_grade("Outcome(good=…)", self.good)
        if not is_whole(self.tools, 0):
            raise ConfigurationError(f"Outcome(tools={self.tools!r:.80}): write how many tools were offered")
        weight = self.weight
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not isfinite(weight) or weight <= 0:
            raise ConfigurationError(f"Outcome(weight={weight!r:.80}): write a number above 0")


def check_grade(where: str, good: object) -> float:
    """`good` as a number from 0 to 1. ConfigurationError, beginning with `where`, for all else."""
    if not isinstance(good, (bool, int, float)) or not 0 <= good <= 1:
        raise ConfigurationError(f"{where} is {good!r:.80}; write True, False, or a number from 0 to 1")
    return float(good)


class Evidence(NamedTuple):
    """An outcome as it is stored and shared: features in the place of the text.

    `id` is unique: of a decision, or of an outcome that the app brought. `features` are bytes that only
    `OutcomeModel` reads (a version, then numbers), no words can be read out of them. `account` is a keyed digest of
    whoever graded, empty for the app itself. `at` is in seconds since the epoch.
    """

    id: str
    route: str
    tier: str
    good: float
    features: bytes
    source: str = "app"
    weight: float = 1.0
    account: str = ""
    at: float = 0.0


class OutcomeStore(Protocol):
    """Where the processes of an app share their evidence.

    - `add` says of each whether it is new: an id is taken once, over all processes, however often it is given
    - `since` gives what was added after a cursor (empty: from the start), oldest first, and the cursor after that;
      each reader sees each evidence exactly once, also that of processes whose commits overlap
    - a cursor begins with its `edition`. After `forget`, and where a store has lost its data, there is another: `since`
      then begins from the start, and a reader lets go of what it had read before
    - it is bounded: of the oldest, those above its size are dropped; their ids stay taken for as long as a handle lives
    - `secret` is made at random by whoever comes first, and the same for all from then on; where it was lost, whoever
      knows it gives it back
    - `forget` drops the evidence of an account (its digest)
    - where the store is away, every method raises LedgerUnavailableError within its patience
    - each method may be called from any event loop
    """

    async def add(self, evidence: Sequence[Evidence]) -> list[bool]:
        """Keep evidence: see above."""
        ...

    async def since(self, cursor: str, limit: int = 1000) -> tuple[list[Evidence], str]:
        """At most `limit` that came after the cursor, and the cursor to go on from."""
        ...

    async def secret(self) -> bytes:
        """32 bytes that keys and signatures are made with."""
        ...

    async def forget(self, account: str) -> None:
        """Drop what an account graded."""
        ...


def edition(cursor: str) -> str:
    """Which state of a store a cursor is of."""
    return cursor.partition(":")[0]


def position(cursor: str, current: str) -> int:
    """The number of the last evidence that was read in the `current` edition; 0 for none."""
    of, _, number = cursor.partition(":")
    return int(number) if of == current and number.isdecimal() else 0
