from __future__ import annotations

import asyncio
import unittest
from typing import TYPE_CHECKING

import pytest

from tierline.ledger import MemoryLedger
from tierline.testing import LedgerConformance

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.ledger import Ledger


class TestMemory(LedgerConformance):
    """The memory of one process: another object on the same state is the same object."""

    drift = 100_000
    herd = 1_000
    examples = 100
    steps = 40

    def open_ledger(self, clock: Callable[[], float], lease: float) -> Ledger:
        return MemoryLedger(clock=clock, lease=lease)

    def open_again(self, ledger: Ledger, clock: Callable[[], float], lease: float) -> Ledger:
        return ledger


class Leaky(MemoryLedger):
    """Forgets to give holds back."""

    async def release(self, key: str) -> bool:
        return True


class Generous(MemoryLedger):
    """Reads a balance, lets others in, and acts on what it has read."""

    async def reserve(self, key, offers, lines, **more):
        found = {(each.budget, each.account): each for each in await self.balances()}
        await asyncio.sleep(0)
        for each in lines:
            known = found.get((each.budget, each.account))
            if known is not None and known.spent + known.held + offers[0].cost > each.limit:
                return await super().reserve(key, offers, lines, **more)
        return await super().reserve(key, offers, [each.softened for each in lines], **more)


class Loud(MemoryLedger):
    """Tells everything twice."""

    def watch(self, listener) -> None:
        super().watch(listener)
        super().watch(listener)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Leaky, "test_reserve_and_settle"),
        (Leaky, "test_cancelled_and_released"),
        (Generous, "test_thundering_herd_last_dollar"),
        (Loud, "test_alerts_once_over_all_processes"),
    ],
)
def test_the_suite_finds(broken: type[MemoryLedger], test: str) -> None:
    """A ledger that breaks its contract does not pass."""

    class Broken(TestMemory):
        def open_ledger(self, clock: Callable[[], float], lease: float) -> Ledger:
            return broken(clock=clock, lease=lease)

    with pytest.raises((AssertionError, ValueError)):
        getattr(Broken(), test)()


def test_the_suite_runs_under_unittest() -> None:
    """The tests are plain methods, so that any runner finds them."""

    class Case(TestMemory, unittest.TestCase):
        drift, herd, examples, steps = 100, 50, 5, 5

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Case)
    assert suite.countTestCases() > 80
    result = unittest.TestResult()
    suite.run(result)
    assert result.wasSuccessful(), result.failures + result.errors
