"""Streams that escalate: before the first byte only, and from then on byte for byte as the API sent them."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest

from tests.proof import ASK, Proof
from tierline import Budget, Ladder, policy
from tierline.anthropic import attach
from tierline.escalation import Escalate
from tierline.escalation.answers import Answer
from tierline.firstpart import MOST_BYTES, FirstPart, first_part_of
from tierline.held import HeldAnswer, _BlockingHeld
from tierline.testing import OK, FakeClaude, Fault, Reply
from tierline.usage import EventStreamReader, StreamReader, WholeReader
from tierline.values import Terms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tierline import Router
    from tierline.testing import Received

HAIKU, SONNET = "claude-haiku-5-5", "claude-sonnet-5-5"
GOOD = "The sky is blue because short waves are scattered more than long ones. " * 15
JSON_SCHEMA = {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False, "properties": {}}}
STREAM = {**ASK, "max_tokens": 900, "stream": True}


class Answers(dict[str, str | Reply]):
    """What each tier says; `GOOD` where nothing is set."""

    def __call__(self, received: Received) -> str | Reply:
        return self.get(str(received.model).split("-")[1], GOOD)


@pytest.fixture
def answers() -> Answers:
    """Haiku is not sure, at some length."""
    return Answers(haiku="I'm not sure, but " + GOOD)


@pytest.fixture
def fake(answers: Answers) -> FakeClaude:
    """An API that says what `answers` has."""
    return FakeClaude(answer=answers)


@pytest.fixture
async def proof(fake: FakeClaude, make_router: Callable[..., Router]) -> AsyncIterator[Proof]:
    """Calls that escalate; the books are even afterwards."""
    proof = Proof(fake, make_router)
    proof.options = {"policy": policy(escalate=True)}
    yield proof
    await proof.holds()


async def read(proof: Proof, **changes: Any) -> tuple[str, list[str]]:
    """The text of one stream and the types of its events."""
    async with proof.bound():
        stream = await proof.router.claude.messages.create(**{**STREAM, **changes})
        events = [event async for event in stream]
    text = "".join(e.delta.text for e in events if e.type == "content_block_delta" and e.delta.type == "text_delta")
    return text, [event.type for event in events]


def roles(proof: Proof) -> list[tuple[str, str, str]]:
    return [(a.tier, a.role, a.outcome) for a in proof.decisions[-1].attempts]


async def test_a_poor_beginning(proof: Proof, fake: FakeClaude) -> None:
    """What begins poorly is left, and charged as far as it came; the app reads one stream, from its start."""
    text, events = await read(proof)
    assert text == GOOD
    assert events.count("message_start") == 1
    assert events[-1] == "message_stop"
    assert roles(proof) == [("haiku", "first", "closed"), ("sonnet", "escalation", "ok")]
    decision = proof.decisions[-1]
    assert decision.estimated
    assert decision.attempts[1].cost == fake.requests[1].billed
    assert decision.cost == sum(a.cost for a in decision.attempts) >= fake.billed
    assert "haiku: it says that it is not sure" in proof.reasons()


@pytest.mark.parametrize("said", ["I'm not sure.", Reply(text="No.", stop_reason="refusal")])
async def test_a_short_poor_answer(proof: Proof, answers: Answers, fake: FakeClaude, said: str | Reply) -> None:
    """One that ends within what is held is checked whole, and charged exactly."""
    answers["haiku"] = said
    text, _ = await read(proof)
    assert text == GOOD
    assert roles(proof) == [("haiku", "first", "ok"), ("sonnet", "escalation", "ok")]
    assert (proof.decisions[-1].estimated, proof.decisions[-1].cost) == (False, fake.billed)


async def test_a_good_beginning_and_what_comes_after(proof: Proof, answers: Answers) -> None:
    """What is wrong after the first part is the app's: it has the bytes already."""
    answers["haiku"] = GOOD + "In truth: I don't know."
    text, _ = await read(proof)
    assert text.endswith("I don't know.")
    assert proof.models == ["haiku"]
    # Cut off by max_tokens at its end: past the first part.
    text, _ = await read(proof, max_tokens=80, thinking={"type": "disabled"})
    assert GOOD.startswith(text)
    assert proof.models == ["haiku", "haiku"]


async def test_json_that_does_not_begin_as_such(proof: Proof, answers: Answers) -> None:
    """Where JSON is asked for, a beginning that is none is enough; one that is goes through at once."""
    answers["haiku"] = "Here is the JSON that you asked for: {}"
    answers["sonnet"] = "{}"
    text, _ = await read(proof, output_config={"format": JSON_SCHEMA})
    assert (text, proof.models) == ("{}", ["haiku", "sonnet"])
    assert "haiku: it does not begin as JSON" in proof.reasons()
    answers["haiku"] = '{"as far as it goes": ' + "1" * 400
    text, _ = await read(proof, output_config={"format": JSON_SCHEMA})
    assert proof.models[2:] == ["haiku"]


async def test_an_error_before_the_first_word(proof: Proof, fake: FakeClaude) -> None:
    """A stream that begins with an error of the API is given again by the next tier; nothing is learned from that."""
    fake.script(Fault.error_event(after=1))
    text, events = await read(proof)
    assert (text, events[0]) == (GOOD, "message_start")
    assert roles(proof) == [("haiku", "first", "overloaded_error"), ("sonnet", "escalation", "ok")]


async def test_broken_off_before_the_first_word(proof: Proof, fake: FakeClaude, answers: Answers) -> None:
    """The same where the connection ends; with nobody above, the app meets what the stream met."""
    fake.script(Fault.reset_after(1), Fault.clean_eof(1), model=HAIKU)
    answers["haiku"] = GOOD
    assert (await read(proof))[0] == GOOD
    assert [outcome for _, _, outcome in roles(proof)] == ["connection_error", "ok"]
    assert (await read(proof))[0] == GOOD
    assert [outcome for _, _, outcome in roles(proof)] == ["truncated", "ok"]
    fake.script(Fault.reset_after(1))
    with policy(floor="opus"), pytest.raises((anthropic.APIError, httpx2.HTTPError)):
        await read(proof)


async def test_no_money_for_the_next_tier(proof: Proof, answers: Answers) -> None:
    """The stream that there is goes through, whole, though its beginning is poor."""
    proof.options["budgets"] = [Budget("$0.004/day", downgrade_at=None, cheapest_at=None)]
    text, events = await read(proof)
    assert (text, events[-1]) == (answers["haiku"], "message_stop")
    assert roles(proof) == [("haiku", "first", "ok")]
    assert "no escalation to sonnet: budget $0.004/day refused" in proof.reasons()


async def test_the_next_tier_fails(proof: Proof, answers: Answers, fake: FakeClaude) -> None:
    """A stream that was left for it is asked for once more, and not checked again; a whole one is handed over."""
    fake.always(SONNET, Fault.overloaded())
    text, _ = await read(proof)
    assert text == answers["haiku"]
    assert roles(proof) == [
        ("haiku", "first", "closed"),
        *[("sonnet", role, "overloaded_error") for role in ("escalation", "retry", "retry")],
        ("haiku", "fallback", "ok"),
    ]
    answers["haiku"] = "I'm not sure."
    text, events = await read(proof)
    assert (text, events[-1]) == ("I'm not sure.", "message_stop")
    assert [tier for tier, _, _ in roles(proof)].count("haiku") == 1
    assert proof.decisions[-1].tier == "haiku"


async def test_a_stream_of_bedrock(proof: Proof, fake: FakeClaude, fake_url: str, answers: Answers) -> None:
    """The frames of Amazon Bedrock are looked at and handed over like events."""
    pytest.importorskip("botocore")
    answers["haiku"] = answers["sonnet"] = "I'm not sure."
    proof.options["ladder"] = Ladder.of(
        haiku="us.anthropic.claude-haiku-4-5-20251001-v1:0",
        sonnet="global.anthropic.claude-sonnet-5-5",
        opus="apac.anthropic.claude-opus-5-5-v1:0",
    )
    bedrock = anthropic.AsyncAnthropicBedrock(api_key=fake.api_key, aws_region="us-east-1", base_url=fake_url)
    async with bedrock, proof.bound():
        client: Any = attach(bedrock, proof.router)
        events = [event async for event in await client.messages.create(**STREAM)]
    assert "".join(e.delta.text for e in events if getattr(getattr(e, "delta", None), "text", "")) == GOOD
    assert [tier for tier, _, _ in roles(proof)] == ["haiku", "sonnet", "opus"]
    assert "haiku: it says that it is not sure" in proof.reasons()


async def test_nobody_is_left_to_ask(proof: Proof, fake: FakeClaude) -> None:
    """Where the stream was let go, the next tier fails and the first does too, the app gets the API's error."""
    fake.script(OK, Fault.overloaded(), Fault.error(400))
    client = proof.router.claude.with_options(max_retries=0)
    async with proof.bound():
        with policy(ceiling="sonnet"), pytest.raises(anthropic.APIStatusError):
            await client.messages.create(**STREAM)
    assert [role for _, role, _ in roles(proof)] == ["first", "escalation", "fallback"]


async def test_a_beginning_that_is_too_long(proof: Proof, answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not told within the bytes that may be held, thoughts included, goes through."""
    monkeypatch.setattr(FirstPart, "most", 400)
    assert (await read(proof))[0] == answers["haiku"]
    assert proof.models == ["haiku"]


async def test_what_cannot_be_looked_at(
    proof: Proof, answers: Answers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that is not to be decoded goes through, and the decision tells that it was not checked."""

    async def more(held: HeldAnswer) -> bytes | None:
        raise ValueError("canary")

    monkeypatch.setattr(HeldAnswer, "more", more)
    caplog.set_level(logging.DEBUG, "tierline")
    assert (await read(proof))[0] == answers["haiku"]
    assert "the answer was not checked: ValueError" in proof.reasons()
    assert "canary" not in proof.reasons()
    assert "canary" not in caplog.text


class _Lines(httpx2.SyncByteStream):
    def __init__(self, *parts: bytes | Exception) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part


def test_what_is_held_of_a_synchronous_stream() -> None:
    """The same in a thread: parts that were taken, the rest, the error or the end."""
    stream = _BlockingHeld(_Lines(b"a", b"b"))
    assert stream.take() == b"a"
    assert list(stream) == [b"a", b"b"]
    assert list(_BlockingHeld(_Lines(b"a", b"b"))) == [b"a", b"b"]
    stream = _BlockingHeld(_Lines(b"a"))
    assert [stream.take(), stream.take()] == [b"a", None]
    assert list(stream) == [b"a"]
    stream = _BlockingHeld(_Lines(b"a", httpx2.ReadError("gone")))
    stream.take()
    with pytest.raises(httpx2.ReadError):
        stream.take()
    rest = iter(stream)
    assert next(rest) == b"a"
    with pytest.raises(httpx2.ReadError):
        next(rest)


async def test_bytes_of_the_last_attempt(proof: Proof, fake: FakeClaude, fake_url: str, answers: Answers) -> None:
    """Every byte that the API sent in the last attempt reaches the app, in order, and no other."""
    answers["sonnet"] = GOOD
    body = {**STREAM, "model": SONNET}
    headers = {"x-api-key": fake.api_key, "anthropic-version": "2023-06-01"}
    async with httpx2.AsyncClient() as plain:
        direct = (await plain.post(f"{fake_url}/v1/messages", json=body, headers=headers)).content
    async with proof.bound():
        create = proof.router.claude.messages.with_streaming_response.create
        async with create(**STREAM) as response:
            routed = b"".join([part async for part in response.iter_bytes()])

    def plain_of(stream: bytes) -> bytes:
        start = json.loads(stream.split(b"data: ", 1)[1].split(b"\n", 1)[0])
        return stream.replace(start["message"]["id"].encode(), b"id")

    assert plain_of(routed) == plain_of(direct)
    proof.fake.requests.clear()
    proof._router = None  # the direct request is on no budget


async def test_nothing_is_held_where_nothing_is_looked_for(proof: Proof, answers: Answers) -> None:
    """With `hold=0` streams do not escalate at all: they are judged as any other call."""
    with policy(escalate=Escalate(hold=0)):
        await read(proof)
    assert proof.models == ["sonnet"]


async def test_the_first_bytes_do_not_wait_for_the_last(proof: Proof, answers: Answers, fake: FakeClaude) -> None:
    """When it is known how the answer begins, the app reads: a stream that then hangs is the app's to wait for."""
    answers["haiku"] = GOOD
    fake.script(Fault.hang(after=40))
    async with proof.bound():
        stream = await proof.router.claude.messages.create(**STREAM, thinking={"type": "disabled"})
        first = await anext(aiter(stream))
        await stream.close()
    assert first.type == "message_start"
    assert roles(proof) == [("haiku", "first", "closed")]


async def test_cancelled_while_it_is_held(proof: Proof, fake: FakeClaude, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was held is charged as far as it came, and the connection is let go."""
    fake.script(Fault.hang(after=2))
    holding, more = asyncio.Event(), HeldAnswer.more

    async def noted(held: HeldAnswer) -> bytes | None:
        holding.set()
        return await more(held)

    monkeypatch.setattr(HeldAnswer, "more", noted)
    task = asyncio.create_task(read(proof))
    await holding.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [tier for tier, _, _ in roles(proof)] == ["haiku"]
    assert roles(proof)[0][2] in ("client_disconnected", "cancelled")


@pytest.mark.parametrize("taken", [0, 3])
async def test_a_stream_that_is_dropped(proof: Proof, answers: Answers, taken: int) -> None:
    """One that was held and then handed over ends like any other that nobody closes."""
    answers.clear()
    async with proof.bound():
        stream = await proof.router.claude.messages.create(**STREAM)
        events = aiter(stream)
        for _ in range(taken):
            await anext(events)
        del stream, events
        gc.collect()
    assert [tier for tier, _, _ in roles(proof)] == ["haiku"]
    assert roles(proof)[0][2] in ("abandoned", "closed", "client_disconnected")


async def test_a_shutdown_while_it_is_held(proof: Proof, fake: FakeClaude) -> None:
    """What is cut off from here is no poor answer: no other tier is asked on the way down."""
    fake.script(Fault.hang(after=2))
    task = asyncio.create_task(read(proof))
    await fake.until(lambda requests: requests)
    while not any(attempt.reader is not None for attempt in proof.router.books._open):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    await proof.router.books.close(1.0)
    with pytest.raises((anthropic.APIError, httpx2.HTTPError, httpx2.StreamError)):
        await task
    assert roles(proof) == [("haiku", "first", "shutdown")]


async def test_a_call_of_a_tool(proof: Proof, answers: Answers) -> None:
    """A tool that is called is an answer: it goes through as soon as it begins."""
    answers["haiku"] = Reply(text="I'm not sure; I look.", tool="look")
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
    _, events = await read(proof, tools=[tool])
    assert proof.models == ["haiku"]
    assert events[-1] == "message_stop"


async def test_a_gzipped_stream(proof: Proof) -> None:
    """What cannot be decoded on the side is not looked at, and goes through."""
    raw = httpx2.Response(200, headers={"content-encoding": "br"}, stream=_Parts(b"a", b"b"))
    held = HeldAnswer(raw, None)
    with pytest.raises(ValueError, match="encoding"):
        await held.more()
    assert [part async for part in raw.stream] == [b"a", b"b"]  # type: ignore[union-attr]


class _Parts(httpx2.AsyncByteStream):
    def __init__(self, *parts: bytes | Exception) -> None:
        self.parts = iter(parts)
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part = next(self.parts, None)
        if part is None:
            raise StopAsyncIteration
        if isinstance(part, Exception):
            raise part
        return part

    async def aclose(self) -> None:
        self.closed = True


async def test_what_is_held_comes_first() -> None:
    """Parts that were taken, then the rest, then the error or the end that was met, once."""
    raw = httpx2.Response(200, stream=_Parts(b"a", b"b", b"c"))
    held = HeldAnswer(raw, None)
    assert [await held.more(), await held.more()] == [b"a", b"b"]
    assert [part async for part in raw.stream] == [b"a", b"b", b"c"]  # type: ignore[union-attr]
    broken = httpx2.Response(200, stream=_Parts(b"a", httpx2.ReadError("gone")))
    held = HeldAnswer(broken, None)
    await held.more()
    with pytest.raises(httpx2.ReadError):
        await held.more()
    rest = aiter(broken.stream)  # type: ignore[arg-type]
    assert await anext(rest) == b"a"
    with pytest.raises(httpx2.ReadError):
        await anext(rest)
    ended = httpx2.Response(200, stream=_Parts(b"a"))
    held = HeldAnswer(ended, None)
    assert [await held.more(), await held.more()] == [b"a", None]
    assert [part async for part in ended.stream] == [b"a"]  # type: ignore[union-attr]


EVENTS = [
    {"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "I"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "'m not sure"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]


def frame(event: dict[str, Any]) -> bytes:
    payload = json.dumps({"bytes": b64encode(json.dumps(event).encode()).decode()}).encode()
    return EventStreamReader._PRELUDE.pack(16 + len(payload), 0) + b"\0" * 4 + payload + b"\0" * 4


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_first_parts(size: int) -> None:
    """Server-sent events and frames of Bedrock are read wherever they are cut, a whole answer at its end."""
    sse = b"".join(f"event: {e['type']}\r\ndata: {json.dumps(e)}\r\n\r\n".encode() for e in EVENTS)
    for reader, data in ((StreamReader(Terms()), sse), (EventStreamReader(Terms()), b"".join(map(frame, EVENTS)))):
        part = first_part_of(reader)
        seen = []
        for at in range(0, len(data), size):
            part.feed(data[at : at + size])
            seen.append(part.answer)
        assert seen[-1] == Answer("I'm not sure", "end_turn")
        assert size > 7 or Answer("I", whole=False) in seen
    whole = first_part_of(WholeReader(Terms()))
    whole.feed(b'{"content": [{"type": "text", "text": "I"}], "stop_reason": "end_turn"}')
    assert (whole.answer, whole.document) == (Answer("", whole=False), None)
    whole.ended()
    assert whole.answer == Answer("I", "end_turn")


@pytest.mark.parametrize(
    "data", [b"", b"\n\n\n\n", b"data: [1]\n\ndata: {\n\n", b'data: {"type": "error"}\n\n', b"\xff" * 99]
)
def test_first_parts_of_nonsense(data: bytes) -> None:
    """Whatever comes, it is read or it says nothing; and no more is held than may be."""
    for reader in (StreamReader(Terms()), EventStreamReader(Terms())):
        part = first_part_of(reader)
        part.feed(data)
        assert part.answer == Answer("", whole=False)
        assert not part.full
        part.feed(b" " * MOST_BYTES)
        assert part.full or not data
    broken = first_part_of(StreamReader(Terms()))
    broken.feed(b'data: {"type": "error", "error": {"type": "overloaded_error"}}\n\n')
    assert broken.answer == Answer("", whole=False, error="overloaded_error")


async def test_a_script_of_faults(proof: Proof, fake: FakeClaude) -> None:
    """An escalated stream that breaks in its midst is the app's error, settled once."""
    fake.script(OK, Fault.error_event(after=40))
    async with proof.bound():
        stream = await proof.router.claude.messages.create(**STREAM, thinking={"type": "disabled"})
        with pytest.raises(anthropic.APIStatusError):
            [event async for event in stream]
    assert roles(proof) == [("haiku", "first", "closed"), ("sonnet", "escalation", "overloaded_error")]
