"""`kill -9` in the midst of a job of the concurrent lane, and how much of one is in memory."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import pytest

from tests.batches import caller
from tests.batches.test_crashes import peak, work
from tests.batches.worker import JOB
from tests.processes.stores import fresh, ledger_of, store
from tierline.batches.opening import open_jobs
from tierline.batches.pacing import MOST
from tierline.ledger.opening import connection_of
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from pathlib import Path

    from tierline.batches.jobs import ResultRow
    from tierline.ledger import Ledger

__all__ = ["fresh", "store"]


async def results(ledger: Ledger) -> list[ResultRow]:
    """Of the job, in order."""
    jobs = open_jobs(connection_of(ledger), clock=lambda: 0.0, lease=1.0)
    found: list[ResultRow] = []
    while rows := await jobs.results(JOB, len(found) - 1, 1_000):
        found += rows
    return found


async def test_kill9_asks_again_for_no_more_than_was_on_its_way(store: str) -> None:
    """Whoever submits the same requests again ends the job; every request has one result, and what it cost."""
    fake = FakeClaude()
    ledger = ledger_of(store)
    points = ["add", "20"]
    with fake.serve_in_thread() as url:
        for point in points:
            assert await work(url, store, 120, point, 600, caller.run) == -signal.SIGKILL
        assert await work(url, store, 120, "", 600, caller.run) == 0
    found = await results(ledger)
    assert [(row.place, row.name, row.outcome) for row in found] == [(n, f"r{n}", "succeeded") for n in range(120)]
    assert 120 <= len(fake.requests) <= 120 + len(points) * MOST
    balances = [each for each in await ledger.balances() if each.window == "day"]
    assert sum(row.cost for row in found) <= sum(each.spent + each.held for each in balances)
    await ledger.aclose()


@pytest.mark.soak
async def test_of_a_hundred_thousand_requests_no_more_is_in_memory_than_of_a_few(tmp_path: Path) -> None:
    """Of the process that submits them, all of it included; each is answered, and paid for once."""
    fake = FakeClaude(answer=lambda _: "ok", keep=100)
    few, many = 2_000, 100_000
    with fake.serve_in_thread() as url:
        before = await peak(url, f"sqlite:///{tmp_path}/few.db", few, caller.measured)
        billed = fake.billed
        most = await peak(url, f"sqlite:///{tmp_path}/many.db", many, caller.measured)
    logging.getLogger(__name__).info("as calls: %d MB at most, and %d MB of a few", most / 1e6, before / 1e6)
    assert most < before + 20_000_000
    assert most < 250_000_000
    ledger = ledger_of(f"sqlite:///{tmp_path}/many.db")
    found = await results(ledger)
    assert {row.outcome for row in found} == {"succeeded"}
    assert len(found) == many
    assert sum(row.cost for row in found) == fake.billed - billed
    await ledger.aclose()
