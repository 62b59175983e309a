"""A Router's learning: what passes between its model and the store, while calls go on and the store comes and goes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.learn import stores
from tests.learn.recording import Recording, features
from tests.learn.stores import Shared, read
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.learn import learning as module
from tierline.learn.learning import Learning
from tierline.learn.memory import MemoryOutcomes
from tierline.learn.outcomes import Outcome
from tierline.learn.shares import FREE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tierline.learn.outcomes import Evidence
    from tierline.values import Chance


HI = features("Hi")


def evidence(name: str, **more: Any) -> Evidence:
    """A fresh outcome that the model can read."""
    return stores.evidence(name, **{"features": HI, "at": time.time(), **more})


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


class Flaky(MemoryOutcomes):
    """A store that can be taken away; unlike the memory of a process it has to be asked for its secret."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = False
        self.asked = 0

    async def _reach(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.gone:
            raise LedgerUnavailableError("gone")

    async def add(self, evidence):
        await self._reach()
        return await super().add(evidence)

    async def since(self, cursor, limit=1000):
        await self._reach()
        return await super().since(cursor, limit)

    async def secret(self):
        await self._reach()
        return await super().secret()

    async def forget(self, account):
        await self._reach()
        await super().forget(account)


def remote(store: Flaky, clock: Clock, **options: object) -> Learning:
    """Learning on a store that others have too."""
    learning = Learning(Recording(), store, clock=clock, **options)  # type: ignore[arg-type]
    learning._every, learning._next, learning.handles = module.EVERY, 0.0, None
    return learning


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Callable[..., Learning]]:
    """Learning as the processes of one app have it, on one file."""
    shared = Shared(str(tmp_path / "a.db"))
    yield lambda **options: Learning(Recording(), shared.open(), **options)
    await shared.aclose()


async def until(happened: Callable[[], object]) -> None:
    """Let the loop go on until something has happened in the background."""
    while not happened():  # noqa: ASYNC110  (nobody is told of it)
        await asyncio.sleep(0.005)


def good(learning: Learning, tier: str = "haiku", route: str = "/answer") -> float:
    """What the model thinks of a tier."""
    chances = learning.asked(route, None, "Hi", 0).forecast().chances
    return next(chance.good for chance in chances if chance.tier == tier)


async def test_what_one_process_sees_all_learn(processes: Callable[..., Learning]) -> None:
    """Evidence goes through the store to every process, its own included, and once to each."""
    one, other = processes(), processes()
    for number in range(10):
        one.keep(evidence(f"{number}"))
    assert one.model.absorbed == []
    await one.sync()
    await other.sync()
    await other.sync()
    assert [each.id for each in one.model.absorbed] == [each.id for each in other.model.absorbed]
    assert len(other.model.absorbed) == 10
    assert good(other) == pytest.approx(good(one), abs=0.01)
    assert good(other) > good(processes()) + 0.03


async def test_it_starts_with_what_was_learned_before(processes: Callable[..., Learning]) -> None:
    """A process that starts has the model of those that ran before, however much that is."""
    before = processes()
    for number in range(1234):
        before.keep(evidence(f"{number}", at=float(number)))
    await before.close(5)
    after = processes()
    await after.start()
    assert len(after.model.absorbed) == 1234


async def test_a_call_reads_what_others_have_learned() -> None:
    """Every few seconds, in the background: not with every call, and not when there are none."""
    store, clock = Flaky(), Clock()
    learning = remote(store, clock)
    learning.begin()
    await learning.known()
    asked = store.asked
    for _ in range(50):
        learning.begin()
        await asyncio.sleep(0)
    assert store.asked == asked
    await store.add([evidence("of another")])
    clock.now += module.EVERY
    learning.begin()
    await asyncio.gather(*learning._tasks)
    assert [each.id for each in learning.model.absorbed] == ["of another"]
    assert not learning._tasks


async def test_a_grade_is_written_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it: not the one who grades, and not a process that does nothing else."""
    monkeypatch.setattr(module, "LINGER", 0.01)
    learning = Learning(Recording(), MemoryOutcomes())
    learning.keep(evidence("a"))
    await until(lambda: learning.model.absorbed)
    assert not learning._waiting


async def test_grades_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that have no loop hand theirs to the loop of the calls, and none is lost."""
    monkeypatch.setattr(module, "LINGER", 0.01)
    learning = Learning(Recording(), MemoryOutcomes())
    learning.begin()

    def grade(name: int) -> None:
        for number in range(100):
            learning.keep(evidence(f"{name} {number}"))

    threads = [threading.Thread(target=grade, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    await until(lambda: len(learning.model.absorbed) == 400)
    for thread in threads:
        thread.join()
    assert len({each.id for each in learning.model.absorbed}) == 400


def test_a_grade_outside_of_all_loops_waits_for_the_next() -> None:
    """Where there is no loop yet, or the last one is closed, the next call or the shutdown writes it."""
    learning = Learning(Recording(), store := MemoryOutcomes())
    learning.keep(evidence("early"))
    asyncio.run(learning.close(1))

    async def call() -> None:
        learning.begin()

    asyncio.run(call())
    learning.keep(evidence("late"))
    asyncio.run(learning.close(0))
    assert [each.id for each in store._kept] == ["early", "late"]


def test_a_call_takes_along_what_was_said_without_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread said while no loop ran is written by the next call."""
    monkeypatch.setattr(module, "LINGER", 0.01)
    learning = Learning(Recording(), MemoryOutcomes())
    learning.keep(evidence("early"))

    async def call() -> None:
        learning.begin()
        await until(lambda: learning.model.absorbed)

    asyncio.run(call())


async def test_who_syncs_waits_for_what_has_begun_before() -> None:
    """What the store gave to a read that was under way may lack what was said since, or be what was erased since."""
    store, model = Flaky(), Recording()
    learning = Learning(model, store)
    await learning.start()
    reads, may = asyncio.Event(), asyncio.Event()

    async def slow(cursor: str, limit: int) -> Any:
        found = await MemoryOutcomes.since(store, cursor, limit)
        reads.set()
        await may.wait()
        return found

    store.since = slow
    learning._start()
    await reads.wait()
    learning.keep(evidence("late"))
    ours = asyncio.create_task(learning.sync())
    await asyncio.sleep(0.01)
    may.set()
    await ours
    assert [each.id for each in model.absorbed] == ["late"]


async def test_forgetting_does_not_hold_up_calls() -> None:
    """A model that was fitted learns that anew: in a thread."""
    store, threads = MemoryOutcomes(), []

    class Slow(Recording):
        def restart(self) -> None:
            threads.append(threading.current_thread())
            super().restart()

    learning = Learning(Slow(), store)
    await learning.start()
    threads.clear()
    await learning.erase("anna")
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_names_that_cannot_be_written_hold_up_nothing(processes: Callable[..., Learning]) -> None:
    """Half a surrogate pair in the name of a route is a question mark: in outcomes, in grades and in handles."""
    learning = processes()
    await learning.start()
    learning.observe(Outcome("/h\ud800", "Hi", "haiku", good=True, source="\ud800"))
    asked = learning.asked("/h\ud800", None, "Hi", 0)
    asked.grade("1", "haiku", good=True)
    assert await learning.grade(asked.handle("2", "haiku"), True, None)
    learning.observe(Outcome("/answer", "Hi", "haiku", good=True))
    await learning.sync()
    assert not learning._waiting
    assert (round(learning.model.evidence("/answer")), round(asked.evidence)) == (1, 3)


async def test_outcomes_that_others_bring(processes: Callable[..., Learning]) -> None:
    """Judges and checks say outcomes, each of which is one of its own; the tier must be one of the ladder's."""
    learning = processes()
    outcome = Outcome("/answer", "Hi there", "opus", good=False, tools=3, source="judge", weight=0.5)
    learning.observe(outcome)
    learning.observe(outcome)
    await learning.sync()
    one, other = learning.model.absorbed
    assert one._replace(id="", at=0.0) == other._replace(id="", at=0.0)
    assert one[1:8] == ("/answer", "opus", 0.0, features("Hi there", 3), "judge", 0.5, "")
    with pytest.raises(ConfigurationError, match="haiku, sonnet, opus"):
        learning.observe(Outcome("/answer", "Hi", "gone", good=True))


async def test_evidence_of_a_ladder_that_was(processes: Callable[..., Learning]) -> None:
    """What is in the store of tiers that are no more is left alone."""
    learning = processes()
    learning.keep(evidence("a", tier="gone"))
    learning.keep(evidence("b"))
    await learning.sync()
    await learning.sync()
    assert learning.asked("/answer", None, "Hi", 0).forecast().evidence == pytest.approx(1)


async def test_what_a_model_observes_is_kept(processes: Callable[..., Learning]) -> None:
    """A Router's model hands what an app observes to the store, from where every worker learns it, once."""
    one, other = processes(), processes()
    one.model.fit([Outcome("/answer", "Hi", "haiku", good=True)])
    one.model.observe(Outcome("/answer", "Hi there", "opus", good=False, source="app"))
    assert one.model.forecast("/answer", "Hi").evidence == pytest.approx(1)
    await one.sync()
    await other.sync()
    assert one.model.forecast("/answer", "Hi").evidence == pytest.approx(2)
    assert other.model.forecast("/answer", "Hi").evidence == pytest.approx(1)
    await one.erase("acme")
    assert one.model.forecast("/answer", "Hi").evidence == pytest.approx(2), "what was fitted stays"


async def test_the_last_grade_counts_once(processes: Callable[..., Learning]) -> None:
    """Who changes their mind before it is written has said only the last; after that the first is kept."""
    learning = processes()
    learning.keep(evidence("a", good=1.0))
    learning.keep(evidence("a", good=0.0))
    await learning.sync()
    learning.keep(evidence("a", good=0.5))
    await learning.sync()
    assert [(each.id, each.good) for each in learning.model.absorbed] == [("a", 0.0)]


async def test_a_store_that_goes_away(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is kept, bounded, and written when the store is back."""
    monkeypatch.setattr(module, "_MOST_WAITING", 100)
    monkeypatch.setattr(module, "RETRY", 0.01)
    monkeypatch.setattr(module, "LINGER", 0.01)
    store, clock = Flaky(), Clock()
    learning = remote(store, clock)
    store.gone = True
    learning.begin()
    await learning.known()
    assert learning.asked("/answer", None, "Hi", 0).handle("a", "haiku") == ""
    for number in range(150):
        learning.keep(evidence(f"{number}"))
    await asyncio.sleep(0.05)
    assert len(learning._waiting) == 100
    store.gone = False
    await until(lambda: not learning._waiting)
    assert (await read(store))[0] == [f"{number}" for number in range(50, 150)]
    assert "50 grades were dropped" in caplog.text
    assert learning.asked("/answer", None, "Hi", 0).handle("a", "haiku")


async def test_a_store_that_is_known_to_be_away_is_not_asked() -> None:
    """While the ledger in it is away, nobody asks in vain."""
    store, clock, away = Flaky(), Clock(), [True]
    learning = remote(store, clock, away=lambda: away[0])
    learning.begin()
    await learning.known()
    assert store.asked == 0
    away[0] = False
    clock.now += module.RETRY
    learning.begin()
    await learning.known()
    assert learning.handles is not None


async def test_a_shutdown_writes_what_waits(caplog: pytest.LogCaptureFixture) -> None:
    """And where it cannot, within its time, it says what was lost."""
    store, clock = Flaky(), Clock()
    learning = remote(store, clock)
    learning.keep(evidence("a"))
    await learning.close(1)
    assert (await read(store))[0] == ["a"]
    store.gone = True
    learning.keep(evidence("b"))
    with caplog.at_level(logging.WARNING):
        await learning.close(1)
    assert "1 grades were not kept" in caplog.text


async def test_an_erased_account_is_unlearned_everywhere(processes: Callable[..., Learning]) -> None:
    """What it said is gone from the store, from this model, from others when they read again, and from what waits."""
    one, other = processes(), processes()
    await one.start()
    acme = one.digest("acme")
    for number in range(6):
        one.keep(evidence(f"{number}", good=0.0, account=acme if number % 2 else ""))
    await one.sync()
    await other.sync()
    one.keep(evidence("waits", account=acme))
    await one.erase("acme")
    await other.sync()
    for each in (one, other):
        assert [e.id for e in each.model.absorbed] == ["0", "2", "4"]
        assert each.model.restarts == 1


# Handles


async def test_a_handle_counts_once_in_every_process(processes: Callable[..., Learning]) -> None:
    """It is good in a process that did not make it, for one grade, whoever is first."""
    one, other = processes(), processes()
    await one.start()
    handle = one.asked("/answer", "acme", "Hi there", 2).handle("d-1", "haiku")
    assert sorted(await asyncio.gather(*(each.grade(handle, False, None) for each in (one, other, one)))) == [
        False,
        False,
        True,
    ]
    await other.sync()
    (found,) = other.model.absorbed
    assert (found.route, found.tier, found.good, found.source) == ("/answer", "haiku", 0.0, "user")
    assert found.features == features("Hi there", 2)
    assert found.account == other.digest("acme")
    assert "acme" not in repr(found)


async def test_grades_of_handles_that_are_none(processes: Callable[..., Learning]) -> None:
    """A client may send anything: it does not count, and nothing is raised. What is no grade is a mistake."""
    learning, stranger = processes(), Learning(Recording(), MemoryOutcomes())
    handle = stranger.asked("/answer", None, "Hi", 0).handle("d-1", "haiku")
    for wrong in (handle, "", "x", "ä", None, 5, "A" * 10_000):
        assert await learning.grade(wrong, True, None) is False
    with pytest.raises(ConfigurationError, match="grade"):
        await learning.grade(handle, 2.0, None)


async def test_a_handle_expires(processes: Callable[..., Learning]) -> None:
    """Seven days after the call, wherever it is."""
    clock = Clock()
    learning = processes(now=clock)
    await learning.start()
    first, second = (learning.asked("/answer", None, "Hi", 0).handle(name, "haiku") for name in ("a", "b"))
    clock.now += 7 * 86_400 - 1
    assert await learning.grade(first, True, None) is True
    clock.now += 1
    assert await learning.grade(second, True, None) is False


async def test_a_handle_of_a_tier_that_is_no_more(processes: Callable[..., Learning]) -> None:
    """After the ladder has changed, an old handle teaches nothing."""
    learning = processes()
    await learning.start()
    handle = learning.asked("/answer", None, "Hi", 0).handle("d-1", "gone")
    assert await learning.grade(handle, True, None) is False


async def test_who_grades(processes: Callable[..., Learning]) -> None:
    """The app may say who it is; without that it is the tenant of the call, and nobody in particular without one."""
    learning = processes()
    await learning.start()
    asked = learning.asked("/answer", None, "Hi", 0)
    await learning.grade(asked.handle("a", "haiku"), True, "ann")
    await learning.grade(asked.handle("b", "haiku"), True, None)
    await learning.sync()
    assert [each.account for each in learning.model.absorbed] == [learning.digest("ann"), learning.digest(None)]


async def test_a_handle_while_the_store_is_away() -> None:
    """Whether it counts cannot be known: that is an error, and the client may try again."""
    store, clock = Flaky(), Clock()
    learning = remote(store, clock)
    await learning.start()
    handle = learning.asked("/answer", None, "Hi", 0).handle("a", "haiku")
    store.gone = True
    with pytest.raises(LedgerUnavailableError):
        await learning.grade(handle, True, None)
    store.gone = False
    assert await learning.grade(handle, True, None) is True


@given(honest=st.lists(st.booleans(), max_size=30), floods=st.integers(0, 150), first=st.booleans())
@settings(max_examples=20)
def test_an_attacker_cannot_outweigh_the_others(honest: list[bool], floods: int, first: bool) -> None:
    """However many handles of its own an account has, the forecast moves no further than by as many as all others'."""
    clock = Clock()

    async def play(floods: int) -> tuple[Chance, int]:
        model = Recording(clock=clock)
        learning = Learning(model, store := MemoryOutcomes(), now=clock)

        async def flood() -> None:
            asked = learning.asked("/answer", "mallory", "Hi", 0)
            for number in range(floods):
                await learning.grade(asked.handle(f"m {number}", "haiku"), False, None)
                if not number % 7:
                    await learning.sync()
            await learning.sync()

        if first:
            await flood()
        for number, thumb in enumerate(honest):
            asked = learning.asked("/answer", f"tenant {number}", "Hi", 0)
            assert await learning.grade(asked.handle(f"{number}", "haiku"), thumb, None)
        await learning.sync()
        if not first:
            await flood()
        model.settle()
        return learning.asked("/answer", None, "Hi", 0).forecast().chances[0], len(store._kept)

    most = min(floods, max(len(honest), int(FREE)))
    chance, kept = asyncio.run(play(floods))
    bounded, _ = asyncio.run(play(most))
    assert chance.good == pytest.approx(bounded.good, abs=0.02)
    assert chance.evidence <= 2 * max(len(honest), FREE)
    assert kept <= len(honest) + most + 7, "what cannot count takes the place of what does"
