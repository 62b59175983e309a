"""`kill -9` while requests are deferred: none is lost, each is answered once, and nobody sends what another has."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from typing import TYPE_CHECKING

import anyio

from tests.batches.queue_worker import TENANT, run
from tests.processes.stores import fresh, ledger_of, store
from tierline.batches.opening import open_jobs, open_queue
from tierline.ledger.opening import connection_of
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from pathlib import Path

    from tierline.batches.queue.store import Item
    from tierline.ledger import Ledger

__all__ = ["fresh", "store"]

LEASE = 1.0


async def work(
    url: str, store: str, number: int, within: str, die_at: str, told: Path, lease: float = LEASE
) -> int | None:
    """Run a worker to its end, and say how it ended."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.batches.worker", "tests.batches.queue_worker"])
    worker = processes.Process(target=run, args=(url, store, lease, number, within, die_at, str(told)), daemon=True)
    worker.start()
    await anyio.to_thread.run_sync(worker.join, 90)
    ended = worker.exitcode
    worker.kill()
    worker.join()
    worker.close()
    return ended


async def kept(ledger: Ledger) -> list[Item]:
    """All that was deferred."""
    connection = connection_of(ledger)
    jobs = open_jobs(connection, clock=lambda: 0.0, lease=1.0)
    queue = open_queue(connection, jobs, clock=lambda: 0.0, lease=1.0)
    found = [await queue.get(handle) for handle in await queue.of(TENANT, 1000)]
    assert await jobs.jobs() == []
    return [each for each in found if each is not None]


async def spent(ledger: Ledger) -> int:
    balances = await ledger.balances()
    assert all(each.held == each.estimated == 0 for each in balances)
    return sum(each.spent for each in balances if each.window == "day")


async def test_kill9_in_each_step_of_the_queue(store: str, tmp_path: Path) -> None:
    """Gathered and not submitted, submitted and not noted, answered and not noted, delivered and not noted."""
    fake, told = FakeClaude(), tmp_path / "told"
    ledger = ledger_of(store)
    with fake.serve_in_thread() as url:
        for step in ("gather", "save", "answer", "drop", "deliver"):
            # Each brings requests of its own, so that each comes to its step.
            assert await work(url, store, 3, "24h", step, told) == -signal.SIGKILL
        assert await work(url, store, 0, "24h", "", told) == 0
    found = await kept(ledger)
    assert len(found) == 15
    assert all(each.state == "answered" and each.delivery == "delivered" and each.request is None for each in found)
    assert sum(sum(batch.counts.values()) for batch in fake.batches) == 15, "something was sent twice"
    assert not [each for each in fake.requests if each.path == "/v1/messages"]
    assert await spent(ledger) == fake.billed
    assert set(told.read_text().split()) == {each.handle for each in found}
    await ledger.aclose()


async def test_kill9_after_a_call(store: str, tmp_path: Path) -> None:
    """What it brought is lost with the process, and asked for once more: that alone is paid twice."""
    fake, told = FakeClaude(), tmp_path / "told"
    ledger = ledger_of(store)
    with fake.serve_in_thread() as url:
        assert await work(url, store, 1, "1s", "answer", told) == -signal.SIGKILL
        assert await work(url, store, 0, "1s", "", told) == 0
    (found,) = await kept(ledger)
    assert (found.state, found.delivery) == ("answered", "delivered")
    assert len([each for each in fake.requests if each.path == "/v1/messages"]) == 2
    assert await spent(ledger) == fake.billed
    assert Counter(told.read_text().split()) == {found.handle: 1}
    await ledger.aclose()


async def test_two_processes_share_the_work(tmp_path: Path) -> None:
    """What one has, the other neither calls nor submits nor delivers."""
    fake, told, store = FakeClaude(), tmp_path / "told", f"sqlite:///{tmp_path}/a.db"
    ledger = ledger_of(store)
    with fake.serve_in_thread() as url:
        async with anyio.create_task_group() as both:
            for within in ("1s", "24h"):
                both.start_soon(work, url, store, 15, within, "", told, 30.0)
    found = await kept(ledger)
    assert len(found) == 30
    assert all(each.state == "answered" for each in found)
    sent = sum(sum(batch.counts.values()) for batch in fake.batches)
    assert sent + len([each for each in fake.requests if each.path == "/v1/messages"]) == 30
    assert await spent(ledger) == fake.billed
    assert Counter(told.read_text().split()) == {each.handle: 1 for each in found}
    await ledger.aclose()
