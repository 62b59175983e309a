"""Policies of several words at once: whatever they make of a call, one bill, the same everywhere, and nothing held."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import anthropic
import anyio.to_thread
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierline import Budget, Router, policy
from tierline.attempts import Timing
from tierline.classify import ClaudeClassifier
from tierline.errors import BudgetExceededError
from tierline.escalation import Escalate
from tierline.run import CallRun
from tierline.testing import OK, FakeClaude, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline import Binding, Decision, Policy
    from tierline.values import Mode

ALL = Budget("$50", name="all", downgrade_at=None, cheapest_at=None)
"""What everything is charged to."""
NAMES = ("haiku", "sonnet", "opus")
UNSURE, GOOD = "I'm not sure about that one.", "It is scattered light."
TOOL: dict[str, Any] = {"name": "look", "input_schema": {"type": "object"}}
ESCALATIONS: list[Escalate | bool] = [False, True, Escalate(graded=True), Escalate(hold=0)]
BUDGETS: dict[str, list[Budget]] = {
    "none": [],
    "run": [Budget("$0.02", per="run", name="run")],
    "small": [Budget("$0.012", name="small", downgrade_at=None, cheapest_at=None)],
    "saving": [Budget("$0.03", name="saving", downgrade_at=0.002, cheapest_at=0.4)],
    "soft": [Budget("$0.001", name="soft", hard=False)],
    "request": [Budget("$0.009", per="request", name="request")],
}
FAULTS = [OK, OK, Fault.overloaded(), Fault.error(500), Fault.error(400), Fault.reset(), Fault.reset_after(2)]


class Asked(NamedTuple):
    """A call to make: its kind, what Claude says of it, by which client, and after how many turns it is cancelled."""

    kind: str
    label: str
    blocking: bool
    leaves: int | None


ASKED = st.builds(
    Asked,
    st.sampled_from(["ask", "stream", "loop"]),
    st.sampled_from(["simple", "moderate", "complex"]),
    st.booleans(),
    st.one_of(st.none(), st.none(), st.integers(0, 60)),
)


class Case:
    """Some calls through one Router."""

    def __init__(self, router: Router[Any]) -> None:
        self.router = router
        self.bindings: list[Binding] = []
        self.threads: list[asyncio.Future[None]] = []

    @property
    def decisions(self) -> list[Decision]:
        return [decision for binding in self.bindings for decision in binding.decisions]

    async def make(self, number: int, asked: Asked) -> None:
        """One call, or the two of a tool loop; a job of its own, two of which are of one run."""
        body: dict[str, Any] = {"model": "auto", "max_tokens": 300}
        text = {"role": "user", "content": f"Why is it {asked.label}? {number // 2}"}
        call = self._in_thread if asked.blocking else self._awaited
        async with self.router.bind(tenant=f"t{number % 2}", run=f"r{number // 2}") as binding:
            self.bindings.append(binding)
            with suppress(anthropic.APIError, httpx2.HTTPError, BudgetExceededError):
                if asked.kind != "loop":
                    await call({**body, "messages": [text]}, asked.kind == "stream")
                    return
                await call({**body, "messages": [text], "tools": [TOOL]}, False)
                used = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
                result = {"type": "tool_result", "tool_use_id": "t1", "content": "blue"}
                turns = [{"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}]
                await call({**body, "messages": [text, *turns], "tools": [TOOL]}, number % 2 == 1)

    async def _awaited(self, body: dict[str, Any], stream: bool) -> None:
        answer = await self.router.claude.messages.create(**body, stream=stream)
        if stream:
            async for _ in answer:
                pass

    async def _in_thread(self, body: dict[str, Any], stream: bool) -> None:
        def ask() -> None:
            answer = self.router.sync_claude.messages.create(**body, stream=stream)
            if stream:
                for _ in answer:
                    pass

        # A thread cannot be cancelled: it makes its call to the end, whoever waits for it.
        self.threads.append(thread := asyncio.ensure_future(anyio.to_thread.run_sync(ask)))
        await asyncio.shield(thread)

    async def _over(self) -> None:
        """What somebody left is ended soon, and not by those who leave."""
        router = self.router
        for _ in range(200):
            await router.books.background.drain(5)
            waits = any(binding.open for binding in self.bindings) or not all(each.settled for each in self.decisions)
            shadows = router.shadowing is not None and len(router.shadowing._under_way)
            if not waits and not shadows and not any(balance.held for balance in await router.balances()):
                return
            await asyncio.sleep(0.01)

    async def even(self, fake: FakeClaude, *, enforced: bool, left: bool) -> None:
        """The sums of decisions, report, ledger and API are one; `left`: whether somebody was cancelled."""
        router = self.router
        await asyncio.gather(*self.threads, return_exceptions=True)
        await router.cache.drain(5)
        await fake.idle()
        await self._over()
        decisions, report = self.decisions, router.report()
        for each in decisions:
            assert each.settled, each
            assert each.cost == sum(a.cost for a in each.attempts) + each.classifier_cost + each.grading_cost
            assert sum(a.role == "speculative" for a in each.attempts) <= 1
        balances = await router.balances()
        if not balances:
            assert report.cost == fake.billed == sum(each.cost for each in decisions) == 0
            return
        (whole,) = [balance for balance in balances if balance.budget == "all"]
        assert [balance.held for balance in balances] == [0] * len(balances)
        assert whole.spent == report.cost
        # A verdict outlives who asked for it, and is for others.
        verdicts = sum(each.classifier_cost for each in decisions)
        assert (
            sum(each.cost for each in decisions) - verdicts == report.cost - report.classifier_cost - report.shadow_cost
        )
        assert verdicts == report.classifier_cost or (left and verdicts < report.classifier_cost)
        assert sum(each.grading_cost for each in decisions) == report.grading_cost
        assert whole.spent - whole.estimated <= fake.billed
        assert whole.estimated or whole.spent == fake.billed
        if enforced:
            hard = {budget.name for budget in router.budgets if budget.hard}
            assert all(balance.spent <= balance.limit for balance in balances if balance.budget in hard), balances
        assert not any(binding.open for binding in self.bindings)
        assert router.gains._under_way == 0
        assert router.gathering._rooms == {}


@settings(max_examples=30)
@given(
    st.lists(ASKED, min_size=1, max_size=4),
    st.sampled_from(ESCALATIONS),
    st.booleans(),
    st.booleans(),
    st.sampled_from(sorted(BUDGETS)),
    st.sampled_from([None, "sonnet"]),
    st.lists(st.sampled_from(FAULTS), max_size=4),
    st.booleans(),
    st.sampled_from([None, None, 1.0]),
    st.sampled_from(["enforce", "enforce", "observe"]),
    st.integers(0, 9),
)
def test_any_policy(
    calls: list[Asked], escalate: Escalate | bool, speculate: bool, per_step: bool, budgets: str, bound: str | None,
    faults: list[Fault], at_once: bool, shadow: float | None, mode: Mode, seed: int,
) -> None:  # fmt: skip
    """A decision is its attempts, verdict and grades; all of them are the report, the ledger and the bill; held = 0."""
    rules = policy(
        escalate=escalate, speculate=speculate, per_step=per_step,
        floor=bound if seed % 2 else None, ceiling=None if seed % 2 else bound,
    )  # fmt: skip
    dice = random.Random(seed)  # noqa: S311

    def answer(received: Any) -> str:
        return UNSURE if dice.random() < (0.8 if "haiku" in str(received.model) else 0.3) else GOOD

    def said(text: str, _labels: Any) -> tuple[str, float]:
        return next(each for each in ("simple", "moderate", "complex") if each in text), 0.9

    fake = FakeClaude(answer=answer, verdict=said)
    fake.script(*faults)

    async def run() -> None:
        async with fake.serve() as url:
            options: dict[str, Any] = {"api_key": fake.api_key, "base_url": url, "max_retries": 1}
            with anthropic.Anthropic(**options) as blocking:
                async with anthropic.AsyncAnthropic(**options) as client:
                    router = Router(
                        client,
                        sync_client=blocking,
                        budgets=[ALL, *BUDGETS[budgets]],
                        policy=rules,
                        mode=mode,
                        shadow=shadow,
                        shadow_budget="$1" if shadow else None,
                        classifier=ClaudeClassifier(worth=0),
                        timing=Timing(sleep=lambda _: asyncio.sleep(0), jitter=lambda: 0.5, chance=dice.random),
                    )
                    case = Case(router)
                    await _all(case, calls, at_once=at_once)
                    await case.even(fake, enforced=mode == "enforce", left=any(c.leaves is not None for c in calls))
                    if mode == "enforce":
                        least, most = (NAMES.index(bound) if bound and seed % 2 else 0,
                                       NAMES.index(bound) if bound and not seed % 2 else 2)  # fmt: skip
                        used = {attempt.tier for each in case.decisions for attempt in each.attempts}
                        assert used <= set(NAMES[least : most + 1])
                    await router.aclose()

    asyncio.run(run())


async def _all(case: Case, calls: list[Asked], *, at_once: bool) -> None:
    tasks = []
    for number, asked in enumerate(calls):
        tasks.append(task := asyncio.create_task(case.make(number, asked)))
        if asked.leaves is not None:
            asyncio.create_task(_leave(task, asked.leaves))  # noqa: RUF006  (the task waits for nobody)
        if not at_once:
            await asyncio.wait((task,))
    for done in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(done, BaseException) and not isinstance(done, asyncio.CancelledError):
            raise done


async def _leave(task: asyncio.Task[None], turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()


# What is left of a call


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("rules", "label"),
    [
        (policy(), "simple"),
        (policy(speculate=True), "simple"),
        (policy(speculate=True), "complex"),
        (policy(escalate=True), "simple"),
        (policy(escalate=Escalate(graded=True)), "simple"),
    ],
)
async def test_nothing_waits_for_the_garbage_collector(
    make_router: Callable[..., Router], fake: FakeClaude, rules: Policy, label: str, stream: bool
) -> None:
    """When a call is over, what it was made of is gone, and its prompt with it."""
    fake.verdict = lambda _text, _labels: (label, 0.9)
    router = make_router(policy=rules, classifier=ClaudeClassifier(worth=0), budgets=[ALL])
    case = Case(router)
    await case.make(0, Asked("stream" if stream else "ask", label, blocking=False, leaves=None))
    gc.collect()
    gc.disable()
    try:
        for number in (2, 4):
            await case.make(number, Asked("stream" if stream else "ask", label, blocking=False, leaves=None))
        await router.books.background.drain(5)
        assert case.decisions[-1].attempts
        assert [each for each in gc.get_objects() if isinstance(each, CallRun)] == []
    finally:
        gc.enable()
