"""JSON, texts and bodies that are not what they seem: F of the hostile catalogue, 81 to 83."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from anthropic import AnthropicError, AsyncAnthropic

from example_app.main import build
from example_app.people import OPERATOR_KEY, PAGE_TOKEN
from tests.redis_server import redis_server
from tests.serving import serving
from tierline import Budget, Router, policy
from tierline.call import read_call, view_of
from tierline.classify import ClaudeClassifier, default_classifier
from tierline.errors import ConfigurationError, TierlineError
from tierline.ladder import DEFAULT_LADDER
from tierline.policies import combine
from tierline.testing import Fault
from tierline.usage import LONGEST_FRAME, MOST_BUFFERED, StreamReader, WholeReader, decoder_for
from tierline.values import Terms, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

DEEP = 20_000
HELD = combine([policy()], DEFAULT_LADDER)


def deep(levels: int = DEEP, key: str | None = None) -> Any:
    """Lists, or objects, in each other."""
    found: Any = 1
    for _ in range(levels):
        found = [found] if key is None else {key: found}
    return found


def flat(found: Any) -> None:
    """Take it apart from outside: to let go of so deep a thing at once takes the interpreter's stack."""
    while isinstance(found, (list, dict)) and found:
        found = found.pop() if isinstance(found, list) else found.popitem()[1]


NUMBERS: list[Any] = [
    True, False, float("nan"), float("inf"), -0.0, 1e400, 1.0, "8", "", None, [], {}, -1, 0, 10**9 + 1, 10**400,
    "１", b"8",
]  # fmt: skip
FIELDS: list[dict[str, Any]] = [
    *({"max_tokens": n} for n in NUMBERS),
    *({name: n} for name, n in product(("temperature", "top_k", "stream", "stop_sequences", "thinking"), NUMBERS[:8])),
    {"metadata": {"n": float("nan")}}, {"metadata": deep(60)}, {"tools": deep(40)}, {"system": deep(40)}, {"tools": 1},
    {"tools": [None, 1, "x", [], {"type": 1}, {"type": ["web_search"]}]}, {"system": 1}, {"system": [1, {"text": 2}]},
    {"tools": [{"type": "web_search_20260209", "name": "s", "max_uses": n} for n in (True, float("nan"), 1e400, "1")]},
    {"messages": []}, {"messages": "hi"}, {"messages": [1]}, {"messages": [None]}, {"messages": [{"role": "user"}]},
    {"messages": [{"role": 1, "content": 1}]},
    {"messages": [{"content": [[], {}, None, {"type": "text", "text": 1}]}]},
    {"messages": [{"role": "user", "content": deep(50)}]},
    {"messages": [{"role": "user", "content": deep(50, "text")}]},
    {"thread": {"previous_message_id": [1]}}, {"fallbacks": [{"model": 1}]}, {"fallbacks": 7}, {"cache_control": 1},
    {"context_management": {"edits": [{"type": 1}, None]}}, {"output_config": {"effort": 1}}, {"output_format": 1},
]  # fmt: skip


@pytest.mark.parametrize("classifier", [ClaudeClassifier, default_classifier])
async def test_json_depth_nan_bool_dupkeys(make_router: MakeRouter, fake: FakeClaude, classifier: Any) -> None:
    """81: whatever types a body is made of, the app gets an answer or an error, and the books are right."""
    router = make_router(classifier=classifier(), budgets=[Budget("$90")])
    usual = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    for fields in FIELDS:
        body = usual | fields
        call = read_call("create", body)
        if call is not None:
            assert len(view_of(call, HELD).text) <= 4_000
        # An error is the SDK's, or the API's, and none that shows that somebody did not look.
        with suppress(AnthropicError, TierlineError, TypeError, ValueError, OverflowError, RecursionError):
            answer = await router.claude.messages.create(**body)
            if body.get("stream"):
                async for _ in answer:
                    pass
        (balance,) = await router.balances()
        assert balance.held == 0, fields
    assert balance.spent >= fake.billed > 0
    await router.claude.messages.create(**usual)


@pytest.mark.parametrize("key", [None, "text", "content"])
async def test_bottomless_json(make_router: MakeRouter, fake: FakeClaude, key: str | None) -> None:
    """81: what is nested too deeply to be sent is refused by whoever writes it down, and nothing is held for it."""
    router = make_router(classifier=default_classifier(), budgets=[Budget("$90")], cache_prompt=True)
    for name in ("content", "system", "tools"):
        bottomless = deep(DEEP, key)
        body: dict[str, Any] = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        if name == "content":
            body["messages"] = [{"role": "user", "content": [bottomless]}]
        else:
            body[name] = [bottomless]
        assert read_call("create", body) is not None
        with pytest.raises(Exception):  # noqa: B017, PT011  (a RecursionError of the SDK's, or what it made of it)
            await router.claude.messages.create(**body)
        body.clear()
        flat(bottomless)
        # No more than a verdict, on what of it is text.
        assert [(each.held, each.spent) for each in await router.balances()] in ([], [(0, fake.billed)])
    assert all(request.body["max_tokens"] != 9 for request in fake.requests)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (
            b'{"usage": {"input_tokens": 1, "output_tokens": 2}, "usage": {"input_tokens": 5, "output_tokens": 6}}',
            (5, 6),
        ),
        (b'{"usage": {"input_tokens": 1, "output_tokens": 2}, "usage": null}', None),
        (b'{"usage": {"input_tokens": true, "output_tokens": 2}}', None),
        (b'{"usage": {"input_tokens": NaN, "output_tokens": 2}}', None),
        (b'{"usage": {"input_tokens": 1e400, "output_tokens": 2}}', None),
        (b'{"usage": {"input_tokens": 1.0, "output_tokens": 2}}', None),
        (b'{"usage": {"input_tokens": 1' + b"0" * 5_000 + b', "output_tokens": 2}}', None),
        (b"[" * DEEP, None),
        (b'{"usage":' * DEEP, None),
        (b'{"usage": ' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}", None),
        (b"\xff\xfe{}", None),
        (b'"\\ud800"', None),
    ],
)
def test_usage_that_is_none(raw: bytes, found: tuple[int, int] | None) -> None:
    """81: of usage that is no whole numbers nothing is believed; of what stands twice the last is, as the SDK does."""
    readers: list[Any] = [WholeReader(Terms()), StreamReader(Terms())]
    readers[0].feed(raw)
    start = b'event: message_start\ndata: {"type": "message_start", "message": ' + raw + b"}\n\n"
    readers[1].feed(start)
    for reader in readers:
        assert (reader.seen and reader.seen.usage) == (found and Usage(*found))


@pytest.fixture
async def desk(fake: FakeClaude, thread_url: str) -> AsyncIterator[str]:
    """The example app behind a server."""
    async with AsyncAnthropic(api_key=fake.api_key, base_url=thread_url) as client, serving(build(client)) as url:
        yield url


RAW = [
    b'{"text": "hi", "text": "ho"}', b'{"text": NaN}', b'{"text": "hi", "x": NaN}', b'{"text": "hi", "x": 1e400}',
    b'{"text": true}', b'{"text": ["hi"]}', b'{"text": "\\ud800"}', b'{"text": "a\\udfffb"}', b'{"text": "\\u0000"}',
    b'{"text": "\\u202e\\u2066evil\\u2069"}', '{"text": "z\u200be\u200dr\ufeffo"}'.encode(), b'{"text": "\xff"}',
    b'{"text": "hi", "history": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", b"[" * 90_000, b'{"a":' * 90_000, b"",
    b"null",
    b'{"text": "hi"}' + b" " * 100_000, b'\xef\xbb\xbf{"text": "hi"}', b'{"text": "hi"}\x00', b'{"handle": "\\ud800"}',
    b'{"handle": "x", "good": true}', b'{"handle": "' + b"x" * 3_999 + b'", "good": false}',
    b'{"text": "' + b"y" * 10**6 + b'"}',
]  # fmt: skip


async def test_json_of_remote_clients(desk: str, fake: FakeClaude, caplog: pytest.LogCaptureFixture) -> None:
    """81, 82: over a socket, none of it is an error of the app's, and all that was called is charged."""
    headers = {"authorization": "Bearer desk-acme", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=desk, headers=headers, timeout=60) as http:
        for path, raw in product(("/answer", "/summary", "/order", "/grade"), RAW):
            found = await http.post(path, content=raw)
            assert found.status_code in (200, 400, 402, 422, 429), (path, raw[:60], found.text[:200])
        operator = {"authorization": f"Bearer {OPERATOR_KEY}"}
        balances = (await http.get("/operator/balances", headers=operator)).json()
    assert all(each["held"] == 0 for each in balances)
    assert sum(each["spent"] for each in balances if each["account"] == "global") >= fake.billed > 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


ODD = [
    "\ud800",
    "a\udfffb",
    "\u202eevil",
    "ze\u200bro",
    "\u2066x\u2069",
    "\ufeffx",
    "x\0y",
    "x\r\ny",
    "\x1b[2J",
    "x" * 10**6,
]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where balances are kept."""
    if request.param == "redis":
        with redis_server() as server:
            yield server.url
    else:
        yield "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'tierline.db'}"


async def test_lone_surrogate_bidi_zero_width(make_router: MakeRouter, fake: FakeClaude, store: str) -> None:
    """82: as a text they are sent or refused by the SDK, as a name they are refused; nothing is held for them."""
    router = make_router(
        classifier=default_classifier(), budgets=[Budget("$9", per="tenant", name="each")], store=store, traffic=True
    )
    for text in ODD:
        async with router.bind(tenant="acme", route="/answer") as binding:
            binding.conversation = text
            said: list[Any] = [{"role": "user", "content": text}]
            try:
                await router.claude.messages.create(model="auto", max_tokens=9, system=text, messages=said)
            except UnicodeEncodeError:
                assert not text.isascii()
    for name in ODD:
        for bound in ({"tenant": name}, {"run": name}):
            with pytest.raises(ConfigurationError):
                async with router.bind(**bound):
                    await router.claude.messages.create(
                        model="auto", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
                    )
        with pytest.raises(ConfigurationError):
            Budget("$1", name=name)
        assert await router.grade(name, True) is False
        assert await router.balances(name) == []
        with pytest.raises(ConfigurationError, match="an account is text"):
            await router.erase(name)
        with pytest.raises(ConfigurationError, match="an account is text"):
            await router.set_limit("each", name, limit="$1")
    async with router.bind(tenant="acme"):
        await router.claude.messages.create(model="auto", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    balances = await router.balances()
    assert {each.account for each in balances if each.spent} == {"acme"}
    assert (sum(each.held for each in balances), sum(each.spent for each in balances)) == (0, fake.billed)


async def chunks(url: str, path: str, headers: dict[str, str], size: int, most: int) -> int:
    """Send a body in chunks without end; the status of the answer that stops it, 0 where it is hung up on."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"POST {path} HTTP/1.1\r\nhost: {place.netloc}\r\ntransfer-encoding: chunked\r\n{head}\r\n".encode())
    chunk = b"%x\r\n%s\r\n" % (size, b"x" * size)
    answer = asyncio.ensure_future(reader.readline())
    try:
        for _ in range(most // size):
            if answer.done():
                break
            writer.write(chunk)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        line = await answer
    except ConnectionError:
        line = await answer if answer.done() else b""
    finally:
        answer.cancel()
        writer.close()
    return int(line.split()[1]) if line else 0


async def test_body_bomb_chunked(desk: str, fake: FakeClaude) -> None:
    """83: a body without a length and an end fills no memory of Tierline's pages, and keeps nobody else waiting."""
    tracemalloc.start()
    try:
        bombs = [
            chunks(desk, "/operator/page/", {"content-type": "application/x-www-form-urlencoded"}, 65_536, 40_000_000),
            chunks(desk, "/operator/page/api/limit", {"authorization": f"Bearer {PAGE_TOKEN}"}, 65_536, 40_000_000),
            # Whether its own endpoints take a body is the app's; in front of them nothing of it is read.
            chunks(desk, "/answer", {"authorization": "Bearer nobody"}, 65_536, 4_000_000),
        ]
        async with httpx.AsyncClient(base_url=desk, timeout=60) as http:
            going = asyncio.gather(*bombs)
            for _ in range(5):
                assert (await http.get("/ready")).status_code == 200
            statuses = await going
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert set(statuses) <= {0, 400, 401, 403, 404, 405, 413, 415, 422}
    assert most < 20_000_000
    assert fake.requests == []


def test_body_bomb_of_the_upstream() -> None:
    """83: nor does an answer without an end: of one event a megabyte is kept, of a whole answer 32."""
    event = StreamReader(Terms())
    event.feed(b'event: message_start\ndata: {"type": "message_start", "message": {"usage": {"input_tokens": 3, ')
    event.feed(b'"output_tokens": 1}}}\n\nevent: content_block_delta\ndata: {"type": "')
    for _ in range(400):
        event.feed(b"y" * 65_536)
        assert len(event._tail) <= LONGEST_FRAME + 65_536
    assert event.cut
    assert 400 * 65_536 <= (event.cut_bound or 0) <= 401 * 65_536
    # What follows is told apart again.
    event.feed(b'"}\n\nevent: message_delta\ndata: {"type": "message_delta", "usage": {"output_tokens": 7}}\n\n')
    assert event.seen is not None
    assert event.seen.usage == Usage(3, 7)

    whole = WholeReader(Terms())
    for _ in range(MOST_BUFFERED // 2**20 + 40):
        whole.feed(b"y" * 2**20)
    assert sum(map(len, whole._parts)) <= MOST_BUFFERED
    assert whole.seen is None

    decode = decoder_for("gzip")
    assert decode is not None
    bomb = gzip.compress(b'{"a": "' + b"y" * 60_000_000 + b'"}')
    zipped = WholeReader(Terms())
    for at in range(0, len(bomb), 1_000):
        zipped.feed(decode(bomb[at : at + 1_000]))
    assert sum(map(len, zipped._parts)) <= MOST_BUFFERED


async def test_answers_that_lie(make_router: MakeRouter, fake: FakeClaude) -> None:
    """81: usage of odd types over a real connection: the whole reservation is charged, marked as an estimate."""
    for fields in ({"input_tokens": True}, {"output_tokens": -5}, {"output_tokens": "7"}, {"input_tokens": 10**12}):
        router = make_router(budgets=[Budget("$9")])
        fake.script(Fault.usage(**fields))
        async with router.bind() as binding:
            await router.claude.messages.create(
                model="auto", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
            )
        (balance,) = await router.balances()
        assert (balance.held, binding.decisions[-1].estimated) == (0, True), json.dumps(fields)
        assert 0 < balance.spent < 10**9
