"""Ledgers: who has spent how much, and what is held for calls in flight."""

from tierline.ledger.base import Balance, Ledger, Reservation
from tierline.ledger.memory import MemoryLedger

__all__ = ["Balance", "Ledger", "MemoryLedger", "Reservation"]
