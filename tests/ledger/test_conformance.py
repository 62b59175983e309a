from __future__ import annotations

from typing import TYPE_CHECKING

from tierline.ledger import MemoryLedger
from tierline.testing import LedgerConformance

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.ledger import Ledger


class TestMemory(LedgerConformance):
    """The memory of one process: another object on the same state is the same object."""

    drift = 100_000
    herd = 1_000
    examples = 150
    steps = 40

    def open_ledger(self, clock: Callable[[], float], lease: float) -> Ledger:
        return MemoryLedger(clock=clock, lease=lease)

    def open_again(self, ledger: Ledger, clock: Callable[[], float], lease: float) -> Ledger:
        return ledger
