"""Texts on spans: none by default, and by the opt-in as much as the SDK would have put there."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as names

from tests.apps import CANARY, ask
from tierline import policy
from tierline.call import read_call
from tierline.chat import Chat
from tierline.display import MOST_CHARS
from tierline.sdkspans import CAPTURE
from tierline.telemetry import CallTrace
from tierline.testing import FakeClaude, Reply

if TYPE_CHECKING:
    from tests.traces.collector import Collected, Collector
    from tests.traces.conftest import Stage

pytestmark = pytest.mark.usefixtures("quiet")

SAID = "An answer of which nobody is to know."
WORDS = (names.GEN_AI_INPUT_MESSAGES, names.GEN_AI_OUTPUT_MESSAGES, names.GEN_AI_SYSTEM_INSTRUCTIONS)
TOOL = {"name": "look_up", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}


def words_of(span: Collected) -> dict[str, Any]:
    """The texts on a span; tools are called by other ids each time."""
    told = {name: re.sub(r"toolu_\w+", "toolu", span.attributes[name]) for name in WORDS if name in span.attributes}
    return {name: json.loads(text) for name, text in told.items()}


def calls(collector: Collector) -> list[Collected]:
    return sorted((span for span in collector.spans if span.kind == "CLIENT"), key=lambda span: span.start)


async def test_none_by_default(stage: Stage, collector: Collector, fake: FakeClaude) -> None:
    """No text is on any span, whatever the call is like."""
    fake.answer = lambda _: SAID
    router = stage.router()
    await router.claude.messages.create(**ask(system=f"Mind the {CANARY}", stop_sequences=[CANARY]))
    async with router.claude.messages.stream(**ask()) as stream:
        await stream.get_final_message()
    await stage.ended(lambda span: span.kind == "CLIENT", 2)
    assert CANARY.encode() not in collector.bytes
    assert SAID.encode() not in collector.bytes


@pytest.mark.parametrize("value", ["SPAN_ONLY", "span_and_event", "true", "EVENT_ONLY", "NO_CONTENT", "false", ""])
@pytest.mark.parametrize("stage", [("off", "http")], indirect=True, ids=[""])
@pytest.mark.texts
async def test_by_the_variable(
    stage: Stage, collector: Collector, fake: FakeClaude, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """The conventions' variable opts in where it speaks of spans, and there alone."""
    monkeypatch.setenv(CAPTURE, value)
    fake.answer = lambda _: SAID
    stage.opted_in = True
    await stage.router().claude.messages.create(**ask())
    await stage.ended(lambda span: span.kind == "CLIENT")
    (call,) = calls(collector)
    wanted = value.lower() in ("span_only", "span_and_event", "true")
    assert ((CANARY in str(words_of(call))), (SAID in str(words_of(call)))) == (wanted, wanted)
    assert not [span for span in collector.spans if span.kind == "INTERNAL" and CANARY in str(span)]


@pytest.mark.parametrize("stage", [("off", "http")], indirect=True, ids=[""])
@pytest.mark.parametrize("way", ["whole", "tools", "stream", "tool stream", "held stream"])
@pytest.mark.texts
async def test_as_the_sdk_does(stage: Stage, collector: Collector, fake: FakeClaude, way: str) -> None:
    """With texts opted into on the client, ours are those that the SDK's own span has of the same call."""
    stage.opted_in = True
    fake.answer = lambda _: Reply(SAID, tool="look_up", input={"q": "ä" * 40}) if "tool" in way else SAID
    asked = ask(system=f"Mind the {CANARY}", stop_sequences=["\n\nHuman:"])
    if "tool" in way:
        asked["tools"] = [TOOL]
    for sdk in (True, False):
        stage.sdk = sdk
        router = stage.router(client=stage.client(content_mode="content"))
        with policy(escalate="held" in way or None):
            if "stream" in way:
                async with router.claude.messages.stream(**asked) as stream:
                    await stream.get_final_message()
            else:
                await router.claude.messages.create(**asked)
    await stage.ended(lambda span: span.kind == "CLIENT", 2)
    theirs, ours = calls(collector)
    assert (theirs.scope, ours.scope) == ("com.anthropic.sdk.python", "tierline")
    assert words_of(ours) == words_of(theirs)
    assert set(words_of(ours)) == set(WORDS)
    assert SAID in ours.attributes[names.GEN_AI_OUTPUT_MESSAGES]
    assert ours.attributes["gen_ai.request.stop_sequences"] == theirs.attributes["gen_ai.request.stop_sequences"]
    assert not [
        span for span in collector.spans if span.kind == "INTERNAL" and (CANARY in str(span) or SAID in str(span))
    ]


async def test_a_hostile_model(stage: Stage, collector: Collector) -> None:
    """A model id that is no text, or a very long one, keeps no span from being exported."""
    call = read_call("create", ask(model="m\ud800" + "x" * 1_000))
    assert call is not None
    told = CallTrace(stage.provider.get_tracer("tierline"), Chat("anthropic", "localhost", 443), call)
    assert told.chat is not None
    told.chat.end("m", None, first_chunk=None, output=lambda: None, error="")
    await stage.ended(lambda span: span.kind == "CLIENT")
    (found,) = calls(collector)
    assert found.attributes["gen_ai.request.model"] == "m?" + "x" * (MOST_CHARS - 2)
