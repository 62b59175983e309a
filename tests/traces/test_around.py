"""The same trees inside of what others trace an app with, in threads, sampled and not, and beside a shadow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry import propagate
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as ContribMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware

from tests.apps import app_of, ask, refusing
from tierline import Budget, policy, telemetry
from tierline.asgi import TierlineMiddleware
from tierline.classify import ClaudeClassifier
from tierline.fastapi import Claude, SyncClaude  # noqa: TC001  (FastAPI reads annotations)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from anthropic import Anthropic

    from tests.traces.collector import Collector
    from tests.traces.conftest import Stage
    from tierline import Router
    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")

ONE = pytest.mark.parametrize("stage", [("on", "http")], indirect=True, ids=[""])
"""Who tells of the call makes no difference here."""
QUIET_ONES = ["send", "receive"]
"""Without it the contributed instrumentation makes a span of each piece of a stream."""


def fast(router: Router, **options: Any) -> FastAPI:
    """The same endpoints in FastAPI, asynchronous and not."""
    app = FastAPI(lifespan=router.lifespan, **options)
    app.add_middleware(TierlineMiddleware, router=router)

    @app.get("/answer")
    async def answer(claude: Claude) -> str:
        return (await claude.messages.create(**ask())).id

    @app.get("/chat")
    async def chat(claude: Claude) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            async with claude.messages.stream(**ask()) as stream:
                async for text in stream.text_stream:
                    yield text

        return StreamingResponse(body())

    @app.get("/plain")
    def plain(claude: SyncClaude) -> str:
        return claude.messages.create(**ask()).id

    @app.get("/plainchat")
    def plain_chat(claude: SyncClaude) -> StreamingResponse:
        def body() -> Iterator[str]:
            with claude.messages.stream(**ask()) as stream:
                yield from stream.text_stream

        return StreamingResponse(body())

    return app


def fastapi_itself(router: Router, provider: Any) -> Any:
    return fast(router, telemetry={"tracer_provider": provider})


def contributed_fastapi(router: Router, provider: Any) -> Any:
    app = fast(router)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider, exclude_spans=QUIET_ONES)
    return app


def contributed_starlette(router: Router, provider: Any) -> Any:
    app = app_of(router)
    StarletteInstrumentor.instrument_app(app, tracer_provider=provider)
    return app


def contributed_asgi(router: Router, provider: Any) -> Any:
    return ContribMiddleware(app_of(router), tracer_provider=provider, exclude_spans=QUIET_ONES)


def starlette_inside(router: Router, provider: Any) -> Any:
    """Tierline's middleware around Starlette's."""
    app = app_of(router)
    app.user_middleware.append(app.user_middleware[0].__class__(OpenTelemetryMiddleware, tracer_provider=provider))
    return app


AROUND = pytest.mark.parametrize(
    "around", [fastapi_itself, contributed_fastapi, contributed_starlette, contributed_asgi, starlette_inside]
)


def tree_of(collector: Collector) -> list[str]:
    """The tree without what frameworks say of their own work."""
    shown = ("SERVER", "CLIENT")
    own = {span.scope for span in collector.spans if span.scope != "tierline" and span.kind not in shown}
    assert not any(span.kind in shown for span in collector.spans if span.scope in own - {"fastapi"} and span.parent)
    lines = collector.tree()
    depths = [len(line) - len(line.lstrip()) for line in lines]
    kept: list[tuple[int, str]] = []
    for depth, line in zip(depths, lines, strict=True):
        name = line.strip()
        if not name.startswith("fastapi.") and not name.split(" INTERNAL")[0].endswith((" http send", " http receive")):
            kept.append((depth, name))
    # What stood below a hidden span moves up.
    steps = sorted({depth for depth, _ in kept})
    return ["  " * steps.index(depth) + name for depth, name in kept]


@ONE
@AROUND
async def test_around(stage: Stage, collector: Collector, around: Any) -> None:
    """An answer and a stream, in one tree each below the request's span, whoever made that."""
    browser = await stage.serve(around(stage.router(), stage.provider))
    for path in ("/answer", "/chat"):
        collector.clear()
        assert (await browser.get(path)).text
        await stage.ended()
        tree = tree_of(collector)
        assert tree[0].endswith("SERVER UNSET")
        assert tree[1:] == [
            f"  {stage.call()}",
            "    route sonnet INTERNAL UNSET",
            "      classify INTERNAL UNSET",
            "      attempt sonnet INTERNAL UNSET",
        ]


@ONE
@AROUND
@pytest.mark.parametrize(("amount", "status"), [("$0.05/hour", 429), ("$0.05", 402)])
async def test_refusal_around(stage: Stage, collector: Collector, around: Any, amount: str, status: int) -> None:
    """A refusal is the call's error and not the request's, whoever traces that."""
    router = await refusing(stage.router, amount)
    browser = await stage.serve(around(router, stage.provider))
    assert (await browser.get("/answer")).status_code == status
    await stage.ended()
    (server,) = (span for span in collector.spans if span.kind == "SERVER")
    assert server.status == "UNSET"
    assert collector.named("route sonnet").status == "ERROR"


@pytest.mark.parametrize("path", ["/plain", "/plainchat"])
async def test_threads(stage: Stage, collector: Collector, sync_sdk: Anthropic, path: str, fake: FakeClaude) -> None:
    """A synchronous client's calls have the same tree, in the thread of an endpoint as in that of a stream."""
    client = sync_sdk.copy(open_telemetry={"tracer_provider": stage.provider, "traces": {"enabled": stage.sdk}})
    router = stage.router(sync_client=client, classifier=ClaudeClassifier(worth=0))
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    browser = await stage.serve(fastapi_itself(router, stage.provider))
    assert (await browser.get(path)).text
    await stage.ended()
    assert tree_of(collector) == [
        f"GET {path} SERVER UNSET",
        f"  {stage.call()}",
        "    route opus INTERNAL UNSET",
        "      classify INTERNAL UNSET",
        f"        {stage.verdict}",
        "      attempt opus INTERNAL UNSET",
    ]


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("path", ["/answer", "/chat"])
async def test_the_callers_choice(
    stage: Stage, collector: Collector, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose caller is sampled joins its trace; of one that is not nothing is told, nor even put together."""
    app = OpenTelemetryMiddleware(app_of(stage.router(budgets=[Budget("$5/day")])), tracer_provider=stage.provider)
    browser = await stage.serve(app)
    assert (await browser.get(path, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})).status_code == 200
    await stage.ended()
    assert {span.trace.hex() for span in collector.spans} == {TRACE}
    assert [root.parent.hex() for root in collector.roots()] == [PARENT]
    assert len(collector.spans) == 5
    collector.clear()

    def built(_: str) -> str:
        raise AssertionError("attributes of a span that nobody records")

    monkeypatch.setattr(telemetry, "bounded", built)
    assert (await browser.get(path, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})).status_code == 200
    await stage.nothing()
    assert collector.spans == []


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(TraceIdRatioBased(0))], ids=["off", "ratio"])
async def test_sampled_out(stage: Stage, collector: Collector, fake: FakeClaude, sampler: Any) -> None:
    """Where nothing is sampled nothing is exported; money is counted all the same, and the API hears of the trace."""
    stage.sampling(sampler)
    router = stage.router()
    browser = await stage.serve(OpenTelemetryMiddleware(app_of(router), tracer_provider=stage.provider))
    for path in ("/answer", "/chat"):
        assert (await browser.get(path)).status_code == 200
    await stage.nothing()
    assert collector.spans == []
    assert router.report().cost == fake.billed > 0


async def test_the_api_hears_of_the_trace(stage: Stage, collector: Collector, fake: FakeClaude) -> None:
    """With the SDK's spans on, every attempt carries the trace; that is the SDK's doing, and ends with them."""
    browser = await stage.serve(OpenTelemetryMiddleware(app_of(stage.router()), tracer_provider=stage.provider))
    await browser.get("/answer")
    await stage.ended()
    told = propagate.extract(dict(fake.requests[0].headers))
    (server,) = collector.roots()
    heard = [value.get_span_context().trace_id for value in told.values()]  # type: ignore[attr-defined]
    assert heard == ([int.from_bytes(server.trace)] if stage.sdk else [])


async def test_shadow(stage: Stage, collector: Collector, fake: FakeClaude) -> None:
    """A shadow is a trace of its own, linked to that of the call, with the questions that it asked."""
    fake.answer = lambda received: f"This is {received.model}."
    router = stage.router(shadow=1.0, shadow_budget="$1/day", policy=policy(label="simple"))
    browser = await stage.serve(OpenTelemetryMiddleware(app_of(router), tracer_provider=stage.provider))
    assert (await browser.get("/answer")).status_code == 200
    await stage.ended()
    await stage.ended(lambda span: span.name == "shadow")
    shadow, server = collector.named("shadow"), collector.named("GET /answer")
    assert shadow.links == [server.trace]
    assert shadow.trace != server.trace
    assert [root.name for root in collector.roots()] == ["GET /answer", "shadow"]
    # The request again is a plain post of the client's, of which the SDK tells nothing.
    first, *judged = collector.below(shadow)
    assert (first.name, first.kind) == ("chat claude-sonnet-5-5", "CLIENT")
    assert {span.name for span in judged} == {"anthropic.messages.create" if stage.sdk else "chat claude-opus-5-5"}
