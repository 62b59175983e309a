"""Synchronous clients: the real SDK over a real socket, from threads that have no event loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest
from anthropic import Anthropic, beta_tool
from pydantic import BaseModel

from tierline import Budget, Router, current, policy
from tierline.anthropic import attach
from tierline.attempts import Timing
from tierline.classify import ClaudeClassifier, FixedClassifier
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.testing import FakeClaude, Fault, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline import Binding

    MakeRouter = Callable[..., Router]

pytestmark = pytest.mark.usefixtures("quiet")

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Why is it blue?"}]}
HARD = Budget("$5/day", downgrade_at=None, cheapest_at=None)


@pytest.fixture
def router(make_sync_router: MakeRouter) -> Router:
    """A Router with one hard budget for which everything is `moderate`."""
    return make_sync_router(budgets=[HARD])


def models(fake: FakeClaude) -> list[str | None]:
    return [received.model for received in fake.requests]


def balance(router: Router) -> tuple[int, int]:
    """What was spent and is held on the only account."""
    (only,) = asyncio.run(router.balances())
    return only.spent, only.held


def settled(binding: Binding) -> list[tuple[str, bool]]:
    return [(d.attempts[-1].outcome, d.estimated) for d in binding.decisions if d.settled]


# Every method


def test_create(router: Router, fake: FakeClaude) -> None:
    """`create` goes to the tier of its label, with the answer as the SDK gives it."""
    message = router.sync_claude.messages.create(**ASK)
    assert isinstance(message, anthropic.types.Message)
    assert (message.model, models(fake)) == (SONNET, [SONNET])
    assert balance(router) == (fake.billed, 0)


def test_stream_helper(router: Router, fake: FakeClaude) -> None:
    """`messages.stream` gives its text in pieces, and is settled when its block is left."""
    with router.bind() as binding:
        with router.sync_claude.messages.stream(**ASK) as stream:
            assert not binding.decisions[-1].settled
            pieces = list(stream.text_stream)
            final = stream.get_final_message()
        assert binding.decisions[-1].settled
    assert len(pieces) > 1
    assert final.model == SONNET
    assert settled(binding) == [("ok", False)]
    assert balance(router) == (fake.billed, 0)


def test_create_stream(router: Router, fake: FakeClaude) -> None:
    """`create(stream=True)` is settled when the last event has been read."""
    with router.bind() as binding:
        kinds = [event.type for event in router.sync_claude.messages.create(**ASK, stream=True)]
        assert [d.cost for d in binding.decisions] == [fake.billed]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")


def test_parse(router: Router, fake: FakeClaude) -> None:
    """`parse` validates into a model of the app's, in the thread of the app."""
    threads: list[threading.Thread] = []

    class City(BaseModel):
        name: str

        def model_post_init(self, _: object) -> None:
            threads.append(threading.current_thread())

    message = router.sync_claude.messages.parse(**ASK, output_format=City)
    assert isinstance(message.parsed_output, City)
    assert set(threads) == {threading.current_thread()}
    assert balance(router) == (fake.billed, 0)


@pytest.mark.parametrize("beta", [False, True])
def test_raw_response(router: Router, fake: FakeClaude, beta: bool) -> None:
    """`with_raw_response` shows headers and body, and is metered without being parsed."""
    messages = router.sync_claude.beta.messages if beta else router.sync_claude.messages
    raw: Any = messages.with_raw_response.create(**ASK)
    assert raw.headers["request-id"].startswith("req_")
    assert raw.parse().model == SONNET
    assert balance(router) == (fake.billed, 0)


def test_streaming_response(router: Router, fake: FakeClaude) -> None:
    """`with_streaming_response` is settled when its body has been read, whole or line by line."""
    create = router.sync_claude.messages.with_streaming_response.create
    with router.bind() as binding:
        with create(**ASK) as response:
            assert not binding.decisions[-1].settled
            body = json.loads(response.read())
            assert binding.decisions[-1].settled
        with create(**ASK, stream=True) as response:
            lines = list(response.iter_lines())
    assert body["model"] == SONNET
    assert any("message_stop" in line for line in lines)
    assert settled(binding) == [("ok", False)] * 2
    assert balance(router) == (fake.billed, 0)


def test_beta_messages(router: Router, fake: FakeClaude) -> None:
    """`beta.messages` is routed, whole and streamed."""
    message = router.sync_claude.beta.messages.create(**ASK)
    with router.sync_claude.beta.messages.stream(**ASK) as stream:
        final = stream.get_final_message()
    assert (message.model, final.model) == (SONNET, SONNET)
    assert balance(router) == (fake.billed, 0)


def test_tool_runner(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """The SDK's tool runner runs its loop through the seam, on one tier, with one verdict."""
    router = make_sync_router(classifier=ClaudeClassifier(), budgets=[HARD])
    labels = ["complex", "simple", "simple"]
    fake.verdict = lambda _text, _labels: (labels.pop(0), 0.9)

    @beta_tool
    def weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: Its name.
        """
        return f"20 degrees in {city}"

    fake.answer = lambda received: (
        "It is warm." if "tool_result" in str(received.body) else Reply(tool="weather", input={"city": "Rome"})
    )
    runner = router.sync_claude.beta.messages.tool_runner(**{**ASK, "max_tokens": 2000}, tools=[weather])
    assert runner.until_done().content[-1].text == "It is warm."  # type: ignore[union-attr]
    assert models(fake) == [HAIKU, OPUS, OPUS]
    assert balance(router) == (fake.billed, 0)


def test_count_tokens(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """A count with `auto` gets the model that a call would go to, and Claude is not asked which one."""
    router = make_sync_router(classifier=ClaudeClassifier())
    with policy(floor="opus"):
        counted = router.sync_claude.messages.count_tokens(model="auto", messages=ASK["messages"])
    assert counted.input_tokens > 0
    assert [(r.path, r.model) for r in fake.requests] == [("/v1/messages/count_tokens", OPUS)]


def test_what_is_not_metered_passes(router: Router, fake: FakeClaude) -> None:
    """Requests that spend nothing go through as they are, and start no thread."""
    before = threading.enumerate()  # the last test's may be among them
    assert router.sync_claude.models.list().data
    assert "tierline" not in {thread.name for thread in threading.enumerate() if thread not in before}


# Copies


def test_copies_stay_routed(router: Router, sync_sdk: Anthropic, fake: FakeClaude) -> None:
    """Whatever makes a copy of a routed client makes a routed one, with one seam; a second `attach` changes nothing."""
    client = router.sync_claude
    assert type(client) is Anthropic
    assert attach(client, router) is client
    for copy in (client.copy(), client.with_options(timeout=20), attach(sync_sdk, router)):
        copy.messages.create(**ASK)
        assert sum(type(entry).__name__ == "Seam" for entry in copy.middleware) == 1
    assert models(fake) == [SONNET] * 3
    assert sync_sdk.middleware == ()


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_with_options_bounds_the_retries(router: Router, fake: FakeClaude, retries: int) -> None:
    """`with_options(max_retries=n)` is the bound of Tierline's loop: n + 1 requests upstream, no more."""
    fake.always(None, Fault.error(500))
    client = router.sync_claude.with_options(max_retries=retries)
    with policy(tier="sonnet"), pytest.raises(anthropic.InternalServerError):
        client.messages.create(**ASK)
    assert models(fake) == [SONNET] * (retries + 1)


def test_closed_early(router: Router, fake: FakeClaude) -> None:
    """A client that is closed in mid-stream or before a call leaves nothing held."""
    fake.script(Fault.hang(after=2))
    stream = router.sync_claude.messages.create(**ASK, stream=True)
    next(stream)
    router.sync_claude.close()
    with pytest.raises(httpx2.ReadError):
        list(stream)
    spent, _ = balance(router)
    with router.bind() as binding, pytest.raises(anthropic.APIConnectionError):
        router.sync_claude.messages.create(**ASK)
    assert [a.cost for d in binding.decisions for a in d.attempts] == [0]
    assert balance(router) == (spent, 0)


# Retries, fallbacks, errors


def test_retries_and_fallback(router: Router, fake: FakeClaude, waits: list[float]) -> None:
    """Retries and fallbacks are attempts of one decision, with Tierline's waits between them."""
    fake.always(SONNET, Fault.overloaded())
    with router.bind() as binding:
        message = router.sync_claude.messages.create(**ASK)
    (decision,) = binding.decisions
    assert message.model == HAIKU
    assert [a.role for a in decision.attempts] == ["first", "retry", "retry", "fallback"]
    assert waits[:2] == [0.25, 0.5]
    assert balance(router) == (fake.billed, 0)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.error(400), anthropic.BadRequestError),
        (Fault.rate_limit(retry_after=3600), anthropic.RateLimitError),
        (Fault.reset(), anthropic.APIConnectionError),
    ],
)
def test_errors_are_the_sdks_own(router: Router, fake: FakeClaude, fault: Fault, error: type[Exception]) -> None:
    """Errors of the API reach the app as the SDK's own types."""
    fake.always(None, fault)
    with policy(tier="haiku"), pytest.raises(error):
        router.sync_claude.with_options(max_retries=0).messages.create(**ASK)
    assert balance(router)[1] == 0


def test_timeout(router: Router, fake: FakeClaude) -> None:
    """A request that takes too long is charged whole, for the API may have answered it."""
    fake.always(None, Fault.hang())
    with router.bind() as binding, pytest.raises(anthropic.APITimeoutError):
        router.sync_claude.with_options(max_retries=0, timeout=0.2).messages.create(**ASK)
    assert settled(binding) == [("timeout", True)]
    assert balance(router) == (binding.decisions[-1].cost, 0)


def test_refusals(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """A hard budget without room refuses before anything is sent, and a batch, which it cannot bound."""
    router = make_sync_router(budgets=[Budget("$0.0000001")])
    with pytest.raises(BudgetExceededError):
        router.sync_claude.messages.create(**ASK)
    request: Any = {"custom_id": "a", "params": ASK}
    with pytest.raises(BudgetExceededError):
        router.sync_claude.messages.batches.create(requests=[request])
    assert fake.requests == []


# Streams that are not read to their end


def test_stream_left(router: Router, fake: FakeClaude) -> None:
    """A stream whose block is left early is settled by then, as estimated."""
    with router.bind() as binding:
        with router.sync_claude.messages.stream(**ASK) as stream:
            next(stream.text_stream)
        assert settled(binding) == [("closed", True)]
    spent, held = balance(router)
    assert (spent >= fake.billed > 0, held) == (True, 0)


@pytest.mark.parametrize("whole", [False, True])
def test_stream_waits_for_its_settlement(router: Router, fake: FakeClaude, whole: bool) -> None:
    """A stream that is read or closed is settled when that returns, however busy the loop is that settles it."""
    with router.bind() as binding:
        stream = router.sync_claude.messages.create(**ASK, stream=True)
        (attempt,) = binding.open
        attempt.loop.call_soon_threadsafe(time.sleep, 0.3)
        _ = list(stream) if whole else stream.close()
        assert settled(binding) == [("ok", False) if whole else ("closed", True)]
    assert balance(router)[1] == 0


def test_stream_cut(router: Router, fake: FakeClaude) -> None:
    """A connection that is reset in mid-stream reaches the app, and is settled by then."""
    fake.script(Fault.reset_after(3))
    with router.bind() as binding:
        with pytest.raises(httpx2.HTTPError):
            list(router.sync_claude.messages.create(**ASK, stream=True))
        assert settled(binding) == [("connection_error", True)]
    assert balance(router)[1] == 0


@pytest.mark.parametrize("started", [False, True])
def test_stream_dropped(router: Router, fake: FakeClaude, started: bool) -> None:
    """A stream that is dropped unclosed is settled when it is collected, in whatever thread that happens."""
    fake.script(Fault.hang(after=2))
    with router.bind() as binding:
        streams = [router.sync_claude.messages.create(**ASK, stream=True)]
        done = ended(binding)
        if started:
            next(streams[0])

        def drop() -> None:
            streams.clear()
            gc.collect()

        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()
        assert done.wait(20)
    asyncio.run(idle(fake))
    assert fake.requests[-1].ended == "disconnected"
    spent, held = balance(router)
    assert (spent > 0, held) == (True, 0)


def test_stream_kept_at_the_end(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """A stream that a script still holds when it closes the Router is settled by then, and its connection let go."""
    router = make_sync_router(budgets=[HARD], timing=Timing())
    fake.script(Fault.hang(after=2))
    with router.bind() as binding:
        stream = router.sync_claude.messages.create(**ASK, stream=True)
        next(stream)
    assert balance(router)[1] > 0
    asyncio.run(router.aclose())
    assert settled(binding) == [("shutdown", True)]
    assert balance(router)[1] == 0
    asyncio.run(idle(fake))
    assert fake.requests[-1].ended == "disconnected"
    del stream


def test_thread_that_waits_for_bytes_at_the_end(router: Router, fake: FakeClaude) -> None:
    """Closing the Router wakes a thread that waits for the rest of an answer, and settles what it had."""
    fake.script(Fault.hang(after=2))
    with router.bind() as binding, ThreadPoolExecutor(1) as pool:
        stream = router.sync_claude.messages.create(**ASK, stream=True)
        next(stream)
        (attempt,) = binding.open
        reading = pool.submit(list, stream)
        while not attempt.reading:  # type: ignore[attr-defined]
            time.sleep(0.01)
        asyncio.run(router.aclose())
        assert isinstance(reading.exception(20), httpx2.HTTPError)
    assert settled(binding) == [("shutdown", True)]
    assert balance(router)[1] == 0


def test_stream_that_a_job_left(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """What a job leaves open when its block ends is settled once nobody has read on for a lease."""
    router = make_sync_router(budgets=[HARD], timing=Timing())
    router.ledger.lease = 0.05
    with router.bind() as binding:
        stream = router.sync_claude.messages.create(**ASK, stream=True)
        next(stream)
        done = ended(binding)
    assert done.wait(20)
    del stream


def ended(binding: Binding) -> threading.Event:
    """Set when the only attempt in flight is settled."""
    (attempt,) = binding.open
    done, close = threading.Event(), attempt._on_end  # type: ignore[attr-defined]
    attempt._on_end = lambda result: (close(result), done.set())  # type: ignore[attr-defined]
    return done


async def idle(fake: FakeClaude) -> None:
    """Wait until the API has seen the end of every request."""
    await fake.idle()


# Verdicts


def test_verdict_is_asked_with_the_same_client(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """Claude is asked with the client whose call it is, in its thread, and the call pays for it."""
    threads: list[threading.Thread] = []
    seen = httpx2.Client(event_hooks={"request": [lambda _: threads.append(threading.current_thread())]})
    router = make_sync_router(classifier=ClaudeClassifier(), budgets=[HARD])
    client = router.sync_claude.with_options(http_client=seen)
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    with router.bind() as binding:
        client.messages.create(**ASK)
        client.messages.create(**ASK)
    seen.close()
    assert models(fake) == [HAIKU, OPUS, OPUS]
    assert set(threads) == {threading.current_thread()}
    assert len(threads) == 3
    assert [d.source for d in binding.decisions] == ["claude", "cache"]
    assert binding.decisions[0].classifier_cost == fake.requests[0].billed > 0
    assert balance(router) == (fake.billed, 0)


@pytest.mark.parametrize(
    ("fault", "why"),
    [(Fault.hang(), "no verdict within 0.2 s"), (Fault.rate_limit(retry_after=30), "no verdict: RateLimitError")],
)
def test_verdict_that_takes_too_long(make_sync_router: MakeRouter, fake: FakeClaude, fault: Fault, why: str) -> None:
    """A verdict that does not come in time is given up, be it silent or asked to come back later."""
    router = make_sync_router(classifier=ClaudeClassifier(timeout=0.2), budgets=[HARD], timing=Timing())
    fake.script(fault, model=HAIKU)
    with router.bind() as binding:
        router.sync_claude.messages.create(**ASK)
    (decision,) = binding.decisions
    assert decision.tier == "sonnet"
    assert decision.reasons[0] == why
    assert balance(router) == (decision.cost, 0)


def test_one_verdict_for_many_threads(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """Threads that ask the same at the same time share one verdict, and none waits for ever."""
    router = make_sync_router(classifier=ClaudeClassifier(), budgets=[HARD])
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: router.sync_claude.messages.create(**ASK).model, range(20)))
    assert found == [OPUS] * 20
    assert models(fake).count(HAIKU) == 1
    assert balance(router) == (fake.billed, 0)


# Threads


def test_raw_thread_call_metered(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """A call from a thread that knows no request is charged to the default accounts, never unmetered."""
    router = make_sync_router(budgets=[Budget("$5", per="tenant")])
    with router.bind(tenant="acme"):
        thread = threading.Thread(target=lambda: router.sync_claude.messages.create(**ASK))
        thread.start()
        thread.join()
    (only,) = asyncio.run(router.balances())
    assert (only.account, only.spent, only.held) == ("default", fake.billed, 0)


def test_thread_with_the_context(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """A thread that is given the context is charged to its tenant, under its policies, with the Binding at hand."""
    router = make_sync_router(budgets=[Budget("$5", per="tenant")])

    def work() -> str:
        current().sync_claude.messages.create(**ASK)
        return current().decisions[-1].tier

    bound = router.bind(tenant="acme", route="nightly")
    with bound as binding, policy(floor="opus", tags={"job": "1"}), ThreadPoolExecutor(1) as pool:
        assert pool.submit(contextvars.copy_context().run, work).result() == "opus"
    (decision,) = binding.decisions
    assert (decision.tenant, decision.route, decision.tags) == ("acme", "nightly", (("job", "1"),))
    assert [(b.account, b.spent, b.held) for b in asyncio.run(router.balances())] == [("acme", fake.billed, 0)]


def test_threads_do_not_mix(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """Threads with tenants and policies of their own stay apart."""
    router = make_sync_router(budgets=[Budget("$5", per="tenant")])
    tiers = ("haiku", "sonnet", "opus")

    def work(number: int) -> list[tuple[str | None, str]]:
        with router.bind(tenant=str(number)) as binding, policy(tier=tiers[number % 3]):
            router.sync_claude.messages.create(**ASK)
            with router.sync_claude.messages.stream(**ASK) as stream:
                stream.get_final_message()
        return [(d.tenant, d.tier) for d in binding.decisions]

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(work, range(24)))
    assert found == [[(str(n), tiers[n % 3])] * 2 for n in range(24)]
    balances = asyncio.run(router.balances())
    assert (sum(b.spent for b in balances), sum(b.held for b in balances)) == (fake.billed, 0)
    assert router.report().calls == 48


def test_thundering_herd_of_threads(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """A hard budget is never exceeded, however many threads come for its last dollar."""
    probe = make_sync_router(budgets=[HARD])
    probe.sync_claude.messages.create(**ASK)
    worst = probe_cost(probe)
    fake.answer = lambda _: Reply("word " * 400, output_tokens=500)
    limit = worst * 5 + worst // 2
    router = make_sync_router(budgets=[Budget(f"${limit / 1e9:.9f}", downgrade_at=None, cheapest_at=None)])
    highest: list[int] = []

    def work(_: int) -> bool:
        try:
            with policy(tier="sonnet"):
                router.sync_claude.messages.create(**ASK)
        except BudgetExceededError:
            return False
        finally:
            highest.append(sum(balance(router)))
        return True

    asyncio.run(idle(fake))
    before = fake.billed
    with ThreadPoolExecutor(30) as pool:
        passed = sum(pool.map(work, range(30)))
    spent, held = balance(router)
    assert 0 < passed < 30
    assert max(highest) <= limit
    assert (spent, held) == (fake.billed - before, 0)


def probe_cost(router: Router) -> int:
    """The worst case of one call on sonnet, in nano-USD."""
    with router.bind() as binding, policy(tier="sonnet"):
        stream = router.sync_claude.messages.create(**ASK, stream=True)
        (attempt,) = binding.open
        stream.close()
    worst: int = attempt.worst  # type: ignore[attr-defined]
    return worst


def test_stream_read_in_another_thread(router: Router, fake: FakeClaude) -> None:
    """A stream may be opened, read and closed in three threads."""
    with router.bind() as binding:
        with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second, ThreadPoolExecutor(1) as third:
            run = contextvars.copy_context().run
            stream = first.submit(run, lambda: router.sync_claude.messages.create(**ASK, stream=True)).result()
            events = second.submit(lambda: [next(stream) for _ in range(3)]).result()
            third.submit(stream.close).result()
        assert settled(binding) == [("closed", True)]
    assert len(events) == 3
    assert balance(router)[1] == 0


async def test_both_clients_on_one_router(
    make_router: MakeRouter, sync_sdk: Anthropic, fake: FakeClaude, thread_url: str
) -> None:
    """One asynchronous and one synchronous client share a Router's budgets, cache and report, at the same time."""
    other = FakeClaude()
    async with other.serve() as url:
        asynchronous = anthropic.AsyncAnthropic(api_key=other.api_key, base_url=url)
        router = make_router(asynchronous, sync_client=sync_sdk, classifier=ClaudeClassifier(), budgets=[HARD])
        for upstream in (fake, other):
            upstream.verdict = lambda _text, _labels: ("complex", 0.9)
        calls = [asyncio.to_thread(router.sync_claude.messages.create, **ASK) for _ in range(8)]
        calls += [router.claude.messages.create(**ASK) for _ in range(8)]  # type: ignore[misc]
        found = await asyncio.gather(*calls)
        await asynchronous.close()
    assert [message.model for message in found] == [OPUS] * 16
    (only,) = await router.balances()
    assert (only.spent, only.held) == (fake.billed + other.billed, 0)
    assert router.report().calls == 16


def test_low_level_post(router: Router, fake: FakeClaude) -> None:
    """The SDK's low-level `post` is metered, also where it answers with a bare response."""
    response = router.sync_claude.post("/v1/messages", body=ASK, cast_to=httpx2.Response)
    assert response.json()["model"] == SONNET
    assert balance(router) == (fake.billed, 0)


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_modes(make_sync_router: MakeRouter, fake: FakeClaude, mode: str) -> None:
    """A Router that only observes, or is off, passes calls of a synchronous client on, whole and streamed."""
    router = make_sync_router(mode=mode)
    message = router.sync_claude.messages.create(**{**ASK, "model": HAIKU})
    with router.sync_claude.messages.stream(**{**ASK, "model": HAIKU}) as stream:
        assert stream.get_final_message().model == message.model == HAIKU
    fake.script(Fault.overloaded())
    assert router.sync_claude.messages.create(**{**ASK, "model": HAIKU}).model == HAIKU


# The Router's client


def test_client_from_the_environment(monkeypatch: pytest.MonkeyPatch, fake: FakeClaude, thread_url: str) -> None:
    """Without a client one is made from the environment on first use, closed at the end, and made anew when needed."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", fake.api_key)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", thread_url)
    router = Router(classifier=FixedClassifier("simple"))
    with ThreadPoolExecutor(8) as pool:
        clients = list(pool.map(lambda _: router.sync_claude, range(8)))
    assert len(set(map(id, clients))) == 1
    clients[0].messages.create(**ASK)
    asyncio.run(router.aclose())
    assert clients[0].is_closed()
    assert router.sync_claude.messages.create(**ASK).model == HAIKU
    asyncio.run(router.aclose())


def test_client_of_the_app_stays_open(router: Router, sync_sdk: Anthropic) -> None:
    """A client that the app made is the app's to close."""
    router.sync_claude.messages.create(**ASK)
    asyncio.run(router.aclose())
    assert not sync_sdk.is_closed()


def test_bind_nests(router: Router, fake: FakeClaude) -> None:
    """`with router.bind()` nests, and is left as it was entered, also by an error."""
    with router.bind(tenant="a") as outer:
        with suppress(ZeroDivisionError), router.bind(tenant="b") as inner:
            assert current() is inner
            raise ZeroDivisionError
        assert current() is outer
        assert inner.over
    with pytest.raises(ConfigurationError):
        current()
    assert outer.over
