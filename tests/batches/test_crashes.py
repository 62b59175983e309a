"""`kill -9` in the midst of a job: whoever comes after ends it, and every request is answered and paid once."""

from __future__ import annotations

import logging
import multiprocessing
import random
import signal
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.batches.worker import JOB, measured, run
from tests.processes.stores import fresh, ledger_of, store
from tierline.batches.opening import open_jobs
from tierline.ledger.opening import connection_of
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tierline.ledger import Ledger

__all__ = ["fresh", "store"]

LEASE = 1.0


async def work(
    url: str, store: str, number: int, die_at: str = "", seconds: float = 60, target: Callable[..., None] = run
) -> int | None:
    """Run a worker to its end, and say how it ended. Workers are forked from a process that has all imports."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.batches.worker", "tests.batches.caller"])
    worker = processes.Process(target=target, args=(url, store, number, LEASE, die_at), daemon=True)
    worker.start()
    await anyio.to_thread.run_sync(worker.join, seconds)
    ended = worker.exitcode
    worker.kill()
    worker.join()
    worker.close()
    return ended


async def answered_once(fake: FakeClaude, ledger: Ledger, number: int) -> None:
    """Every request has one result, was sent once, and the ledger has what was billed, to the nano-USD."""
    jobs = open_jobs(connection_of(ledger), clock=lambda: 0.0, lease=1.0)
    after, good = -1, 0
    while rows := await jobs.results(JOB, after, 1000):
        after = rows[-1].place
        good += sum(row.outcome == "succeeded" for row in rows)
    assert (good, after) == (number, number - 1)
    assert sum(sum(batch.counts.values()) for batch in fake.batches) == number, "something was submitted twice"
    balances = await ledger.balances()
    assert all(each.held == each.estimated == 0 for each in balances)
    assert sum(each.spent for each in balances if each.window == "day") == fake.billed
    assert sum(each.spent for each in balances if each.window == "month") == fake.billed
    assert not await jobs.holds("", 10)
    assert not await jobs.lapsed(10)


async def deaths(store: str, number: int, points: list[str]) -> None:
    """Let a worker die at each of these steps, one after the other, and the last one live."""
    fake = FakeClaude()
    ledger = ledger_of(store)
    with fake.serve_in_thread() as url:
        for point in points:
            assert await work(url, store, number, point, 600) in (-signal.SIGKILL, 0)
            await fake.idle()  # it comes to an end with what it was given
        assert await work(url, store, number, "", 600) == 0
    await answered_once(fake, ledger, number)
    await ledger.aclose()


async def test_kill9_loses_nothing_and_submits_nothing_twice(store: str) -> None:
    """At random steps of a job of two thousand requests, and at its last ones."""
    chance = random.Random(store[:5])  # noqa: S311
    await deaths(store, 2_000, [str(chance.randrange(10, 60)), str(chance.randrange(10, 90)), "settle"])


@pytest.mark.parametrize("step", ["reserve", "add", "save sending", "save sent", "collect", "end", "save done"])
async def test_kill9_in_each_step_of_a_batch(step: str, tmp_path: Path) -> None:
    """Money held and requests not taken in, a batch created and nobody told, results taken in and holds not settled."""
    await deaths(f"sqlite:///{tmp_path}/a.db", 20, [step])


async def test_kill9_while_a_batch_is_created(store: str) -> None:
    """The API has it, and nobody was told: it is found by its custom ids, and not created again."""
    await deaths(store, 20, ["save sent"])


@pytest.mark.soak
async def test_kill9_at_twenty_points_of_fifty_thousand_requests(store: str) -> None:
    """The same, at its full size."""
    chance = random.Random(7)  # noqa: S311
    await deaths(store, 50_000, [str(chance.randrange(1, 1500)) for _ in range(20)])


@pytest.mark.soak
async def test_a_million_requests_take_less_than_200_mb(tmp_path: Path) -> None:
    """Of the process that submits and collects them, all of it included; each is answered, and paid for once."""
    fake = FakeClaude(answer=lambda _: "ok")
    number = 1_000_000
    with fake.serve_in_thread() as url:
        most = await peak(url, f"sqlite:///{tmp_path}/a.db", number)
    logging.getLogger(__name__).info("%d requests: %d MB at most", number, most / 1e6)
    assert most < 200_000_000
    ledger = ledger_of(f"sqlite:///{tmp_path}/a.db")
    await answered_once(fake, ledger, number)
    await ledger.aclose()


async def peak(url: str, store: str, number: int, target: Callable[..., None] = measured) -> int:
    """The most bytes that a worker had in memory."""
    processes = multiprocessing.get_context("spawn")
    told, tell = processes.Pipe(duplex=False)
    worker = processes.Process(target=target, args=(tell, url, store, number, 30.0), daemon=True)
    worker.start()
    await anyio.to_thread.run_sync(worker.join)
    assert worker.exitcode == 0
    found: int = told.recv()
    return found
