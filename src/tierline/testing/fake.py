"""FakeClaude: the Messages API, offline, for tests and demos."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from tierline.errors import ConfigurationError
from tierline.testing._batches import MOST_BYTES, Batches, target_of
from tierline.testing._bill import bill, load_prices
from tierline.testing._book import Book
from tierline.testing._brain import count_tokens, draft_of, message_of, read_prompt, reply_to, spent
from tierline.testing._cache import PromptCache
from tierline.testing._catalogue import model_info, model_page
from tierline.testing._limits import Limits
from tierline.testing._log import Received
from tierline.testing._outgoing import Frame, Outgoing, broken, error_answer, json_answer, message_answer
from tierline.testing._platforms import Door, door_of
from tierline.testing._problem import Problem, invalid
from tierline.testing._request import (
    Gone,
    check_headers,
    decode,
    lifespan,
    path_of,
    query_of,
    read_body,
    shown,
    until_gone,
)
from tierline.testing._rules import MODELS
from tierline.testing._serve import RESET, serving, serving_in_thread
from tierline.testing._threads import Threads
from tierline.testing._verdict import heuristic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from anthropic import AsyncAnthropic
    from starlette.types import Receive, Scope, Send

    from tierline.classify.comparison import Comparison
    from tierline.classify.rating import Rating
    from tierline.testing._answer import Draft, Reply
    from tierline.testing._batches import Batch, Target
    from tierline.testing._brain import Prompt
    from tierline.testing._cache import Share
    from tierline.testing._faults import Fault

_KEY: Final = "sk-ant-fake-0000"
_ORGANIZATION: Final = "00000000-0000-4000-8000-00000000c1ad"


@dataclass(slots=True)
class _Exchange:
    """One request on its way through: what it is, and what would be billed if it ended now."""

    received: Received
    number: int
    began: float
    door: Door
    prompt: Prompt | None = None
    share: Share | None = None
    draft: Draft | None = None
    tokens: int = 0


class FakeClaude:
    """The Messages API without a network: it checks, counts, caches, bills and fails as the real one does.

    Serve it on a free port, and point any client of the SDK at it::

        fake = FakeClaude()
        async with fake.serve() as url:
            client = AsyncAnthropic(api_key=fake.api_key, base_url=url)
            message = await client.messages.create(
                model="claude-haiku-4-5", max_tokens=200, messages=[{"role": "user", "content": "Hello"}]
            )
        assert fake.requests[0].model == "claude-haiku-4-5"
        assert fake.billed == fake.requests[0].billed > 0          # nano-USD

    `with fake.serve_in_thread() as url:` does the same for programs without a loop. `fake.client()` needs no socket
    at all, but gives a stream only when it is whole. The object is also an ASGI app, to mount anywhere.

    Say what it says; None is the default answer, and a `Reply` calls tools, refuses, or spends tokens and time::

        FakeClaude(answer=lambda received: "Paris")
        FakeClaude(answer=lambda received: Reply(tool="search", input={"q": "Paris"}))
        FakeClaude(verdict=lambda text, labels: ("complex", 0.9))      # what it says to Tierline's classifier
        FakeClaude(judge=lambda asked: "A" if len(asked.a) > len(asked.b) else "B")      # of two answers; or "same"
        FakeClaude(grade=lambda asked: 2 if "maybe" in asked.answer else 5)      # of an answer that is graded, 1 to 5

    Make it fail: the steps of a script are met by the next requests, one each, `always` by those after them::

        fake.script(Fault.overloaded(), OK, Fault.reset_after(events=3))
        fake.always("claude-opus-5-5", Fault.rate_limit(retry_after=1))
        fake.clear()

    It is served under the paths of other platforms too, with their model ids, streams, errors and prices: to the
    SDK's clients for Bedrock and Vertex its URL is `base_url`, to those for Mantle and Foundry `f"{url}/anthropic"`.
    A request that is signed for AWS has the key as its access key; any secret will do.

    Message Batches are processed `batch_delay` seconds after they came, by the fake's clock, which `advance` sets
    forward, and billed at half price. What becomes of single requests is said by `batch_outcome`::

        FakeClaude(batch_delay=3600, batch_outcome=lambda custom_id, params: Fault.overloaded())  # or "expired"
        fake.advance(3600)
        fake.script(Fault.reset_after(0), path="/v1/messages/batches")  # a batch that is taken, and not answered

    The other paths of batches are written `GET /v1/messages/batches`, and `/v1/messages/batches/{id}` with `/cancel`
    or `/results` behind it, for a script.

    What it is true to: request and stream formats, headers, error types, what each model rejects, thinking that is on
    by default and spends `max_tokens`, prompt caching with its minimums and TTLs, message threads, and list prices.
    What it is not: a language model, or a tokenizer (it counts bytes). Equal requests get equal answers; with a
    `seed`, others.

    - `api_key`: the only key that is accepted, as `x-api-key`, as a bearer token or as an AWS access key
    - `latency`: seconds before the first byte, for all models or by model id
    - `chunk_delay`: seconds between the events of a stream
    - `keep`: how many requests the log holds; older ones are dropped, `billed` stays exact
    - `aliases`: further model ids, each with the known model that it behaves and is billed as
    - `inference_geo`: where requests run that do not say; "us" is billed at 1.1
    - `batch_delay`: seconds after which a batch is processed; more than 24 hours, and it expires
    - `batch_outcome`: what becomes of a request of a batch, by its custom id and params: `"expired"`, `"canceled"`, a
      `Fault` with an error, or None for an answer
    - `limits`: what each model takes in a minute, such as `{"requests": 50, "input-tokens": 50_000, "output-tokens":
      10_000}`: what is more is answered with a 429. By default the headers inform, and nothing is refused
    - `clock` and `sleep`: the time of TTLs, latencies and batches, so that a test need not wait

    Raises ConfigurationError for what cannot work.
    """

    def __init__(
        self,
        *,
        answer: Callable[[Received], str | Reply | None] | None = None,
        verdict: Callable[[str, Sequence[str]], tuple[str, float] | str] = heuristic,
        judge: Callable[[Comparison], str] = lambda _: "same",
        grade: Callable[[Rating], int | str] = lambda _: 4,
        api_key: str = _KEY,
        latency: float | Mapping[str, float] = 0.0,
        chunk_delay: float = 0.0,
        keep: int = 10_000,
        aliases: Mapping[str, str] | None = None,
        inference_geo: str = "global",
        seed: int | None = None,
        batch_delay: float = 0.0,
        batch_outcome: Callable[[str, Mapping[str, Any]], Fault | str | None] | None = None,
        limits: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
    ) -> None:
        for alias, model in (aliases or {}).items():
            if model not in MODELS:
                raise ConfigurationError(f"aliases: {alias!r} is to be {model!r}, which is none of {sorted(MODELS)}")
        if inference_geo not in ("us", "global"):
            raise ConfigurationError(f"inference_geo: {inference_geo!r} is neither 'us' nor 'global'")
        self.api_key = api_key
        self.answer = answer
        self.verdict = verdict
        self.judge = judge
        self.grade = grade
        self._latency = latency
        self._chunk_delay = chunk_delay
        self._aliases = dict(aliases or {})
        self._geo = inference_geo
        self._seed = seed
        self._ahead = 0.0
        self._clock = self._shifted(clock)
        self._sleep = sleep
        self._book = Book(keep, self._clock)
        self._batches = Batches(self._clock, batch_delay, self._batched, self._book.charge, batch_outcome)
        self._limits = Limits(limits, self._clock) if limits else None
        self._cache = PromptCache()
        self._threads = Threads()

    def _shifted(self, clock: Callable[[], float]) -> Callable[[], float]:
        return lambda: clock() + self._ahead

    @property
    def requests(self) -> list[Received]:
        """What was received, oldest first: a new list of the live entries."""
        return self._book.requests

    @property
    def billed(self) -> int:
        """What everything would have cost until now, in nano-USD."""
        return self._book.billed

    @property
    def batches(self) -> list[Batch]:
        """The Message Batches that have not been deleted, oldest first, as they are now."""
        return self._batches.all()

    def advance(self, seconds: float) -> None:
        """Set the fake's clock forward."""
        self._ahead += seconds

    def script(self, *steps: Fault, model: str | None = None, path: str = "/v1/messages") -> None:
        """Queue what the next requests (with this model, or any) meet, one step each.

        A request with a good key and good JSON takes the first step that is meant for its model and path, even if it
        is then rejected for its content. The other path is `/v1/messages/count_tokens`.
        """
        self._book.script(steps, model, path)

    def always(self, model: str | None, fault: Fault) -> None:
        """Let all messages to this model (None: to every model) meet the fault, when no step is queued for them."""
        self._book.always(model, fault)

    def clear(self) -> None:
        """Forget all steps and all faults that were set with `always`."""
        self._book.clear()

    async def idle(self) -> None:
        """Wait until every request has ended, also those whose client has left. Needs asyncio."""
        await self._book.idle()

    async def until(self, condition: Callable[[list[Received]], object]) -> None:
        """Wait until something is true of the log: `await fake.until(lambda requests: len(requests) == 2)`.

        It is asked again when a request arrives, is about to be answered, has its headers sent and ends. Needs asyncio.
        """
        await self._book.until(lambda: condition(self.requests))

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> AbstractAsyncContextManager[str]:
        """Serve in the running asyncio loop, on a free port where none is said: `async with fake.serve() as url:`.

        Raises ConfigurationError without uvicorn, and OSError where the port is taken.
        """
        load_prices()
        return serving(self, host, port)

    def serve_in_thread(self, host: str = "127.0.0.1", port: int = 0) -> AbstractContextManager[str]:
        """Serve in a thread of its own, on a free port where none is said: `with fake.serve_in_thread() as url:`.

        `answer` and `verdict` are then called in that thread. Raises as `serve` does.
        """
        load_prices()
        return serving_in_thread(self, host, port)

    def client(self, **options: Any) -> AsyncAnthropic:
        """Return a client of the SDK that is connected without a socket; `options` are those of `AsyncAnthropic`.

        A stream arrives only when it is whole, so use `serve` where it matters when an event comes.
        """
        import httpx2  # noqa: PLC0415 - as below
        from anthropic import AsyncAnthropic  # noqa: PLC0415 - the fake itself needs no SDK

        if "http_client" not in options:
            options["http_client"] = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=self))
        return AsyncAnthropic(**{"api_key": self.api_key, "base_url": "http://fake-claude.invalid", **options})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI app."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
        elif scope["type"] == "http":
            headers = shown(scope["headers"])
            received = Received(path_of(scope), headers, idempotency_key=headers.get("idempotency-key"))
            exchange = _Exchange(received, self._book.open(received), self._clock(), door_of(received.path))
            try:
                await self._exchange(exchange, scope, receive, send)
            finally:
                if received.ended == "open":
                    self._finish(exchange, "disconnected")
                self._book.close()

    async def _exchange(self, exchange: _Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            outgoing = await self._decide(exchange, scope, receive)
        except Problem as problem:
            outgoing = error_answer(problem, _request_id(exchange), door=exchange.door)
        except Gone:
            return
        self._book.wake()
        reset = scope.get("extensions", {}).get(RESET)

        async def answer() -> None:
            await self._send(exchange, outgoing, send)
            if outgoing.then == "reset" and reset is not None:
                reset()
            if outgoing.then == "hang" or (outgoing.then == "reset" and reset is not None):
                await anyio.sleep_forever()

        stayed = await until_gone(receive, answer)
        if stayed and outgoing.then == "reset":
            # No socket to reset, so the app fails as a reset one would.
            raise ConnectionResetError("FakeClaude was told to reset this connection")

    async def _decide(self, exchange: _Exchange, scope: Scope, receive: Receive) -> Outgoing:
        """Route the request, and work out its answer. Raises the Problem that the API has with it."""
        received, door, method = exchange.received, exchange.door, scope["method"]
        if (target := target_of(method, door.path)) is not None:
            check_headers(scope["headers"], self.api_key, versioned=True)
            return await self._of_batches(exchange, target, scope, receive)
        name = door.path.removeprefix("/v1/models").strip("/")
        posted = door.path in ("/v1/messages", "/v1/messages/count_tokens")
        if not posted and door.path != f"/v1/models/{name}".rstrip("/"):
            raise Problem(404, "Not Found")
        if method != ("POST" if posted else "GET"):
            raise Problem(405, "Method Not Allowed")
        check_headers(scope["headers"], self.api_key, versioned=door.platform in ("anthropic", "hosted"))
        if not posted:
            return json_answer(model_info(name) if name else model_page(query_of(scope)))
        received.body = decode(await read_body(receive))
        body = door.whole(received.body)
        received.streamed = body.get("stream") is True
        received.model = body["model"] if isinstance(body.get("model"), str) else None
        fault = self._book.next_fault(received.model, door.path)
        if fault.kind == "error" or (fault.kind == "error_event" and not received.streamed):
            return error_answer(
                fault.problem(), _request_id(exchange), faulty=True, door=door, resets_in=fault.resets_in
            )
        if door.path.endswith("count_tokens"):
            return broken(json_answer({"input_tokens": count_tokens(body, self._names(door, body))}), fault)
        if fault.kind == "reset" and fault.after is None:
            return Outgoing(0, (), (), then="reset", faulty=True, free=True)
        return self._message(exchange, body, fault)

    async def _of_batches(self, exchange: _Exchange, target: Target, scope: Scope, receive: Receive) -> Outgoing:
        """A request about batches. A fault that strikes after the headers strikes when it has been done."""
        body = decode(await read_body(receive, MOST_BYTES)) if (target.method, target.id) == ("POST", "") else {}
        fault = self._book.next_fault(None, target.steps)
        if fault.kind == "error":
            return error_answer(fault.problem(), _request_id(exchange), faulty=True, door=exchange.door)
        if fault.kind == "reset" and fault.after is None:
            return Outgoing(0, (), (), then="reset", faulty=True, free=True)
        batches = self._batches
        if target.verb == "results":
            lines = batches.find(target.id).lines
            if not lines:
                raise invalid("The batch has no results yet")
            headers = (("content-type", "application/x-jsonl"),)
            return broken(Outgoing(200, headers, tuple(map(Frame, lines)), free=True), fault)
        if target.verb == "cancel":
            found = batches.cancel(target.id)
        elif target.id:
            found = batches.delete(target.id) if target.method == "DELETE" else batches.find(target.id).shown()
        else:
            found = batches.create(body) if target.method == "POST" else batches.page(query_of(scope))
        return broken(json_answer(found), fault)

    def _batched(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """The answer to a request of a batch, and what is billed for it. Raises the Problem that the API has."""
        for field in ("stream", "speed"):
            if params.get(field):
                raise invalid(f"{field}: not supported in a batch")
        prompt = read_prompt(params, self._aliases)
        received = Received("/v1/messages/batches", {}, params, str(params["model"]))
        reply = reply_to(
            prompt,
            received,
            answer=self.answer,
            verdict=self.verdict,
            judge=self.judge,
            grade=self.grade,
            seed=self._seed,
        )
        number = self._book.number()
        draft = draft_of(prompt, reply, f"toolu_fake{number:020d}")
        share = self._cache.visit(params, prompt.parts, prompt.rules, params["model"], self._clock())
        share = share if reply.input_tokens is None else share.of(reply.input_tokens)
        geo = str(params.get("inference_geo") or self._geo)
        message = message_of(prompt, draft, share, message_id=f"msg_fake{number:020d}", geo=geo)
        message["usage"]["service_tier"] = "batch"
        used = spent(share, draft, draft.output_tokens)
        return message, bill(prompt.rules.id, used, geo=geo if prompt.rules.geo else None, fast=False, batch=True)

    def _names(self, door: Door, body: Mapping[str, Any]) -> Mapping[str, str]:
        """What the body's model is known as, where that is not its own id."""
        model = body.get("model")
        return self._aliases if model in self._aliases else {**self._aliases, **door.names(model)}

    def _message(self, exchange: _Exchange, body: Mapping[str, Any], fault: Fault) -> Outgoing:
        number, door = exchange.number, exchange.door
        thread, body = body.get("thread"), self._threads.whole(body, self._clock())
        exchange.prompt = prompt = read_prompt(body, self._names(door, body))
        if self._limits is not None:
            self._limits.admit(body["model"], prompt.tokens)
        reply = reply_to(
            prompt,
            exchange.received,
            answer=self.answer,
            verdict=self.verdict,
            judge=self.judge,
            grade=self.grade,
            seed=self._seed,
        )
        exchange.draft = draft = draft_of(prompt, reply, f"toolu_fake{number:020d}")
        model = body["model"]
        share = self._cache.visit(body, prompt.parts, prompt.rules, model, self._clock())
        exchange.share = share = share if reply.input_tokens is None else share.of(reply.input_tokens)
        geo = str(body.get("inference_geo") or self._geo) if door.platform == "anthropic" else "not_available"
        message = message_of(prompt, draft, share, message_id=f"msg_fake{number:020d}", geo=geo)
        if thread is not None and draft.stop_reason != "refusal":
            self._threads.keep(message["id"], body, message["content"], self._clock())
        return message_answer(message, draft, streamed=exchange.received.streamed, fault=fault, door=door)

    async def _send(self, exchange: _Exchange, outgoing: Outgoing, send: Send) -> None:
        """Send the answer; the log has its end before the last byte is on its way."""
        received = exchange.received
        if outgoing.free:
            exchange.share = None
        delay = self._delay(exchange)
        if delay > 0 and exchange.door.path == "/v1/messages":
            await self._sleep(delay)
        if outgoing.status and (outgoing.frames or outgoing.then == "end"):
            received.status = outgoing.status
            headers = self._headers(exchange, outgoing)
            await send({"type": "http.response.start", "status": outgoing.status, "headers": headers})
            self._book.wake()
        for index, frame in enumerate(outgoing.frames, start=1):
            if index > 1:
                # A client that has left can be noticed only where others get a turn.
                delay = outgoing.pace or self._chunk_delay
                await (self._sleep(delay) if delay > 0 else anyio.lowlevel.checkpoint())
            exchange.tokens = frame.tokens
            ends = index == len(outgoing.frames) and outgoing.then == "end"
            if ends:
                self._end(exchange, outgoing)
            await send({"type": "http.response.body", "body": frame.data, "more_body": not ends})
        if outgoing.then == "end" and not outgoing.frames:
            self._end(exchange, outgoing)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        if outgoing.then == "reset":
            self._end(exchange, outgoing)
        while outgoing.then == "pings":
            await self._sleep(outgoing.every)
            await send(
                {"type": "http.response.body", "body": exchange.door.encode({"type": "ping"}), "more_body": True}
            )

    def _delay(self, exchange: _Exchange) -> float:
        """Seconds until the first byte."""
        if exchange.draft is not None and exchange.draft.seconds is not None:
            return exchange.draft.seconds
        latency = self._latency
        return latency if isinstance(latency, int | float) else latency.get(exchange.received.model or "", 0.0)

    def _end(self, exchange: _Exchange, outgoing: Outgoing) -> None:
        exchange.received.error = outgoing.error
        exchange.received.stop_reason = outgoing.stop_reason
        self._finish(exchange, "fault" if outgoing.faulty else "complete")

    def _finish(self, exchange: _Exchange, ended: str) -> None:
        """Bill what was used, once, and close the log's entry."""
        received, prompt = exchange.received, exchange.prompt
        if prompt is not None and exchange.share is not None and exchange.draft is not None:
            received.usage = spent(exchange.share, exchange.draft, exchange.tokens)
            geo = prompt.body.get("inference_geo") or self._geo
            geo = geo if prompt.rules.geo and exchange.door.platform == "anthropic" else None
            if exchange.door.dearer(prompt.body["model"]):
                geo = "us"
            received.billed = bill(prompt.rules.id, received.usage, geo=geo, fast=prompt.body.get("speed") == "fast")
            self._book.charge(received.billed)
            if self._limits is not None:
                self._limits.wrote(prompt.body["model"], received.usage.output_tokens)
        received.seconds = self._clock() - exchange.began
        received.ended = ended  # type: ignore[assignment]

    def _headers(self, exchange: _Exchange, outgoing: Outgoing) -> list[tuple[bytes, bytes]]:
        received = exchange.received
        headers = (
            *outgoing.headers,
            ("request-id", _request_id(exchange)),
            ("anthropic-organization-id", _ORGANIZATION),
        )
        if exchange.door.path == "/v1/messages" and (outgoing.status == 200 or outgoing.error == "rate_limit_error"):  # noqa: PLR2004
            prompt = exchange.prompt.tokens if exchange.prompt else 0
            output = exchange.draft.output_tokens if exchange.draft else 0
            said = {name for name, _ in headers}
            limits = (
                self._limits.headers(received.model or "")
                if self._limits is not None
                else self._book.limit_headers(
                    received.model or "",
                    (prompt, output),
                    exhausted=outgoing.error is not None or outgoing.resets_in is not None,
                    resets_in=outgoing.resets_in,
                )
            )
            headers += tuple(limit for limit in limits if limit[0] not in said)
        return [(name.encode(), value.encode()) for name, value in headers]


def _request_id(exchange: _Exchange) -> str:
    return f"req_fake{exchange.number:020d}"
