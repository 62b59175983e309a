"""A store goes away under an app that is being served: who is told what, and that the bill is right in the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import tierline
from tests.apps import app_of
from tests.ledger.switched import Switched, until
from tests.ledger.words import money
from tierline import Budget, Router, current, policy
from tierline.classify import ClaudeClassifier
from tierline.errors import LedgerUnavailableError
from tierline.ledger import SQLiteLedger
from tierline.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]
    Serve = Callable[[Any], Awaitable[httpx.AsyncClient]]

pytestmark = pytest.mark.usefixtures("quiet")

ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Why?"}]}
SLACK = 1.0
"""Seconds that an answer without a store may take on a machine that is busy; 0.25 are promised."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes to the file of a store, and does not come to an end."""
    code = (
        "import sqlite3, sys; file = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "file.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        yield
    finally:
        holder.communicate()


async def reconciled(router: Router) -> None:
    """Wait until the store is back and knows all."""
    guard: Any = router.ledger

    async def told() -> bool:
        return not guard.away and await guard.journal.next_due() is None

    await until(told)


async def test_closed_over_http(make_router: MakeRouter, serve: Serve, fake: FakeClaude, tmp_path: Path) -> None:
    """While the file is locked every call is a 503 within the promised time, nothing is sent, and then all is well."""
    path = tmp_path / "ledger.db"
    router = make_router(store=f"sqlite:///{path}", budgets=[Budget("$5/day")], classifier=ClaudeClassifier())
    browser = await serve(app_of(router))
    assert (await browser.get("/answer")).status_code == 200
    sent = len(fake.requests)
    with locked(path):
        for _ in range(5):
            began = time.perf_counter()
            refused = await asyncio.gather(*(browser.get("/answer?q=other") for _ in range(4)))
            assert time.perf_counter() - began < SLACK
            assert {each.status_code for each in refused} == {503}
        assert len(fake.requests) == sent
        assert "the ledger cannot be asked: " in (await router.ready()).problems[0]
        with pytest.raises(LedgerUnavailableError, match="the ledger cannot be asked"):
            await router.balances()
    await reconciled(router)
    assert await router.ready()
    assert (await browser.get("/answer")).status_code == 200
    assert await money(router) == {"$5/day": (fake.billed, 0)}


async def test_open_over_http(make_router: MakeRouter, serve: Serve, fake: FakeClaude, tmp_path: Path) -> None:
    """While the file is locked calls are answered within the allowance, then 503; then the balance is the bill."""
    path = tmp_path / "ledger.db"
    router = make_router(
        store=f"sqlite:///{path}",
        budgets=[Budget("$5/day", downgrade_at=None, cheapest_at=None)],
        policy=policy(tier="sonnet"),
        on_ledger_error="open",
        allowance=0.004,
        journal=str(tmp_path / "journal"),
    )
    browser = await serve(app_of(router))
    assert (await browser.get("/answer")).status_code == 200
    first = fake.billed
    with locked(path):
        statuses = []
        for _ in range(60):
            statuses.append((await browser.get("/answer")).status_code)
            if statuses[-1] != 200:
                break
        assert statuses.count(200) >= 2
        assert statuses[-1] == 503
        assert fake.billed - first <= 5_000_000_000 * 4 // 1000
        assert await router.ready()
    await reconciled(router)
    assert await money(router) == {"$5/day": (fake.billed, 0)}
    assert (await browser.get("/answer")).status_code == 200


async def test_a_call_in_flight_is_settled_later(make_router: MakeRouter, fake: FakeClaude, tmp_path: Path) -> None:
    """A call that was admitted before the outage is answered in it, and charged after it."""
    path = tmp_path / "ledger.db"
    router = make_router(store=f"sqlite:///{path}", budgets=[Budget("$5/day")])
    async with router.claude.messages.stream(**ASK) as stream:
        chunks = aiter(stream.text_stream)
        await anext(chunks)
        with locked(path):
            async for _ in chunks:
                pass
            await stream.close()
            await asyncio.sleep(0.3)
    await reconciled(router)
    assert await money(router) == {"$5/day": (fake.billed, 0)}


async def test_the_decision_says_so(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Who reads the reasons of a decision sees that the ledger could not be asked; metrics and balances follow."""
    reader = InMemoryMetricReader()
    store = Switched()
    router = make_router(ledger=store, budgets=[Budget("$5/day", hard=False)], meter_provider=MeterProvider([reader]))
    store.away = True
    async with router.bind():
        await router.claude.messages.create(**ASK)
        (decision,) = current().decisions
    assert "the ledger could not be asked: it is told what this costs when it is back" in decision.reasons
    assert [left.remaining for left in decision.budgets] < [5_000_000_000]
    assert _metrics(reader) == {"tierline.ledger.away": 1, "tierline.ledger.outages": 1}
    store.away = False
    await reconciled(router)
    assert _metrics(reader) == {"tierline.ledger.away": 0, "tierline.ledger.outages": 1}
    assert await money(router) == {"$5/day": (fake.billed, 0)}
    async with router.bind():
        await router.claude.messages.create(**ASK)
        assert "ledger" not in str(current().decisions[-1].reasons)


def _metrics(reader: InMemoryMetricReader) -> dict[str, Any]:
    found = reader.get_metrics_data()
    assert found is not None
    return {
        metric.name: metric.data.data_points[0].value  # type: ignore[union-attr]
        for resource in found.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("tierline.ledger")
    }


async def test_observing_goes_on(make_router: MakeRouter, fake: FakeClaude) -> None:
    """In mode observe nothing is refused for want of a ledger, and what was spent is charged all the same."""
    store = Switched()
    router = make_router(ledger=store, budgets=[Budget("$5/day")], mode="observe")
    store.away = True
    await router.claude.messages.create(**ASK)
    store.away = False
    await reconciled(router)
    assert await money(router) == {"$5/day": (fake.billed, 0)}


def test_synchronous_clients(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """Code without a loop spends in an outage too; what it spent is told at the latest when the Router is closed."""
    store = Switched()
    router = make_sync_router(ledger=store, budgets=[Budget("$5/day", hard=False)])
    store.away = True
    router.sync_claude.messages.create(**ASK)
    store.away = False
    asyncio.run(router.aclose())
    assert asyncio.run(money(router)) == {"$5/day": (fake.billed, 0)}
    store.away = True
    client = make_sync_router(ledger=store, budgets=[Budget("$5/day")]).sync_claude
    with pytest.raises(LedgerUnavailableError):
        client.messages.create(**ASK)


async def test_an_operator_confirms(make_router: MakeRouter, fake: FakeClaude) -> None:
    """After `router.confirm()` calls pass at once."""
    store = Switched()
    router = make_router(ledger=store, budgets=[Budget("$5/day")])
    store.away = True
    with pytest.raises(LedgerUnavailableError):
        await router.claude.messages.create(**ASK)
    await router.confirm()
    await router.claude.messages.create(**ASK)
    assert await money(router) == {"$5/day": (fake.billed, 0)}
    await until(lambda: not router.ledger._restless)  # type: ignore[attr-defined]


async def test_requests_leave_no_accounts(make_router: MakeRouter, serve: Serve) -> None:
    """The account of each request goes with it, also where the request ran in an outage."""
    store = Switched()
    router = make_router(ledger=store, budgets=[Budget("$5/day", hard=False), Budget("$1", per="request", hard=False)])
    browser = await serve(app_of(router))
    store.away = True
    assert (await browser.get("/answer")).status_code == 200
    store.away = False
    await reconciled(router)
    assert set(await money(router)) == {"$5/day"}


WORKER = """
import os
from starlette.applications import Starlette
from anthropic import AsyncAnthropic
from tests.apps import app_of
from tierline import Budget, Router
from tierline.classify import FixedClassifier
from tierline.ledger import SQLiteLedger

router = Router(
    AsyncAnthropic(api_key=os.environ["KEY"], base_url=os.environ["URL"]),
    budgets=[Budget("$5/day")], classifier=FixedClassifier("moderate"),
    ledger=SQLiteLedger(os.environ["LEDGER"], lease=2.0), on_ledger_error="open", journal=os.environ["JOURNAL"],
)
app = app_of(router)
"""


async def test_kill9_in_an_outage(make_router: MakeRouter, fake: FakeClaude, fake_url: str, tmp_path: Path) -> None:
    """A worker that is killed while the store is away has lost nothing: the next one tells the store what it spent."""
    path, journal = tmp_path / "ledger.db", tmp_path / "journal"
    (tmp_path / "worker.py").write_text(WORKER)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parents[1]
    environment = {
        **os.environ, "KEY": fake.api_key, "URL": fake_url, "LEDGER": str(path), "JOURNAL": str(journal),
        "PYTHONPATH": os.pathsep.join([str(Path(tierline.__file__).parents[1]), str(root)]),
    }  # fmt: skip
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(tmp_path), "--port", str(port), "worker:app"]
    worker = await asyncio.create_subprocess_exec(*command, env=environment, stderr=subprocess.DEVNULL)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as browser:

            async def up() -> bool:
                try:
                    return (await browser.get("/answer")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(up, 60)
            with locked(path):
                assert (await browser.get("/answer?q=settled")).status_code == 200
                fake.script(Fault.hang())
                before = len(fake.requests)
                hanging = asyncio.create_task(browser.get("/answer?q=in-flight"))
                await until(lambda: len(fake.requests) > before)
                worker.send_signal(signal.SIGKILL)
                await worker.wait()
                with pytest.raises(httpx.TransportError):
                    await hanging
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    ledger = SQLiteLedger(path, lease=2.0)
    router = make_router(ledger=ledger, budgets=[Budget("$5/day")], on_ledger_error="open", journal=str(journal))
    async with router.lifespan():
        await reconciled(router)
        (balance,) = await router.balances()
        assert balance.held == 0
        # Two answers for what they cost, the third for its worst case.
        assert balance.spent - balance.estimated == fake.billed - fake.requests[-1].billed
        assert balance.estimated > fake.requests[-1].billed
    await ledger.aclose()
