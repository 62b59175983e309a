"""What is taken over when the file changes: all of it or nothing, under calls that go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tierline import Budget, policy
from tierline.classify import FixedClassifier
from tierline.configuration import load
from tierline.errors import BudgetExceededError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from anthropic import AsyncAnthropic

    from tierline import Decision, Router
    from tierline.configuration import Configuration
    from tierline.testing import FakeClaude

BEFORE = """
min_confidence = 0.5
learn_after = 40

[policy]
ceiling = "sonnet"

[[budgets]]
name = "all"
amount = "$0.00001/day"
"""
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": "Is it open?"}]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tierline.toml"
    path.write_text(BEFORE, "utf-8")
    return path


@pytest.fixture
def config(file: Path) -> Configuration:
    return load(file, environ={})


@pytest.fixture
async def made(config: Configuration, sdk: AsyncAnthropic) -> AsyncIterator[Callable[..., Router]]:
    """Routers of the configuration."""
    routers: list[Router] = []

    def make(**options: Any) -> Router:
        routers.append(config.router(sdk, classifier=FixedClassifier("complex"), **options))
        return routers[-1]

    yield make
    for router in routers:
        await router.aclose()


def write(file: Path, text: str) -> None:
    file.write_text(text, "utf-8")


async def ask(router: Router) -> Decision:
    async with router.bind() as binding:
        await router.claude.messages.create(**ASK)
        return binding.decisions[-1]


async def test_limits_and_policies_move(config: Configuration, made: Callable[..., Router], file: Path) -> None:
    """A call that was refused passes, on another tier, under a further budget; what was spent is still counted."""
    router = made()
    with pytest.raises(BudgetExceededError):
        await ask(router)
    write(
        file,
        BEFORE.replace("$0.00001/day", "$1/day").replace("sonnet", "opus").replace("0.5", "0.9")
        + '[[budgets]]\nname = "more"\namount = "$2"\n',
    )
    assert config.reload() == ("min_confidence", "policy", "budgets")
    decision = await ask(router)
    assert (decision.tier, router.min_confidence) == ("opus", 0.9)
    assert [(each.budget, each.limit) for each in decision.budgets] == [("all", 10**9), ("more", 2 * 10**9)]
    write(file, BEFORE.replace("$0.00001/day", "$3/day"))
    assert config.reload() == ("min_confidence", "policy", "budgets")
    second = await ask(router)
    assert (second.tier, router.min_confidence) == ("sonnet", 0.5)
    assert {each.budget: each.spent for each in await router.balances()} == {
        "all": decision.cost + second.cost, "more": decision.cost,
    }  # fmt: skip
    assert [each.budget for each in second.budgets] == ["all"]
    assert config.reload() == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("min_confidence = 7", "line 1: min_confidence: is 7"),
        (BEFORE.replace("40", "41"), "learn_after cannot change while the app runs: restart it"),
        (BEFORE + '[routes."/a"]\nfloor = "opus"', "routes cannot change while the app runs"),
        (BEFORE.replace("/day", "/hour"), "budget 'all': only the amount may change"),
        (BEFORE + 'per = "tenant"', "budget 'all': only the amount may change"),
        (BEFORE.replace("/day", "/day") + 'timezone = "Europe/Berlin"', "budget 'all': only the amount may change"),
        (BEFORE.replace("sonnet", "sonnett"), "there is no tier 'sonnett'"),
        ("= 3", "is no TOML"),
    ],
)
async def test_all_or_nothing(
    config: Configuration, made: Callable[..., Router], file: Path, text: str, says: str
) -> None:
    """Where something cannot be taken nothing is, and calls go on as before."""
    router = made()
    rules, confidence = (router.rules.budgets, router.rules.policy), router.min_confidence
    write(file, text)
    with pytest.raises(ConfigurationError, match=says):
        config.reload()
    assert ((router.rules.budgets, router.rules.policy), router.min_confidence) == (rules, confidence)
    with pytest.raises(BudgetExceededError):
        await ask(router)
    write(file, BEFORE.replace("$0.00001", "$1"))
    assert config.reload() == ("budgets",)
    assert (await ask(router)).tier == "sonnet"


async def test_several_routers_take_it_together(config: Configuration, made: Callable[..., Router], file: Path) -> None:
    """A budget of a route's, which one of them has, has the name of the new one: none takes it."""
    first, second = made(), made()
    second.rules.check(policy(budgets=[Budget("$7", name="more")]))
    more = '[[budgets]]\nname = "more"\namount = "$2"\n'
    write(file, 'mode = "observe"\n' + BEFORE.replace("$0.00001", "$1") + more)
    with pytest.raises(ConfigurationError, match="two budgets are called 'more'"):
        config.reload()
    for router in (first, second):
        assert [each.amount for each in router.rules.budgets] == ["$0.00001/day"]
        assert router.budgets == router.rules.budgets
        assert router.mode == "enforce"


async def test_code_stays_over_it(config: Configuration, made: Callable[..., Router], file: Path) -> None:
    """What a Router was given by code does not move."""
    router = made(min_confidence=0.1, policy=policy(ceiling="haiku"))
    write(file, BEFORE.replace("$0.00001", "$1").replace("sonnet", "opus").replace("0.5", "0.9"))
    config.reload()
    assert (router.min_confidence, (await ask(router)).tier) == (0.1, "haiku")
    assert router.budgets[0].amount == "$1/day"


async def test_the_mode(
    config: Configuration, made: Callable[..., Router], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moves, unless the environment has said it."""
    router = made()
    write(file, f'mode = "observe"\n{BEFORE}')
    assert config.reload() == ("mode",)
    assert router.mode == "observe"
    assert (await ask(router)).observed is not None
    write(file, BEFORE)
    config.reload()
    assert router.mode == "enforce"


async def test_calls_in_flight_stay_where_they_are(
    config: Configuration, made: Callable[..., Router], file: Path, fake: FakeClaude
) -> None:
    """A call that was admitted under the old limit is settled, and counts under the new one."""
    write(file, BEFORE.replace("$0.00001", "$1"))
    config.reload()
    router = made()
    async with router.bind(), router.claude.messages.stream(**ASK) as stream:
        assert (await router.balances())[0].held > 0
        write(file, BEFORE.replace("$0.00001", "$0.0000001"))
        config.reload()
        await stream.get_final_message()
    (balance,) = await router.balances()
    assert balance.held == 0
    assert balance.spent > 1_000
    with pytest.raises(BudgetExceededError):
        await ask(router)


async def test_under_load(config: Configuration, made: Callable[..., Router], file: Path) -> None:
    """Every call meets one of the two, whole: never the budgets of one and the policy of the other."""
    one = BEFORE.replace("$0.00001", "$5")
    other = one.replace("sonnet", "haiku").replace("$5/day", "$6/day")
    write(file, one)
    config.reload()
    router = made()
    done = asyncio.Event()

    seen: set[tuple[str, int]] = set()

    async def call() -> None:
        decision = await ask(router)
        seen.add((decision.tier, decision.budgets[0].limit))

    async def calls() -> None:
        while not done.is_set():
            await call()

    tasks = [asyncio.create_task(calls()) for _ in range(4)]
    for turn in range(20):
        write(file, other if turn % 2 == 0 else one)
        config.reload()
        await call()
    done.set()
    await asyncio.gather(*tasks)
    assert seen == {("sonnet", 5 * 10**9), ("haiku", 6 * 10**9)}


async def test_a_budget_without_a_name(file: Path, sdk: AsyncAnthropic) -> None:
    """It goes by its amount: another one would forget what was spent. Thresholds may move."""
    text = '[[budgets]]\namount = "$5/day"\n'
    write(file, text)
    config = load(file, environ={})
    router = config.router(sdk)
    write(file, text.replace("5", "6"))
    with pytest.raises(ConfigurationError, match="give it a name"):
        config.reload()
    write(file, f"{text}downgrade_at = 0.2\n")
    assert config.reload() == ("budgets",)
    assert router.budgets[0].downgrade_at == 0.2
    write(file, f'{text}\n[[budgets]]\namount = "$1/hour"\n')
    assert config.reload() == ("budgets",)
    write(file, "")
    assert config.reload() == ("budgets",)
    assert router.budgets == ()
    fresh = load(file, environ={})
    others = fresh.router(sdk)
    write(file, text)
    assert config.reload() == ("budgets",), "one worker alone was seen to at its start"
    with pytest.raises(ConfigurationError, match="a first hard budget of a store in memory needs a restart"):
        fresh.reload()
    assert others.budgets == ()
    for each in (router, others):
        await each.aclose()


def test_the_order_of_a_ladder(tmp_path: Path) -> None:
    """Tiers that change places are another ladder."""
    file, tiers = tmp_path / "tierline.toml", ('haiku = "claude-haiku-5-5"\n', 'opus = "claude-opus-5-5"\n')
    write(file, "[ladder]\n" + "".join(tiers))
    config = load(file, environ={})
    assert config.reload() == ()
    write(file, "[ladder]\n" + "".join(reversed(tiers)))
    with pytest.raises(ConfigurationError, match="ladder cannot change while the app runs"):
        config.reload()


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to read again."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="there is no file to read again"):
        load(environ={}).reload()
