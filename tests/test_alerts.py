"""`Router(on_budget=…)`: the app's hook for budgets that fill up, called off the way of calls and never into them."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tierline import Budget
from tierline import alerts as module
from tierline.alerts import AT_ONCE, Alerts
from tierline.attempts import Background
from tierline.binding import context
from tierline.blocking import Portal
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.ledger import Alert

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline import Router

    MakeRouter = Callable[..., Router]

ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "hi"}]}
TINY = [Budget("$0.000001", name="tiny", hard=False, alert_at=(0.5, 1.0))]
"""Full after any call, and refuses none."""
ALERT = Alert("tiny", "global", 0.8, 8, 10, None)
HERE: ContextVar[str] = ContextVar("HERE", default="nowhere")


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "tierline" and r.levelno == logging.ERROR]


async def test_once_for_each_share(make_router: MakeRouter) -> None:
    """A coroutine function is called on the loop, once for each share, with the numbers."""
    found: list[Alert] = []
    loops = set()

    async def hook(alert: Alert) -> None:
        loops.add(asyncio.get_running_loop())
        found.append(alert)

    router = make_router(budgets=TINY, on_budget=hook)
    for _ in range(3):
        await router.claude.messages.create(**ASK)
    await router.books.background.drain(5)
    assert loops == {asyncio.get_running_loop()}
    assert [(a.budget, a.account, a.share, a.limit, a.refused) for a in found] == [
        ("tiny", "global", 0.5, 1_000, False),
        ("tiny", "global", 1.0, 1_000, False),
    ]
    assert found[0].spent > 1_000


async def test_a_refusal_is_told(make_router: MakeRouter) -> None:
    """Where a call is refused for want of room, the last share is told, though less is spent."""
    found: list[Alert] = []
    router = make_router(budgets=[Budget("$0.003/day", downgrade_at=None, cheapest_at=None)], on_budget=found.append)
    refusals = 0
    while refusals < 2:
        try:
            await router.claude.messages.create(**ASK)
        except BudgetExceededError:
            refusals += 1
    await router.books.background.drain(5)
    (refused,) = (alert for alert in found if alert.refused)
    assert refused.share == 1.0
    assert refused.spent < refused.limit


async def test_a_function_runs_in_a_thread(make_router: MakeRouter) -> None:
    """A plain function may block: it runs in a thread of its own, and the call does not wait for it."""
    threads: list[threading.Thread] = []
    going_on = threading.Event()

    def hook(alert: Alert) -> None:
        going_on.wait(10)
        threads.append(threading.current_thread())

    router = make_router(budgets=TINY, on_budget=hook)
    await router.claude.messages.create(**ASK)
    assert threads == []
    going_on.set()
    await router.books.background.drain(5)
    assert len(threads) == 2
    assert threading.main_thread() not in threads


async def test_a_slow_hook_holds_nobody_up(make_router: MakeRouter) -> None:
    """Calls go on while a hook waits for something that does not come; closing waits for it, but not for ever."""
    begun, going_on = [], asyncio.Event()

    async def hook(alert: Alert) -> None:
        begun.append(alert)
        await going_on.wait()

    router = make_router(budgets=TINY, on_budget=hook)
    for _ in range(2):
        await asyncio.wait_for(router.claude.messages.create(**ASK), 5)
    assert len(begun) == 2
    await asyncio.wait_for(router.aclose(timeout=0.05), 5)
    going_on.set()


class Listening:
    """An object that is a hook."""

    def __init__(self) -> None:
        self.found: list[Alert] = []

    async def __call__(self, alert: Alert) -> None:
        await asyncio.sleep(0)
        self.found.append(alert)

    async def note(self, _: str, alert: Alert) -> None:
        await self(alert)


@pytest.mark.parametrize("kind", ["object", "partial", "lambda", "method"])
async def test_every_kind_of_function(make_router: MakeRouter, kind: str) -> None:
    """Whatever is called with an alert is a hook, and what it returns is awaited where it can be."""
    listening = Listening()
    hooks: dict[str, Any] = {
        "object": listening,
        "partial": partial(listening.note, "x"),
        "lambda": lambda alert: listening.note("x", alert),
        "method": listening.__call__,
    }
    router = make_router(budgets=TINY, on_budget=hooks[kind])
    await router.claude.messages.create(**ASK)
    await router.books.background.drain(5)
    assert len(listening.found) == 2


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_what_a_hook_raises(
    make_router: MakeRouter, caplog: pytest.LogCaptureFixture, asynchronous: bool
) -> None:
    """A hook that fails is told of by its name, without the words of its error, and the call knows nothing of it."""

    def failing(alert: Alert) -> None:
        raise ValueError("https://hooks.example/a-secret")

    async def failing_too(alert: Alert) -> None:
        failing(alert)

    caplog.set_level(logging.DEBUG, "tierline")
    hook = failing_too if asynchronous else failing
    router = make_router(budgets=TINY, on_budget=hook)
    assert (await router.claude.messages.create(**ASK)).content
    await router.books.background.drain(5)
    assert len(errors(caplog)) == 2
    assert errors(caplog)[0].endswith(f"{hook.__name__} failed: ValueError")
    assert "a-secret" not in caplog.text


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_hook_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asynchronous: bool
) -> None:
    """A hook that never comes back does not keep the next ones from their turn."""
    monkeypatch.setattr(module, "LONGEST", 0.02)
    found, stop = [], threading.Event()

    async def hook(alert: Alert) -> None:
        found.append(alert)
        await asyncio.Event().wait()

    def blocking(alert: Alert) -> None:
        found.append(alert)
        stop.wait(10)

    background = Background()
    alerts = Alerts(hook if asynchronous else blocking, background, Portal())
    for _ in range(2 * AT_ONCE):
        alerts(ALERT)
    await background.drain(5)
    stop.set()
    assert len(found) == 2 * AT_ONCE
    assert len(errors(caplog)) == 2 * AT_ONCE
    assert errors(caplog)[0].endswith("failed: TimeoutError")


async def test_hooks_take_turns() -> None:
    """However many budgets fill up at once, a few hooks run at a time, and all of them run."""
    running, most, done = 0, 0, 0

    async def hook(alert: Alert) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        done += 1

    background = Background()
    alerts = Alerts(hook, background, Portal())
    for _ in range(50):
        alerts(ALERT)
    await background.drain(5)
    assert (most, done) == (AT_ONCE, 50)


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_hook_belongs_to_no_request(make_router: MakeRouter, asynchronous: bool) -> None:
    """A hook sees nothing of the request that happened to reach the share, and charges nothing to it."""
    seen: list[Any] = []

    def look(alert: Alert) -> None:
        seen.append((HERE.get(), context().binding))

    async def look_too(alert: Alert) -> None:
        look(alert)

    router = make_router(budgets=TINY, on_budget=look_too if asynchronous else look)
    HERE.set("in a request")
    async with router.bind(tenant="acme"):
        await router.claude.messages.create(**ASK)
    await router.books.background.drain(5)
    assert seen == [("nowhere", None)] * 2


def test_calls_of_synchronous_clients(make_sync_router: MakeRouter) -> None:
    """Calls from threads without a loop bring alerts about too; closing the Router waits for the hook."""
    found: list[Alert] = []

    async def hook(alert: Alert) -> None:
        await asyncio.sleep(0.01)
        found.append(alert)

    router = make_sync_router(budgets=TINY, on_budget=hook)
    thread = threading.Thread(target=partial(router.sync_claude.messages.create, **ASK))
    thread.start()
    thread.join()
    asyncio.run(router.aclose())
    assert [alert.share for alert in found] == [0.5, 1.0]


async def test_the_end_of_an_app_waits_for_hooks(make_router: MakeRouter) -> None:
    """What is settled at shutdown brings alerts about, and their hooks run to their end."""
    found: list[Alert] = []

    async def hook(alert: Alert) -> None:
        await asyncio.sleep(0.01)
        found.append(alert)

    router = make_router(budgets=TINY, on_budget=hook)
    async with router.lifespan():
        stream = await router.claude.messages.create(**ASK, stream=True)
        await anext(aiter(stream))
    assert [alert.share for alert in found] == [0.5, 1.0]


def test_told_in_a_thread_of_the_ledger() -> None:
    """A ledger may tell of an alert in any thread: without a loop there, the hook runs on the Router's portal."""
    found: list[Alert] = []

    async def hook(alert: Alert) -> None:
        found.append(alert)

    background = Background()
    portal = Portal(background.drain)
    alerts = Alerts(hook, background, portal)
    thread = threading.Thread(target=alerts, args=(ALERT,))
    thread.start()
    thread.join()
    asyncio.run(portal.aclose(5))
    assert found == [ALERT]


def test_a_portal_that_cannot_be_had(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing can run the hook, the call that brought the alert about is not told."""

    class Broken(Portal):
        def loop(self) -> Any:
            raise RuntimeError("can't start new thread")

    Alerts(print, Background(), Broken())(ALERT)
    assert errors(caplog) == ["the on_budget hook print failed: RuntimeError"]


def test_what_is_no_hook() -> None:
    """What cannot be called is found at start-up."""
    from tierline import Router

    with pytest.raises(ConfigurationError, match="on_budget must be a function of an Alert, got str"):
        Router(on_budget="https://hooks.example")  # type: ignore[arg-type]
