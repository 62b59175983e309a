from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tierline.ledger.sqlite import SQLiteLedger
from tierline.testing import LedgerConformance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tierline.ledger import Ledger


FOREVER = 1e9
"""Seconds: the suite jumps days ahead and asks for ids of the day before."""


class TestSQLite(LedgerConformance):
    """A file: another object on the same state has a connection and a thread of its own, as another process has."""

    drift = 1_000
    examples = 15

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path
        self.files = itertools.count()

    def open_ledger(self, clock: Callable[[], float], lease: float) -> Ledger:
        return SQLiteLedger(self.directory / f"{next(self.files)}.db", clock=clock, lease=lease, remember=FOREVER)

    def open_again(self, ledger: Ledger, clock: Callable[[], float], lease: float) -> Ledger:
        assert isinstance(ledger, SQLiteLedger)
        return SQLiteLedger(ledger.store.path, clock=clock, lease=lease, remember=FOREVER)
