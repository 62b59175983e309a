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
    points = ["add", "25"]
    with fake.serve_in_thread() as url:
        for point in points:
            assert await work(url, store, 200, point, 600, caller.run) == -signal.SIGKILL
        assert await work(url, store, 200, "", 600, caller.run) == 0
    found = await results(ledger)
    assert [(row.place, row.name, row.outcome) for row in found] == [(n, f"r{n}", "succeeded") for n in range(200)]
    assert 200 <= len(fake.requests) <= 200 + len(points) * MOST
    balances = [each for each in await ledger.balances() if each.window == "day"]
    assert sum(row.cost for row in found) <= sum(each.spent + each.held for each in balances)
    await ledger.aclose()


@pytest.mark.soak
async def test_a_hundred_thousand_requests_take_less_than_200_mb(tmp_path: Path) -> None:
    """Of the process that submits them, all of it included; each is answered, and paid for once."""
    fake = FakeClaude(answer=lambda _: "ok")
    number, url_of = 100_000, f"sqlite:///{tmp_path}/a.db"
    with fake.serve_in_thread() as url:
        most = await peak(url, url_of, number, caller.measured)
    logging.getLogger(__name__).info("%d requests as calls: %d MB at most", number, most / 1e6)
    assert most < 200_000_000
    ledger = ledger_of(url_of)
    found = await results(ledger)
    assert {row.outcome for row in found} == {"succeeded"}
    assert len(found) == number
    assert sum(row.cost for row in found) == fake.billed
    await ledger.aclose()
