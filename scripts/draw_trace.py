"""Draws a trace as it was recorded: one call of a small app, whose first tier was overloaded.

    python -m scripts.draw_trace docs/trace.svg

Nothing in the picture is made up but the answers: they come from the offline stand-in for the API, with latencies.
"""

from __future__ import annotations

import asyncio
import sys
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from anthropic import AsyncAnthropic
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.applications import Starlette
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tierline import Budget, Router
from tierline.asgi import TierlineMiddleware
from tierline.classify import ClaudeClassifier
from tierline.starlette import claude_of
from tierline.testing import FakeClaude, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from starlette.requests import Request

LATENCY: Final = {"claude-haiku-5-5": 0.3, "claude-opus-5-5": 0.15, "claude-sonnet-5-5": 0.8}
WIDTH, NAMES, ROW, TOP = 1000, 380, 46, 34
COLOURS: Final = {"SERVER": "#64748b", "CLIENT": "#b45309", "INTERNAL": "#2563eb", "ERROR": "#dc2626"}
TOLD: Final = {
    "anthropic": ("gen_ai.request.model", "gen_ai.response.model"),
    "route": ("tierline.decision.source", "tierline.decision.label", "tierline.cost.usd", "tierline.budget.decision"),
    "classify": ("tierline.classifier.name", "tierline.classification.label", "tierline.classification.confidence"),
    "attempt": ("tierline.attempt.role", "tierline.attempt.outcome", "tierline.cost.usd"),
}
"""What is shown of a span, by the first word of its name."""


async def record() -> Sequence[ReadableSpan]:
    """The spans of one request."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    fake = FakeClaude(
        answer=lambda _: "Clause 4 waives every claim.",
        verdict=lambda _text, _labels: ("complex", 0.9),
        latency=LATENCY,
    )
    fake.always("claude-opus-5-5", Fault.overloaded())

    async def review(request: Request) -> PlainTextResponse:
        text = (await request.body()).decode()
        claude = claude_of(request).with_options(max_retries=0)
        message = await claude.messages.create(
            model="auto", max_tokens=800, messages=[{"role": "user", "content": text}]
        )
        return PlainTextResponse(message.model)

    async with fake.serve() as url:
        client = AsyncAnthropic(api_key=fake.api_key, base_url=url, open_telemetry={"tracer_provider": provider})
        router = Router(
            client, budgets=[Budget("$50/day")], classifier=ClaudeClassifier(worth=0), tracer_provider=provider
        )
        app = Starlette(routes=[Route("/contracts", review, methods=["POST"])], lifespan=router.lifespan)
        app.add_middleware(TierlineMiddleware, router=router)
        traced = OpenTelemetryMiddleware(app, tracer_provider=provider)
        async with (
            router.lifespan(app),
            client,
            httpx.AsyncClient(transport=httpx.ASGITransport(traced), base_url="http://desk") as browser,
        ):
            # The first request of a process takes longer.
            for text in ("Is it warm?", "Review: the lessee waives every claim."):
                exporter.clear()
                (await browser.post("/contracts", content=text)).raise_for_status()
    return exporter.get_finished_spans()


def in_order(spans: Sequence[ReadableSpan]) -> list[tuple[int, ReadableSpan]]:
    """Each span with its depth, children below their parent in the order in which they began."""
    found: list[tuple[int, ReadableSpan]] = []

    def walk(parent: int | None, depth: int) -> None:
        for span in sorted(spans, key=lambda span: span.start_time or 0):
            if (span.parent.span_id if span.parent else None) == parent:
                found.append((depth, span))
                walk(span.context.span_id, depth + 1)

    walk(None, 0)
    return found


def told(span: ReadableSpan) -> str:
    """The attributes that are shown."""
    values: Mapping[str, object] = span.attributes or {}
    names = TOLD.get(span.name.split(".")[0].split()[0], ())
    return " · ".join(
        f"{'$' if name.endswith('usd') else ''}{_short(values[name])}" for name in names if name in values
    )


def _short(value: object) -> str:
    return f"{value:.6f}" if isinstance(value, float) and value < 0.01 else str(value)  # noqa: PLR2004  (a cent)


def draw(spans: Sequence[ReadableSpan]) -> str:
    """The trace as SVG: a bar for each span, a tick for each event."""
    rows = in_order(spans)
    start = min(span.start_time or 0 for _, span in rows)
    whole = max(span.end_time or 0 for _, span in rows) - start
    height = TOP + ROW * len(rows) + 10
    scale = (WIDTH - NAMES - 20) / whole

    def x(time: int) -> float:
        return round(NAMES + (time - start) * scale, 1)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'aria-label="A trace: {escape(", ".join(span.name for _, span in rows), quote=True)}" '
            'font-family="ui-sans-serif, system-ui, sans-serif" font-size="13">'
        ),
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    for quarter in range(5):
        at = x(start + whole * quarter // 4)
        parts.append(f'<line x1="{at}" y1="{TOP - 6}" x2="{at}" y2="{height - 8}" stroke="#e2e8f0"/>')
        anchor = "end" if quarter == 4 else "middle"  # noqa: PLR2004  (the last)
        parts.append(
            f'<text x="{at}" y="20" fill="#64748b" font-size="11" text-anchor="{anchor}">'
            f"{whole * quarter / 4e6:.0f} ms</text>"
        )
    for row, (depth, span) in enumerate(rows):
        y = TOP + ROW * row
        began, ended = x(span.start_time or 0), x(span.end_time or 0)
        bold = ' font-weight="600"' if depth == 0 else ""
        parts += [
            f'<text x="{14 + depth * 18}" y="{y + 16}" fill="#0f172a"{bold}>{escape(span.name)}</text>',
            (
                f'<rect x="{began}" y="{y + 5}" width="{max(2.0, ended - began):.1f}" height="15" rx="3" '
                f'fill="{COLOURS["ERROR" if span.status.status_code is StatusCode.ERROR else span.kind.name]}"/>'
            ),
        ]
        if text := told(span):
            parts.append(
                f'<text x="{14 + depth * 18}" y="{y + 34}" fill="#64748b" font-size="11">{escape(text)}</text>'
            )
        free = 0.0
        for event in span.events:
            at = x(event.timestamp)
            free = max(free, at + 4)
            parts.append(f'<path d="M{at} {y + 2} v21" stroke="#0f172a" stroke-width="2"/>')
            parts.append(f'<text x="{free:.1f}" y="{y + 34}" fill="#0f172a" font-size="11">{escape(event.name)}</text>')
            free += 6.5 * len(event.name) + 8
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(asyncio.run(record())), encoding="utf-8")
