"""What a collector receives of a job of batches: it is sent in one trace, and collected in another, linked to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.apps import CANARY, app_of
from tierline.batches import BatchRequest
from tierline.testing import FakeClaude
from tierline.values import NANO

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.traces.collector import Collector
    from tests.traces.conftest import Stage

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def fake() -> FakeClaude:
    """Lets a request of a batch expire that it is given for the first time."""
    seen: set[str] = set()

    def outcome(custom_id: str, _: object) -> str | None:
        late = custom_id.endswith("-2") and custom_id not in seen
        seen.add(custom_id)
        return "expired" if late else None

    return FakeClaude(batch_outcome=outcome)


async def test_a_job(stage: Stage, collector: Collector, fake: FakeClaude) -> None:
    """Below the request that submitted it; the results later, with outcomes and cost; no span for one of its own."""
    router = stage.router()
    params: dict[str, Any] = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": CANARY}]}

    async def night(_: Request) -> PlainTextResponse:
        requests = [BatchRequest(f"r{n}", params, tenant="acme") for n in range(3)]
        return PlainTextResponse(await router.batches.submit(requests, job="nightly"))

    routed = app_of(router, Route("/night", night))
    browser = await stage.serve(OpenTelemetryMiddleware(routed, tracer_provider=stage.provider))
    assert (await browser.get("/night")).text == "nightly"
    assert (await router.batches.wait("nightly")).succeeded == 3
    await stage.ended()
    await stage.ended(lambda span: span.name == "collect batch", 2)
    ours = [line for line in collector.tree() if "batches.retrieve" not in line]
    create = ["    anthropic.messages.batches.create CLIENT OK"] if stage.sdk else []
    results = ["  anthropic.messages.batches.results CLIENT OK"] if stage.sdk else []
    assert ours == [
        "GET /night SERVER UNSET",
        *("  submit batch INTERNAL UNSET", *create),
        *("  submit batch INTERNAL UNSET", *create),
        *("collect batch INTERNAL UNSET", *results),
        *("collect batch INTERNAL UNSET", *results),
    ]
    spans = collector.spans
    server = collector.named("GET /night")
    sent = [span for span in spans if span.name == "submit batch"]
    collected = [span for span in spans if span.name == "collect batch"]
    assert {span.scope for span in (*sent, *collected)} == {"tierline"}
    assert [span.links for span in collected] == [[server.trace]] * 2
    assert len({span.trace for span in (server, *collected)}) == 3
    of = "tierline.batch."
    assert [span.attributes[f"{of}requests"] for span in sent] == [3, 1]
    assert [(span.attributes.get(f"{of}succeeded"), span.attributes.get(f"{of}expired")) for span in collected] == [
        (2, 1),
        (1, None),
    ]
    api = [batch.id for batch in fake.batches]
    assert [span.attributes[f"{of}api_id"] for span in sent] == api
    assert [span.attributes[f"{of}api_id"] for span in collected] == api
    cost = sum(span.attributes["tierline.cost.usd"] for span in collected)
    assert cost == pytest.approx(fake.billed / NANO)
