"""Attempts in flight: how each ending is charged, once, and what outlives whoever started it."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.quality.simtime import SimulatedLoop
from tests.world import INPUT, TERMS, USAGE, WORST, Slow, World, busy, ok, refused, silent
from tierline import Budget
from tierline.attempts import Background, OpenAttempt, Reply
from tierline.ledger import MemoryLedger
from tierline.usage import Metered, StreamReader, WholeReader
from tierline.values import Attempt, Usage


def stream(*, head: int | None = 40, said: int = 0, done: int | None = None, error: str = "") -> StreamReader:
    """A reader that has seen this much of a stream."""
    reader = StreamReader(TERMS)

    def feed(kind: str, **data: Any) -> None:
        text = json.dumps({"type": kind, **data}, separators=(",", ":"))
        reader.feed(f"event: {kind}\ndata: {text}\n\n".encode())

    if head is not None:
        feed("message_start", message={"usage": {"input_tokens": head, "output_tokens": 1}})
    if said:
        feed("content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * said})
    if done is not None:
        feed("message_delta", delta={}, usage={"output_tokens": done})
    if error:
        feed("error", error={"type": error})
    return reader


def whole(data: bytes) -> WholeReader:
    reader = WholeReader(TERMS)
    reader.feed(data)
    return reader


@pytest.mark.parametrize(
    ("reply", "charge", "estimated"),
    [
        (silent(sent=False), 0, False),
        (silent(sent=True), WORST, True),
        (Reply(exception=TimeoutError(), error="timeout"), WORST, True),
        (refused(400, "invalid_request_error"), 0, False),
        (refused(429, "rate_limit_error"), 0, False),
        (refused(500, "api_error"), 0, False),
        (refused(529, "overloaded_error"), 0, False),
        (ok(), 50 + 70, False),
        (ok(None), WORST, True),
        (ok(Usage(10**6, 10**6)), 11 * 10**6, False),
    ],
)
async def test_endings_of_whole_answers(reply: Reply, charge: int, estimated: bool) -> None:
    """What came back whole, or not at all, is charged as the table of endings says."""
    world = World(reply, retries=0)
    run = world.dispatch("simple", ceiling="a")
    await run.run()
    (attempt,) = run.attempts
    assert (attempt.cost, attempt.estimated) == (charge, estimated)
    found = await world.balance()
    assert (found.spent, found.held, found.estimated) == (charge, 0, charge if estimated else 0)


@pytest.mark.parametrize(
    ("reader", "outcome", "thinks", "charge", "estimated", "said"),
    [
        (stream(done=9), "ok", False, 40 + 90, False, "ok"),
        (stream(done=9), "client_disconnected", False, 40 + 90, False, "client_disconnected"),
        (stream(said=20), "client_disconnected", False, 40 + 10 * 27, True, "client_disconnected"),
        (stream(said=20), "ok", False, 40 + 10 * 27, True, "truncated"),
        (stream(said=20), "connection_error", False, 40 + 10 * 27, True, "connection_error"),
        (stream(said=20, error="overloaded_error"), "ok", False, 40 + 10 * 27, True, "overloaded_error"),
        (stream(done=9, error="api_error"), "ok", False, 40 + 90, True, "api_error"),
        (stream(said=9_999), "client_disconnected", False, WORST, True, "client_disconnected"),
        (stream(said=20), "client_disconnected", True, WORST, True, "client_disconnected"),
        (stream(head=None), "client_disconnected", False, INPUT, True, "client_disconnected"),
        (stream(head=None), "ok", False, WORST, True, "truncated"),
        (None, "closed", False, INPUT, True, "closed"),
        (whole(b'{"usage":{"input_tokens":1,"output_tokens":2}}'), "ok", False, 21, False, "ok"),
        (whole(b'{"usage":{"input_'), "ok", False, WORST, True, "truncated"),
        (whole(b"<html>"), "ok", False, WORST, True, "truncated"),
        (whole(b'{"usage":{"input_'), "client_disconnected", False, WORST, True, "client_disconnected"),
    ],
)
async def test_endings_of_answers_that_are_read(
    reader: Any, outcome: str, thinks: bool, charge: int, estimated: bool, said: str
) -> None:
    """What was read on the way is charged exactly to its end, else by a bound that never exceeds the hold."""
    world = World()
    attempt = await world.open(thinks=thinks)
    attempt.reader = reader
    await attempt.streamed(outcome)
    assert attempt.result is not None
    slack = 10 * 12 if estimated and charge not in (WORST, INPUT) else 0
    assert charge <= attempt.result.cost <= charge + slack
    assert (attempt.result.estimated, attempt.result.outcome) == (estimated, said)
    found = await world.balance()
    assert (found.spent, found.held) == (attempt.result.cost, 0)


async def test_usage_above_the_hold_is_charged_in_full() -> None:
    """A cut stream is never charged under the usage that was seen, were it above the hold."""
    world = World()
    attempt = await world.open()
    attempt.reader = stream(head=10**6, said=5)
    await attempt.streamed("client_disconnected")
    assert (await world.balance()).spent >= 10**6 > WORST


ENDINGS = ("streamed", "answered", "cut_off", "abandon", "failed", "sweep")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(ENDINGS), min_size=2, max_size=6), st.booleans())
def test_the_first_ending_wins(order: list[str], at_once: bool) -> None:
    """However many endings meet, one after another or at once, an attempt is settled once and told once."""

    async def scenario() -> None:
        ledger = Slow(clock=lambda: 0.0)
        world = World(ledger=ledger)
        attempt = await world.open()
        attempt.reader = stream(said=5)
        told: list[Attempt] = []
        attempt.when_ended(told.append)
        endings = {
            "streamed": lambda: attempt.streamed("ok"),
            "answered": lambda: attempt.answered(Metered(USAGE, TERMS)),
            "cut_off": lambda: attempt.cut_off("cancelled"),
            "abandon": lambda: attempt.abandon("closed"),
            "failed": lambda: attempt.failed(busy()),
            "sweep": lambda: attempt.sweep(0.25),
        }
        if at_once:
            await asyncio.gather(*(endings[name]() for name in order))
        else:
            for name in order:
                await endings[name]()
        assert len(ledger.settled) == 1
        assert told == [attempt.result]
        later: list[Attempt] = []
        attempt.when_ended(later.append)
        assert later == told
        found = await world.balance()
        assert (found.spent, found.held) == (told[0].cost, 0)
        assert not world.binding.open

    asyncio.run(scenario())


async def test_an_answer_that_is_still_to_be_read() -> None:
    """A stream goes to the app with its hold, is settled when it has been read, and is an attempt then."""
    taken: list[OpenAttempt] = []
    world = World(Reply("stream", status=200, tap=taken.append))
    run = world.dispatch("simple")
    assert (await run.run()).response == "stream"
    assert run.pending is taken[0]
    assert run.attempts == []
    assert (await world.balance()).held == WORST
    told: list[Attempt] = []
    taken[0].when_ended(told.append)
    taken[0].reader = stream(done=9)
    await taken[0].streamed("ok")
    assert told == [taken[0].result]
    assert (await world.balance()).held == 0


async def test_what_has_no_bound_is_recorded_by_a_soft_budget() -> None:
    """A soft budget lets an unbounded call pass, holds nothing for it, charges what it was, and says so."""
    world = World(ok())
    run = world.dispatch("simple")
    offer = run.plan.offers[0]._replace(cost=None, unbounded="no end")
    run.plan = run.plan._replace(offers=(offer,))
    run.lines = (Budget("$1", hard=False).line("global"),)
    assert (await run.run()).response == "answer"
    assert run.reasons == ["recorded, not bounded: no end"]
    assert (await world.balance()).spent == 50 + 70


# Sweeps, drops and leases


async def test_a_sweep_ends_what_nobody_reads() -> None:
    """An answer that nobody reads any more is closed and settled when the request is over."""
    world = World()
    attempt = await world.open()
    attempt.reader = stream(said=20)
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    attempt.close = close
    await attempt.sweep(0.25)
    assert closed == [True]
    assert attempt.result is not None
    assert attempt.result.outcome == "client_disconnected"
    assert len(world.waits) == 1


@pytest.mark.parametrize("sign", ["reading", "progress"])
async def test_a_sweep_leaves_who_is_still_reading(sign: str) -> None:
    """A task that outlives its request and reads on is left alone until it stops."""
    world = World()
    attempt = await world.open()
    attempt.reader = stream(said=20)
    rounds = 0

    def step() -> None:
        nonlocal rounds
        rounds += 1
        assert not attempt.ended
        attempt.reading = sign == "reading" and rounds < 4
        attempt.progress += sign == "progress" and rounds < 4

    world.while_waiting = step
    await attempt.sweep(0.25)
    assert rounds == 4
    assert attempt.ended


async def test_a_sweep_leaves_an_attempt_that_is_being_sent() -> None:
    """An attempt without an answer is ended by who sends it."""
    world = World()
    attempt = await world.open()
    await attempt.sweep(0.25)
    assert not attempt.ended
    assert world.waits == []


async def test_a_connection_that_cannot_be_closed_is_settled_all_the_same() -> None:
    """An error while closing does not keep an attempt open."""
    world = World()
    attempt = await world.open()
    attempt.reader = stream(said=20)

    async def close() -> None:
        raise BrokenPipeError

    attempt.close = close
    with pytest.raises(BrokenPipeError):
        await attempt.abandon("closed")
    assert (await world.balance()).held == 0


async def test_a_dropped_answer_is_settled_on_its_loop() -> None:
    """An answer that was collected as garbage, in whatever thread, is closed and settled where it belongs."""
    world = World()
    attempt = await world.open()
    attempt.reader = stream(said=20)
    closed: list[Any] = []

    async def close() -> None:
        closed.append(asyncio.get_running_loop())

    await asyncio.to_thread(attempt.dropped, close)
    for _ in range(5):
        await asyncio.sleep(0)
    await world.books.background.drain(5)
    assert closed == [asyncio.get_running_loop()]
    assert attempt.result is not None
    assert attempt.result.outcome == "abandoned"
    assert (await world.balance()).held == 0


def test_a_drop_after_the_loop_is_closed_raises_nothing() -> None:
    """Where the loop is gone the lease runs out, and the books forget the attempt."""
    world = World()

    async def begin() -> OpenAttempt:
        return await world.open()

    async def close() -> None:
        raise AssertionError

    attempt = asyncio.run(begin())
    attempt.dropped(close)
    assert not attempt.ended
    assert attempt not in world.books._open


async def test_shutdown_ends_everything() -> None:
    """At shutdown every open attempt is ended, and its settlement waited for."""
    world = World(ledger=Slow(clock=lambda: 0.0))
    attempt = await world.open()
    attempt.reader = stream(said=20)
    await world.books.close(5)
    assert attempt.result is not None
    assert attempt.result.outcome == "shutdown"
    assert (await world.balance()).held == 0


async def test_slow_stream_heartbeat_outlives_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease of an attempt in flight is renewed for as long as it is open, and no longer."""
    clock = [0.0]
    ledger = MemoryLedger(clock=lambda: clock[0], lease=30)
    world = World(ledger=ledger)
    beats: list[Any] = []

    class Handle:
        def cancel(self) -> None:
            beats.clear()

    def call_later(delay: float, callback: Any, *args: Any) -> Handle:
        assert delay < ledger.lease / 2
        beats.append((delay, callback, args))
        return Handle()

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
    attempt = await world.open()
    for _ in range(20):
        ((delay, callback, args),) = beats
        beats.clear()
        clock[0] += delay
        callback(*args)
        for _ in range(3):
            await asyncio.sleep(0)
        assert (await world.balance()).held == WORST
    attempt.reader = stream(done=5)
    await attempt.streamed("ok")
    ((_, callback, args),) = beats
    beats.clear()
    callback(*args)
    assert beats == []
    assert (await world.balance()).spent == 40 + 50


async def test_background_work_that_fails_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A task that outlives its caller and fails is logged by its type, not lost and not quoted."""
    world = World()

    async def fail() -> None:
        raise ValueError("secret")

    world.books.background.start(fail())
    await world.books.background.drain(5)
    await asyncio.sleep(0)
    gc.collect()
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_ledger_that_fails_to_settle_does_not_take_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """What was paid for reaches the app, whatever becomes of its settlement."""

    class Failing(MemoryLedger):
        async def settle(self, reservation: Any, cost: int, *, estimated: bool = False) -> bool:
            raise OSError("disk")

    world = World(ok(), ledger=Failing(clock=lambda: 0.0))
    assert (await world.dispatch().run()).response == "answer"
    assert "not settled" in caplog.text


async def test_shutdown_waits_for_what_is_being_sent() -> None:
    """A call that is answered while the app goes down is charged what it cost."""
    world = World()
    attempt = await world.open()
    # Twice at once: an app and its lifespan may both shut down.
    closing = [asyncio.ensure_future(world.books.close(5.0)) for _ in range(2)]
    await asyncio.sleep(0)
    await attempt.answered(Metered(USAGE, TERMS))
    await asyncio.gather(*closing)
    assert attempt.result is not None
    assert (attempt.result.outcome, attempt.result.estimated) == ("ok", False)


async def test_draining_waits_for_what_tasks_start() -> None:
    """What a task in the background starts is waited for too, and nothing for longer than was said."""
    background, ended = Background(), []

    async def second() -> None:
        await asyncio.sleep(0.01)
        ended.append("second")

    async def first() -> None:
        await asyncio.sleep(0.01)
        background.start(second())

    background.start(first())
    await background.drain(5)
    assert ended == ["second"]
    endless = background.start(asyncio.Event().wait())
    await asyncio.wait_for(background.drain(0.01), 5)
    endless.cancel()


def test_shutdown_keeps_its_time() -> None:
    """A call that is never answered is waited for but for the last second, and settled in that."""

    async def work() -> float:
        world = World(ledger=Slow(clock=lambda: 0.0))
        attempt = await world.open()
        began = asyncio.get_running_loop().time()
        await world.books.close(1.2)
        took = asyncio.get_running_loop().time() - began
        assert attempt.result is not None
        assert (attempt.result.outcome, attempt.result.cost) == ("shutdown", INPUT)
        assert (await world.balance()).held == 0
        return took

    # In simulated seconds: a busy machine makes none of them longer.
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        assert runner.run(work()) == pytest.approx(0.2)


async def test_shutdown_does_not_wait_for_a_settlement_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """A ledger that does not answer keeps no process from its end; what is not settled is said."""

    class Hanging(Slow):
        async def settle(self, *_: Any, **__: Any) -> bool:
            await asyncio.Event().wait()
            raise AssertionError

    world = World(ledger=Hanging(clock=lambda: 0.0))
    attempt = await world.open()
    attempt.reader = stream(said=20)
    await asyncio.wait_for(world.books.close(0), 10)
    assert "tasks are not done" in caplog.text
    world.books.background.cancel()
    await asyncio.sleep(0)


async def test_a_sweep_goes_with_its_attempt() -> None:
    """Once an attempt has ended there is nothing to wait for: no task is left of its sweep."""
    world = World()
    attempt = await world.open()
    attempt.reader = stream(said=20)
    forever = asyncio.Event()
    world.while_waiting = forever.wait
    attempt.left_open(30.0)
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(world.books.sweeps._tasks) == 1
    await attempt.streamed("ok")
    for _ in range(3):
        await asyncio.sleep(0)
    assert not world.books.sweeps._tasks


@pytest.mark.parametrize(("here", "blocking", "cut"), [(True, True, True), (False, True, False), (True, False, False)])
@pytest.mark.parametrize("before", [True, False])
async def test_a_thread_that_reads_for_nobody_is_cut_off(here: bool, blocking: bool, cut: bool, before: bool) -> None:
    """A thread of the request's own loop is cut off when its client has gone, before or after its answer began."""
    world = World()
    attempt = await world.open()
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    def gone() -> None:
        world.binding.desert(asyncio.get_running_loop() if here else object())  # type: ignore[arg-type]
        attempt.desert()

    if before:
        gone()
    attempt.answers(stream(said=20), close, blocking=blocking)
    attempt.reading = True
    if not before:
        gone()
    for _ in range(10):
        await asyncio.sleep(0)
    await world.books.background.drain(5)
    assert (attempt.ended, attempt.deserted, closed) == (cut, cut, [True] if cut else [])
