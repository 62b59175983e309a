"""Ledgers: who has spent how much, and what is held for calls in flight."""

from tierline.ledger.base import Alert, Balance, Hold, Ledger, Origin, Reservation, Spent
from tierline.ledger.memory import MemoryLedger

__all__ = ["Alert", "Balance", "Hold", "Ledger", "MemoryLedger", "Origin", "Reservation", "Spent"]
