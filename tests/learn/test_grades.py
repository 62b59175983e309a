"""Grades of real calls: of the app, of those who saw the answer, in every worker and after a restart."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import logging
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tierline
from tests.learn.recording import Recording, features
from tests.redis_server import redis_server
from tierline import Budget, Ladder
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.ledger import MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tierline import Router
    from tierline.learn.outcomes import Evidence
    from tierline.values import Decision

    MakeRouter = Callable[..., Router]

pytestmark = pytest.mark.usefixtures("quiet")

CANARY = "xylophone canary"
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 300, "messages": [{"role": "user", "content": CANARY}]}


async def call(router: Router, tenant: str | None = "acme", route: str | None = "/answer", **more: Any) -> Decision:
    """The decision of a call."""
    async with router.bind(tenant=tenant, route=route) as binding:
        await router.claude.messages.create(**ASK | more)
    return binding.decisions[-1]


async def learned(router: Router) -> list[Evidence]:
    """All that the model was told."""
    await router.learning.sync()
    return router.learning.model.absorbed  # type: ignore[attr-defined, no-any-return]


async def test_the_app_grades(make_router: MakeRouter) -> None:
    """A grade is of the route, the tier and the text of its call, and no account bounds it."""
    router = make_router(outcomes=Recording())
    decision = await call(router)
    decision.grade(good=True)
    decision.grade(0.25)
    (found,) = await learned(router)
    assert (found.id, found.route, found.tier, found.good) == (decision.id, "/answer", "sonnet", 0.25)
    assert (found.source, found.account, found.features) == ("app", "", features(CANARY))
    with pytest.raises(ConfigurationError, match=r"decision\.grade"):
        decision.grade("good")  # type: ignore[arg-type]


async def test_a_thumb_that_comes_later(make_router: MakeRouter) -> None:
    """A handle counts once, for the tier that answered, beside the app's own grade."""
    router = make_router(outcomes=Recording())
    decision = await call(router, route=None)
    decision.grade(good=True)
    assert decision.handle == decision.handle
    assert await router.grade(decision.handle, good=False) is True
    assert await router.grade(decision.handle, good=False) is False
    assert {(each.source, each.good, each.route) for each in await learned(router)} == {
        ("app", 1.0, "default"),
        ("user", 0.0, "default"),
    }


async def test_streams(make_router: MakeRouter) -> None:
    """While a stream is read and when it has ended, its decision has the same handle, and takes a grade."""
    router = make_router(outcomes=Recording())
    async with router.bind(route="/chat") as binding, router.claude.messages.stream(**ASK) as stream:
        before = binding.decisions[-1]
        await stream.get_final_message()
    after = binding.decisions[-1]
    assert (before.settled, after.settled) == (False, True)
    assert before.handle == after.handle != ""
    before.grade(good=True)
    after.grade(good=False)
    assert [(each.id, each.good) for each in await learned(router)] == [(after.id, 0.0)]


async def test_tools_are_counted(make_router: MakeRouter) -> None:
    """How many tools were offered is a feature."""
    router = make_router(outcomes=Recording())
    tools = [{"name": "look", "description": "Look.", "input_schema": {"type": "object", "properties": {}}}]
    (await call(router, tools=tools)).grade(good=True)
    assert [each.features for each in await learned(router)] == [features(CANARY, 1)]


def test_synchronous_calls(make_sync_router: MakeRouter) -> None:
    """A script without a loop grades, and its shutdown writes it."""
    router = make_sync_router(outcomes=Recording())
    with router.bind(route="/script") as binding:
        router.sync_claude.messages.create(**ASK)
    binding.decisions[-1].grade(good=True)
    asyncio.run(router.aclose())
    assert [each.route for each in router.learning.store._kept] == ["/script"]  # type: ignore[attr-defined]


async def test_nothing_was_routed(make_router: MakeRouter) -> None:
    """With mode off a decision takes grades and forgets them, and has no handle."""
    router = make_router(outcomes=Recording(), mode="off")
    decision = await call(router)
    decision.grade(good=False)
    assert decision.handle == ""
    assert await learned(router) == []


async def test_a_router_learns_by_itself(make_router: MakeRouter) -> None:
    """Without a model of the app's own there is one over the ladder's tiers."""
    router = make_router()
    decision = await call(router)
    before = router.learning.model.forecast("/answer", CANARY)
    for _ in range(5):
        (await call(router)).grade(good=False)
    await router.learning.sync()
    after = router.learning.model.forecast("/answer", CANARY)
    place = [chance.tier for chance in after.chances].index(decision.tier)
    assert after.chances[place].good < before.chances[place].good - 0.1
    assert after.evidence == pytest.approx(5)


async def test_nothing_answered(make_router: MakeRouter) -> None:
    """A refused call, and an id on no rung, teach nothing of a tier."""
    router = make_router(outcomes=Recording(), budgets=[Budget("$0.000000001", name="tiny", per="tenant")])
    async with router.bind(tenant="acme") as binding:
        with pytest.raises(BudgetExceededError):
            await router.claude.messages.create(**ASK)
    assert [decision.handle for decision in binding.decisions] in ([], [""])
    ladder = Ladder.of(haiku="claude-haiku-5-5", opus="claude-opus-5-5")
    free = make_router(outcomes=Recording(("haiku", "opus")), ladder=ladder)
    decision = await call(free, model="claude-sonnet-5-5")
    decision.grade(good=False)
    assert decision.handle == ""
    assert await learned(free) == []


async def test_observing_grades_what_answered(make_router: MakeRouter) -> None:
    """Where calls are only observed, the grade is of the tier that they were sent to."""
    router = make_router(outcomes=Recording(), mode="observe")
    (await call(router, model="claude-opus-5-5")).grade(good=True)
    assert [each.tier for each in await learned(router)] == ["opus"]


async def test_own_questions_are_not_graded(make_router: MakeRouter) -> None:
    """What Tierline asks for itself leaves no decision, and asks nothing of the model."""
    router = make_router(outcomes=Recording())
    await router.classify("hello", ["a", "b"], "Which?")
    assert await learned(router) == []


async def test_a_decision_stays_a_plain_value(make_router: MakeRouter) -> None:
    """What takes its grades is in no repr, comparison, dictionary or copy of it; a copy takes none."""
    decision = await call(make_router(outcomes=Recording()))
    twin = dataclasses.replace(decision)
    assert twin == decision
    assert hash(twin) == hash(decision)
    assert CANARY not in repr(decision)
    for other in (twin, copy.deepcopy(decision), pickle.loads(pickle.dumps(decision))):  # noqa: S301
        assert other == decision
        other.grade(good=True)
        assert other.handle == ""
    assert "grader" not in repr(dataclasses.asdict(decision))
    assert decision.handle


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty store."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/a.db"
        return
    with redis_server() as server:
        yield server.url


async def test_every_worker_and_a_restart(make_router: MakeRouter, store: str) -> None:
    """A handle of one worker counts in another and after a restart, once; what was learned is there again."""
    one, other = (make_router(store=store, outcomes=Recording()) for _ in range(2))
    handles = [(await call(router)).handle for router in (one, one, other)]
    assert await other.grade(handles[0], good=True) is True
    assert await one.grade(handles[0], good=True) is False
    await one.aclose()
    await other.aclose()
    again = make_router(store=store, outcomes=Recording())
    async with again.lifespan():
        assert len(await learned(again)) == 1
        assert [await again.grade(handle, good=False) for handle in handles] == [False, True, True]
        assert len(await learned(again)) == 3


WORKER = """
import asyncio, os, signal, sys
from tests.learn.recording import Recording
from tierline import Router
from tierline.classify import FixedClassifier
from tierline.testing import FakeClaude

async def main():
    router = Router(
        FakeClaude().client(), store=sys.argv[1], classifier=FixedClassifier("moderate"), outcomes=Recording()
    )
    async with router.bind(tenant="acme", route="/answer") as binding:
        message = [{"role": "user", "content": "Hi"}]
        await router.claude.messages.create(model="auto", max_tokens=100, messages=message)
    decision = binding.decisions[-1]
    decision.grade(good=True)
    await router.learning.sync()
    print(decision.handle, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_worker_that_was_killed(make_router: MakeRouter, store: str) -> None:
    """What it had written is there, and the handle that it gave away counts in the next worker."""
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{Path(tierline.__file__).parents[1]}:{root}"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, store, stdout=subprocess.PIPE, cwd=root, env=env
    )
    printed, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    router = make_router(store=store, outcomes=Recording())
    assert [each.source for each in await learned(router)] == ["app"]
    assert await router.grade(printed.decode().strip(), good=False) is True
    assert [each.source for each in await learned(router)] == ["app", "user"]


async def test_a_secret_of_the_app(make_router: MakeRouter) -> None:
    """Routers with one secret know each other's handles, and others do not."""
    mine, same, other = (make_router(outcomes=Recording(), secret=secret) for secret in (b"one", b"one", b"two"))
    handle = (await call(mine)).handle
    assert await other.grade(handle, good=True) is False
    assert await same.grade(handle, good=True) is True


async def test_an_account_is_erased(make_router: MakeRouter, store: str) -> None:
    """`router.erase` forgets what a tenant graded, in the store and in the model."""
    router = make_router(store=store, outcomes=Recording())
    for tenant in ("acme", "globex"):
        assert await router.grade((await call(router, tenant)).handle, good=True)
    assert len(await learned(router)) == 2
    await router.erase("acme")
    assert [each.account for each in await learned(router)] == [router.learning.digest("globex")]


async def test_no_text_is_kept(make_router: MakeRouter, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No word of a prompt is in the store, in what a dump of it holds, in handles, in reprs or in the log."""
    caplog.set_level(logging.DEBUG, "tierline")
    with redis_server(appendonly="yes", appendfsync="always") as server:
        for url in (f"sqlite:///{tmp_path}/a.db", server.url):
            router = make_router(store=url, outcomes=Recording(), journal=str(tmp_path / f"{len(url)}.journal"))
            decision = await call(router)
            decision.grade(good=True)
            assert await router.grade(decision.handle, good=True)
            assert len(await learned(router)) == 2
            for shown in (repr(decision), str(decision), repr(await learned(router)), decision.handle, repr(router)):
                assert CANARY not in shown
            await router.aclose()
        with server.client() as client:
            client.save()
        files = [path for folder in (tmp_path, server.folder) for path in _files(folder)]
        kept = b"".join(path.read_bytes() for path in files)
    assert b"/answer" in kept, "nothing was looked at"
    for word in CANARY.split():
        assert word.encode() not in kept
        assert word not in caplog.text


def _files(folder: Path | str) -> list[Path]:
    return [path for path in Path(folder).rglob("*") if path.is_file()]


async def test_a_ledger_of_the_apps_own(make_router: MakeRouter) -> None:
    """Its outcomes are in the memory of the process."""
    router = make_router(ledger=MemoryLedger(), outcomes=Recording())
    assert await router.grade((await call(router)).handle, good=True)


async def test_what_cannot_be(make_router: MakeRouter) -> None:
    """A model of other tiers, and a time that is none, are told at the start."""
    with pytest.raises(ConfigurationError, match="OutcomeModel"):
        make_router(outcomes=Recording(("small", "large")))
    with pytest.raises(ConfigurationError, match="OutcomeModel"):
        make_router(outcomes=object())
    with pytest.raises(ConfigurationError, match="handle_ttl"):
        make_router(outcomes=Recording(), handle_ttl=0)
