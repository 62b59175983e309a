"""A worker that is killed: what its calls held is charged, as an estimate, and nothing stays held."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.processes.app import BUDGETS, STOP_AFTER, STOP_BEFORE
from tests.processes.stores import fresh, ledger_of, store
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierline.ledger import Ledger

__all__ = ["fresh", "store"]

ROOT = Path(__file__).parents[2]
SHORT = 2.0
"""Seconds of a lease, where the test does not wait for the default."""
REAP = 5.0


@contextmanager
def app(base_url: str, store: str, marks: Path, lease: float) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that serves the app, and where."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.app", base_url, store, str(lease), str(listener.fileno())],
            cwd=ROOT,
            pass_fds=[listener.fileno()],
            env={**os.environ, "MARKS": str(marks), "FAKE_KEY": FakeClaude().api_key},
        )
        try:
            yield process, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.kill()
            process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


async def reached(mark: Path) -> None:
    """Wait until the call has come so far."""
    while not mark.exists():  # noqa: ASYNC110, ASYNC240  (another process makes it)
        await asyncio.sleep(0.01)


async def at_rest(ledger: Ledger, within: float) -> dict[str, int]:
    """What is spent by account once nothing is held, and how much of that is a guess. An error after `within` s."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        balances = await ledger.balances()
        assert all(each.spent + each.held <= each.limit for each in balances)
        if not any(each.held for each in balances):
            assert len({(each.spent, each.estimated) for each in balances}) == 1, "every account is charged alike"
            return {"spent": balances[0].spent, "estimated": balances[0].estimated}
        await asyncio.sleep(0.1)
    raise AssertionError("something is still held")


async def ask(browser: httpx.AsyncClient, path: str, **params: str) -> None:
    with suppress(httpx.HTTPError):
        await browser.get(path, params=params)


async def test_kill9_before_dispatch(store: str, tmp_path: Path) -> None:
    """The hold was made, nothing was sent: charged whole, for nobody can know."""
    fake = FakeClaude()
    ledger = ledger_of(store, lease=SHORT)
    async with fake.serve() as url:
        with app(url, store, tmp_path, SHORT) as (process, where):
            async with httpx.AsyncClient(base_url=where, timeout=60) as browser:
                asking = asyncio.create_task(ask(browser, "/whole", system=STOP_BEFORE))
                await reached(tmp_path / "before")
                (held,) = await ledger.holds()
                kill(process)
                await asking
    assert not fake.requests
    assert await at_rest(ledger, SHORT + REAP) == {"spent": held.cost, "estimated": held.cost}
    await ledger.aclose()


async def test_kill9_mid_stream(store: str, tmp_path: Path) -> None:
    """The client had read a part: the whole reservation covers what is billed for the rest."""
    fake = FakeClaude(chunk_delay=0.05)
    ledger = ledger_of(store, lease=SHORT)
    async with fake.serve() as url:
        with app(url, store, tmp_path, SHORT) as (process, where):
            async with httpx.AsyncClient(base_url=where, timeout=60) as browser:
                with suppress(httpx.HTTPError):
                    async with browser.stream("GET", "/stream") as answer:
                        async for _ in answer.aiter_bytes():
                            (held,) = await ledger.holds()
                            kill(process)
                            break
    assert await at_rest(ledger, SHORT + REAP) == {"spent": held.cost, "estimated": held.cost}
    assert held.cost >= fake.billed > 0
    await ledger.aclose()


async def test_kill9_between_bill_and_settle(store: str, tmp_path: Path) -> None:
    """The answer was there, and billed: the estimate covers it."""
    fake = FakeClaude()
    ledger = ledger_of(store, lease=SHORT)
    async with fake.serve() as url:
        with app(url, store, tmp_path, SHORT) as (process, where):
            async with httpx.AsyncClient(base_url=where, timeout=60) as browser:
                await browser.get("/whole")
                (first, *_) = await ledger.balances()
                asking = asyncio.create_task(ask(browser, "/whole", system=STOP_AFTER))
                await reached(tmp_path / "after")
                (held,) = await ledger.holds()
                kill(process)
                await asking
    assert len(fake.requests) == 2
    found = await at_rest(ledger, SHORT + REAP)
    assert found == {"spent": first.spent + held.cost, "estimated": held.cost}
    assert found["spent"] >= fake.billed
    await ledger.aclose()


async def test_held_is_zero_35_seconds_after_kill9(store: str, tmp_path: Path) -> None:
    """The same with the leases that an app has by default, and another worker that goes on."""
    fake = FakeClaude()
    ledger = ledger_of(store)
    assert ledger.lease + REAP == 35
    async with fake.serve() as url:
        with app(url, store, tmp_path, 30) as (doomed, there), app(url, store, tmp_path, 30) as (_, here):
            async with (
                httpx.AsyncClient(base_url=there, timeout=60) as browser,
                httpx.AsyncClient(base_url=here, timeout=60) as other,
            ):
                asking = [
                    asyncio.create_task(ask(browser, "/whole", system=text)) for text in (STOP_BEFORE, STOP_AFTER)
                ]
                await reached(tmp_path / "before")
                await reached(tmp_path / "after")
                assert (await other.get("/whole")).status_code == 200
                estate = await ledger.holds()
                assert len(estate) == 2
                kill(doomed)
                killed = time.monotonic()
                await asyncio.gather(*asking)
                found = await at_rest(ledger, 35)
                assert time.monotonic() - killed <= 35
                told = (await other.get("/balances")).json()
    assert found["estimated"] == sum(hold.cost for hold in estate)
    assert sorted(told) == sorted(
        [budget.name, account, found["spent"], 0] for budget, account in zip(BUDGETS, ("global", "acme"), strict=True)
    )
    await ledger.aclose()


async def test_slow_stream_heartbeat_outlives_lease(store: str, tmp_path: Path) -> None:
    """A stream that takes three leases is held all the while, and settled exactly."""
    fake = FakeClaude(chunk_delay=0.3)
    lease = 1.0
    ledger = ledger_of(store, lease=lease)
    async with fake.serve() as url:
        with app(url, store, tmp_path, lease) as (_, where):
            async with (
                httpx.AsyncClient(base_url=where, timeout=60) as browser,
                browser.stream("GET", "/stream") as answer,
            ):
                began = time.monotonic()
                seen = set()
                async for _ in answer.aiter_bytes():
                    seen.update(hold.id for hold in await ledger.holds())
                assert time.monotonic() - began > 3 * lease, "the answer is too short for this test"
    assert len(seen) == 1
    assert await at_rest(ledger, 5) == {"spent": fake.billed, "estimated": 0}
    await ledger.aclose()
