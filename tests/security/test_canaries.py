"""Prompts, keys and forged lines in what is written, shown and kept: F of the hostile catalogue, 84.

`tests.canaries` watches every test for what comes out by itself. Here everything is turned on that Tierline has, every
kind of end is met, and all of it is searched: what was logged, traced, counted, stored and shown, and every object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anthropic
import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.routing import Mount
from typer.testing import CliRunner

from tests.apps import app_of
from tests.canaries import Watch, watching
from tests.serving import serving
from tierline import Budget, Router, policy
from tierline.classify import ClaudeClassifier
from tierline.cli.app import app as command
from tierline.dashboard import dashboard
from tierline.errors import TierlineError
from tierline.escalation.rules import Escalate
from tierline.testing import FakeClaude, Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    MakeRouter = Callable[..., Router]

PROMPT = "canary-prompt-5d1e7c\r\nERROR forged line\x1b[2J"
SAID = "canary-answer-5d1e7c\r\nERROR forged line"
KEY = "sk-ant-canary-key-5d1e7c"
WORDS = ("canary-prompt", "canary-answer", KEY, "forged line")
TOKEN = "a token of the tests"

FAULTS = [
    None, Fault.error(400, message=f"{PROMPT} {KEY}"), Fault.error(401, message=f"{PROMPT} {KEY}"),
    Fault.error(500, message=PROMPT), Fault.rate_limit(message=f"{KEY} {PROMPT}"), Fault.overloaded(), Fault.html(),
    Fault.missing_usage(), Fault.truncated_json(), Fault.reset(), Fault.reset_after(3),
    Fault.error_event(message=PROMPT),    Fault.clean_eof(), Fault.usage(output_tokens="canary-answer"),
]  # fmt: skip


class Broken:
    """A classifier of the app's that tells the prompt in its error."""

    name, fingerprint, cacheable = "mine", "1", False

    async def classify(self, view: Any, consult: Any) -> Any:
        raise RuntimeError(view.text)


def check(message: Any) -> bool:
    raise ValueError(f"{SAID} {message}")


async def canary_in(claude: Any, number: int, *, stream: bool) -> None:
    """A call with canaries wherever a request has room for them."""
    said: list[Any] = [
        {"role": "user", "content": f"{PROMPT} before"},
        {"role": "assistant", "content": SAID},
        {"role": "user", "content": [{"type": "text", "text": f"{PROMPT} {number}"}]},
    ]
    tools: list[Any] = [{"name": "look", "description": PROMPT, "input_schema": {"type": "object"}}]
    body: dict[str, Any] = {
        "model": "auto", "max_tokens": 60, "messages": said, "system": PROMPT, "tools": tools,
        "stop_sequences": [PROMPT], "metadata": {"user_id": PROMPT},
    }  # fmt: skip
    with suppress(Exception):  # the SDK's, the API's or Tierline's: what they leave behind is looked at
        if stream:
            async with claude.messages.stream(**body) as answer:
                await answer.get_final_message()
        else:
            await claude.messages.create(**body)


def ours() -> list[str]:
    """The repr of every object of Tierline's there is, but of the stand-in for the API, which is the other side."""
    found = []
    for each in gc.get_objects():
        kind = type(each)
        if kind.__module__.startswith("tierline") and not kind.__module__.startswith("tierline.testing"):
            with suppress(Exception):
                found.append(repr(each))
    return found


@pytest.mark.parametrize("faults", [FAULTS[:7], FAULTS[7:]], ids=["whole", "cut"])
async def test_canary_key_prompt_leak_crlf_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, defaults: dict[str, Any], faults: list[Fault | None]
) -> None:
    """84: with all of it on and every kind of failure, no prompt, answer or key is anywhere, and no line is forged."""
    caplog.set_level(logging.DEBUG, "tierline")
    fake = FakeClaude(api_key=KEY, answer=lambda _: SAID)
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    metering = MeterProvider([reader])
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    store, log = tmp_path / "tierline.db", tmp_path / "decisions.jsonl"
    async with fake.serve() as url, anthropic.AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0) as sdk:
        for classifier in (ClaudeClassifier(), Broken()):
            router: Any = Router(
                sdk,
                **defaults | {"classifier": classifier},
                budgets=[Budget("$5/day"), Budget("$1/hour", per="tenant", name="each"), Budget("$2", per="run")],
                store=f"sqlite:///{store}",
                tracer_provider=tracing,
                meter_provider=metering,
                decision_log=log,
                traffic=True,
                shadow=1.0,
                shadow_budget="$1/day",
                cache_prompt=True,
                policy=policy(escalate=Escalate(json=True, check=check, graded=True), speculate=True, quality=0.9),
            )
            async with router.lifespan():
                for number, fault in enumerate(faults):
                    for stream in (False, True):
                        if fault is not None:
                            fake.script(fault)
                        async with router.bind(tenant="acme", route="/answer", run="r") as binding:
                            binding.conversation = PROMPT
                            await canary_in(router.claude, number, stream=stream)
                        fake.clear()
                        for decision in binding.decisions:
                            with suppress(TierlineError):
                                await router.grade(decision.handle, good=True, by="acme")
                await fake.idle()
                told = [str(router.report()), str(await router.history(0)), str(await router.holds())]
                told += [repr(await router.balances()), repr(router.shadows()), json.dumps(await router.decisions())]
                told += [str(await router.traffic(0)), repr(binding.decisions), *ours()]
                told += [repr(pickle.dumps(tuple(binding.decisions))), await _page(router)]
    told += [repr((s.name, dict(s.attributes or {}), s.status.description)) for s in _of_ours(exporter)]
    told += [repr(dict(event.attributes or {})) for s in _of_ours(exporter) for event in s.events]
    told.append(str(reader.get_metrics_data()))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("tierline")]
    # The table of the report is the one text of several lines.
    single = [line for line in lines if not line.startswith("what this process did")]
    assert not [line for line in single if "\n" in line or "\r" in line or "\x1b" in line]
    told += lines
    for words in (["report"], ["watch", "--once"], ["budgets"], ["cache"]):
        # It runs a loop of its own.
        arguments = [*words, "--store", f"sqlite:///{store}"]
        told.append((await asyncio.to_thread(CliRunner().invoke, command, arguments)).output)
    told += _files(tmp_path)
    assert len(told) > 300
    assert len(_of_ours(exporter)) > 20
    assert len(log.read_text().splitlines()) >= 2 * len(faults)
    assert sum(request.status == 200 for request in fake.requests) > 10
    assert [(word, text[:300]) for text in told for word in WORDS if word in text] == []


def _of_ours(exporter: InMemorySpanExporter) -> list[Any]:
    """The spans of Tierline: what others tell of the same calls is theirs."""
    return [
        span
        for span in exporter.get_finished_spans()
        if span.instrumentation_scope is not None and span.instrumentation_scope.name.startswith("tierline")
    ]


def _files(directory: Path) -> list[str]:
    """All that is in the files of a directory, byte by byte."""
    return [repr(file.read_bytes()) for file in sorted(directory.iterdir()) if file.is_file()]


async def _page(router: Router) -> str:
    """All that an operator's page shows, as JSON."""
    app = Starlette(routes=[Mount("/page", dashboard(router, token=TOKEN))])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://desk.test/page/",
        headers={"authorization": f"Bearer {TOKEN}"},
    ) as browser:
        found = [await browser.get(f"api/{name}") for name in ("overview", "accounts", "decisions", "routes")]
    return "".join(each.text for each in found)


async def test_canaries_of_refusals_over_http(fake: FakeClaude, make_router: MakeRouter) -> None:
    """84: what a remote client is told of an error has no prompt, no key, no amount, and no name of an account."""
    router = make_router(budgets=[Budget("$0.000123", per="tenant", name="canary-budget")])
    told = []
    async with (
        serving(app_of(router, headers=True, server_timing=True, busy_as_503=True)) as url,
        httpx.AsyncClient(base_url=url) as browser,
    ):
        for fault in (None, Fault.overloaded(), Fault.rate_limit(message=f"{PROMPT} {KEY}")):
            if fault is not None:
                fake.always(None, fault)
            found = await browser.get("/answer", headers={"x-tenant": "canary-tenant"})
            told.append(f"{found.headers} {found.text}")
    assert not [text for text in told for word in (*WORDS, "canary-budget", "canary-tenant", "000123") if word in text]


@pytest.mark.texts
async def test_the_watch_sees_every_door(tmp_path: Path, defaults: dict[str, Any]) -> None:
    """What `tests.canaries` looks for it finds: in a log line, a span, a metric, a file, and what Redis is sent."""
    import sqlite3

    from redis.asyncio.connection import Connection

    provider, meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
    with watching() as watch:
        fake = FakeClaude()
        async with fake.client() as client:
            await client.messages.create(
                model="claude-haiku-5-5", max_tokens=9, messages=[{"role": "user", "content": "a canary of this test"}]
            )
        assert watch.leaks(tmp_path) == []
        logging.getLogger("tierline").error("this was: %s", "a canary of this test")
        tracer: Any = provider.get_tracer("tierline")
        tracer.start_span("route", attributes={"text": "a canary of this test"}).end()
        meters.get_meter("tierline").create_counter("n").add(1, {"text": "a canary of this test"})
        with sqlite3.connect(tmp_path / "a.db") as db:
            db.execute("CREATE TABLE t AS SELECT 'a canary of this test'")
        db.close()
        with suppress(Exception):
            await Connection(port=1).send_packed_command([b"SET k a canary of this test"])
        logging.getLogger("tierline").error(fake.api_key)
    found = watch.leaks(tmp_path)
    assert isinstance(watch, Watch)
    assert {leak.rpartition(" in ")[2] for leak in found} == {
        "a log line", "a span", "a metric", "a.db", "what Redis was sent",
    }  # fmt: skip
    assert len(found) == 6
