"""Ledgers: who has spent how much, and what is held for calls in flight."""

from typing import TYPE_CHECKING

from tierline.ledger.base import Alert, Balance, Fullest, Hold, Ledger, Origin, Reservation, Spent
from tierline.ledger.memory import MemoryLedger

if TYPE_CHECKING:
    from tierline.ledger.redis import RedisLedger
    from tierline.ledger.sqlite import SQLiteLedger

__all__ = [
    "Alert",
    "Balance",
    "Fullest",
    "Hold",
    "Ledger",
    "MemoryLedger",
    "Origin",
    "RedisLedger",
    "Reservation",
    "SQLiteLedger",
    "Spent",
]


def __getattr__(name: str) -> object:
    # Who has neither SQLite nor Redis loads neither.
    if name == "SQLiteLedger":
        from tierline.ledger.sqlite import SQLiteLedger  # noqa: PLC0415

        return SQLiteLedger
    if name == "RedisLedger":
        from tierline.ledger.redis import RedisLedger  # noqa: PLC0415

        return RedisLedger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
