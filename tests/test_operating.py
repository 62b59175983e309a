"""What an operator needs: readiness, and a log that is quiet until it has something to say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from anthropic import AsyncAnthropic, AsyncAnthropicFoundry

from tierline import Budget, Ladder, Router
from tierline.attempts import Timing
from tierline.classify import CascadeClassifier, KeywordClassifier, LocalClassifier
from tierline.classify.weights import Weights
from tierline.errors import BudgetExceededError, LedgerUnavailableError
from tierline.learn import OutcomeModel
from tierline.ledger import MemoryLedger
from tierline.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "hi"}]}


def lines(caplog: pytest.LogCaptureFixture, at_least: int = logging.WARNING) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "tierline" and r.levelno >= at_least]


# Readiness


async def test_ready(make_router: MakeRouter) -> None:
    """A Router with a client that has a key is ready, with its app and in a script."""
    router = make_router(budgets=[Budget("$5/day")])
    assert await router.ready()
    async with router.lifespan():
        assert (await router.ready()).problems == ()
    found = await router.ready()
    assert not found
    assert found.problems == ("shutting down",)
    async with router.lifespan():
        assert await router.ready()


async def test_a_key_of_somebodys_own(make_router: MakeRouter) -> None:
    """A key that a customer brought, and that is wrong, takes no instance out of service."""
    router = make_router()
    theirs = router.claude.with_options(api_key="wrong")
    with pytest.raises(anthropic.AuthenticationError):
        await theirs.messages.create(**ASK)
    assert await router.ready()
    assert len(router.rejected) == 1


class Away(MemoryLedger):
    """A ledger over a network that is down, or so slow that it may as well be."""

    def __init__(self, *, slow: bool = False) -> None:
        super().__init__()
        self.slow = slow

    async def ping(self) -> None:
        if self.slow:
            await asyncio.Event().wait()
        raise LedgerUnavailableError("no route to host")


async def test_a_ledger_that_is_away(make_router: MakeRouter) -> None:
    """Without its ledger nothing can be enforced, so nothing is served; where nothing is enforced it is not missed."""
    for router, problem in (
        (make_router(ledger=Away()), "the ledger cannot be asked: no route to host"),
        (make_router(ledger=Away(slow=True)), "the ledger did not answer within 0.01 s"),
    ):
        assert (await router.ready(timeout=0.01)).problems == (problem,)
        for mode in ("observe", "off"):
            router.mode = mode
            assert await router.ready(timeout=0.01)


async def test_a_key_that_is_rejected(make_router: MakeRouter, fake: FakeClaude) -> None:
    """After a 401 the Router is not ready until a call succeeds."""
    router = make_router()
    fake.script(Fault.error(401))
    with pytest.raises(anthropic.AuthenticationError):
        await router.claude.messages.create(**ASK)
    assert (await router.ready()).problems == ("the API answered 401 authentication_error",)
    await router.claude.messages.create(**ASK)
    assert await router.ready()


async def test_a_model_that_a_key_may_not_use(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A 403 for one model takes no instance out of service, for none would be asked that could bring it back."""
    router = make_router()
    fake.script(Fault.error(403))
    with pytest.raises(anthropic.PermissionDeniedError):
        await router.claude.messages.create(**ASK)
    assert await router.ready()


@pytest.mark.parametrize(
    ("options", "ready"),
    [
        ({}, False),
        ({"api_key": "k"}, True),
        ({"auth_token": "t"}, True),
        ({"default_headers": {"authorization": "Bearer t"}}, True),
        ({"credentials": lambda **_: "t"}, True),
    ],
)
async def test_a_client_without_a_key(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, options: Any, ready: bool
) -> None:
    """A client that nobody gave a key is told of at start-up, before the first request finds out."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    async with AsyncAnthropic(**options) as client:
        router = Router(client)
        async with router.lifespan():
            assert bool(await router.ready()) is ready
    assert any("ANTHROPIC_API_KEY" in line for line in lines(caplog)) is not ready


async def test_clients_of_platforms_sign_their_requests(caplog: pytest.LogCaptureFixture) -> None:
    """A client without a header for a key may still have its own way to sign."""
    async with AsyncAnthropicFoundry(api_key="k", base_url="http://127.0.0.1:9") as client:
        router = Router(client)
        async with router.lifespan():
            assert await router.ready()
    assert lines(caplog) == []


async def test_a_router_whose_own_client_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app may have attached a client of its own: the one that the Router would make is not needed then."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    router = Router()
    assert await router.ready()
    await router.aclose()


# The log


def test_quiet_by_default(fake: FakeClaude) -> None:
    """An app that has set up no logging sees nothing of ours, whatever happens."""
    code = (
        "import asyncio, anthropic, sys\n"
        "from tierline import Budget, Router\n"
        "async def main():\n"
        "    client = anthropic.AsyncAnthropic(api_key='k', base_url='http://127.0.0.1:9', max_retries=0)\n"
        "    router = Router(client, budgets=[Budget('$0.000000001')])\n"
        "    async with router.lifespan():\n"
        "        for _ in range(2):\n"
        "            try:\n"
        "                await router.claude.messages.create(model='auto', max_tokens=5, messages=[])\n"
        "            except Exception as error:\n"
        "                print(type(error).__name__)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603
    assert done.stdout == "BudgetExceededError\n" * 2
    assert done.stderr == ""


async def test_what_starts(make_router: MakeRouter, caplog: pytest.LogCaptureFixture) -> None:
    """One line tells what is enforced; anything but enforcing is a warning."""
    caplog.set_level(logging.INFO, "tierline")
    router = make_router(budgets=[Budget("$5/day"), Budget("$1/hour", per="tenant")])
    async with router.lifespan():
        pass
    assert lines(caplog, logging.INFO) == [
        (
            "mode enforce; tiers: haiku (claude-haiku-5-5), sonnet (claude-sonnet-5-5), opus (claude-opus-5-5); "
            "budgets: $5/day, $1/hour per tenant"
        )
    ]
    async with make_router(mode="observe").lifespan():
        pass
    (line,) = lines(caplog)
    assert line.startswith("mode observe; tiers: ")
    assert line.endswith("budgets: none")


@pytest.mark.parametrize(("day", "told"), [(21, "is deprecated and retires"), (30, "was retired")])
async def test_a_tier_whose_model_goes(
    make_router: MakeRouter, caplog: pytest.LogCaptureFixture, day: int, told: str
) -> None:
    """A tier on a deprecated id is one warning at start-up with the day and what to write, and never an error."""
    timing = Timing(now=datetime(2026, 11, day, tzinfo=UTC).timestamp)
    router = make_router(ladder=Ladder.of(old="claude-sonnet-4-5-20250929", new="claude-sonnet-5-5"), timing=timing)
    async with router.lifespan(), router.lifespan():
        pass
    assert lines(caplog) == [f"tier old: claude-sonnet-4-5-20250929 {told} on 2026-11-30: write claude-sonnet-5-5"]


async def test_a_budget_that_refuses_is_told_of_once(make_router: MakeRouter, caplog: pytest.LogCaptureFixture) -> None:
    """Each account of a budget that begins to refuse is one line in each window, however many calls it refuses."""
    router = make_router(budgets=[Budget("$0.000000001/day", per="tenant", name="plan")])
    for tenant in ("acme", "acme", "initech", "acme"):
        async with router.bind(tenant=tenant):
            with pytest.raises(BudgetExceededError):
                await router.claude.messages.create(**ASK)
    told = lines(caplog)
    assert len(told) == 2
    assert all(line.startswith("calls are refused: budget 'plan' has $0.000000001 left") for line in told)


async def test_every_line_is_one_line_without_secrets(
    make_router: MakeRouter, fake: FakeClaude, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong, warnings and errors are single lines with no prompt and no key."""
    router = make_router(budgets=[Budget("$0.0001/day", hard=False)])
    canary = "canary\r\nWARNING forged line"
    fake.script(Fault.error(401, message=canary), Fault.error(400, message=canary))
    body = {**ASK, "messages": [{"role": "user", "content": canary}]}
    for _ in range(8):
        with contextlib.suppress(anthropic.APIError, BudgetExceededError):
            await router.claude.messages.create(**body)
    told = lines(caplog)
    assert len(told) >= 2
    assert not [line for line in told if "\n" in line or "\r" in line or "canary" in line or fake.api_key in line]


# What is read before the first call


async def test_weights_are_made_ready_at_start_up(make_router: MakeRouter) -> None:
    """Before the app serves: those of a classifier among others, and those of what routes teach."""
    path = Path(str(files("tierline.classify") / "local.weights"))
    one, other = Weights.load(path), Weights.load(path)
    model = OutcomeModel(classifier=LocalClassifier(other))
    router = make_router(classifier=CascadeClassifier([KeywordClassifier(), LocalClassifier(one)]), outcomes=model)
    assert not any("_lanes" in vars(weights) for weights in (one, other))
    async with router.lifespan():
        assert all("_lanes" in vars(weights) for weights in (one, other))


async def test_a_classifier_is_prepared_off_the_loop(make_router: MakeRouter) -> None:
    """One of the app's own that has something to read does so where it holds nobody up; off, nothing is read."""
    where: list[threading.Thread] = []

    class Reading(KeywordClassifier):
        def prepare(self) -> None:
            where.append(threading.current_thread())

    async with make_router(classifier=Reading()).lifespan():
        assert where
        assert threading.current_thread() not in where
    before = len(where)
    async with make_router(classifier=Reading(), mode="off").lifespan():
        assert len(where) == before
