"""What the pages about policies, tiers and endings show does what they say."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi.testclient import TestClient

from tests.pages import DOCS, names_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tierline import Router
    from tierline.testing import FakeClaude


def test_policies_stand_everywhere(answering: Callable[[], list[str | None]], fake: FakeClaude) -> None:
    """The endpoint of the page has the floor of its dependency, and the least of its caps."""
    names = names_of(DOCS / "policies.md")
    with TestClient(names["app"]) as browser:
        assert browser.post("/contracts", params={"text": "Are you open? Yes or no."}).status_code == 200
    assert (fake.requests[-1].model, fake.requests[-1].body["max_tokens"]) == ("claude-sonnet-5-5", 500)
    (decision,) = names["router"].report().by_tag
    assert decision == "team=legal"


def test_a_stream_is_settled_where_its_reader_goes_on(
    answering: Callable[[], list[str | None]], caplog: pytest.LogCaptureFixture
) -> None:
    """The line that the page writes behind a stream has what the stream cost."""
    names = names_of(DOCS / "streaming.md")
    with caplog.at_level(logging.INFO, "desk"), TestClient(names["app"]) as browser:
        assert browser.post("/stream", params={"text": "Are you open? Yes or no."}).text
        cost = names["router"].report().cost
    assert cost > 0
    (line,) = [record.getMessage() for record in caplog.records if record.name == "desk"]
    assert line.startswith("haiku, $0.0")


async def test_a_decision_is_told(here: Path, make_router: Callable[..., Router]) -> None:
    """The page's line has tier, source, cost and reasons."""
    told = names_of(DOCS / "decisions.md")["told"]
    router = make_router()
    async with router.bind():
        await router.claude.messages.create(
            model="auto", max_tokens=100, messages=[{"role": "user", "content": "Why?"}]
        )
        assert told().startswith("sonnet, chosen by fixed, $0.0")


async def test_many_texts_are_labelled(here: Path, make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """The page's function says how far it is, and a second run takes all labels from the file."""
    fake.verdict = lambda text, _: ("praise" if "Great" in text else "bug", 0.9)
    sort_mail = names_of(DOCS / "labelling.md")["sort_mail"]
    mails = [f"Great, {n}" if n % 2 else f"It broke, {n}" for n in range(25)]
    labels = ["praise" if n % 2 else "bug" for n in range(25)]
    for asked in (2, 0):
        before = len(fake.requests)
        assert await sort_mail(make_router(), mails) == labels
        assert len(fake.requests) - before == asked


async def test_steps_of_an_agent(here: Path, make_router: Callable[..., Router]) -> None:
    """A loop is routed step by step."""
    agent = names_of(DOCS / "agents.md", "per_step=True")["agent"]
    router = make_router()
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    turns: list[Any] = [{"role": "user", "content": "Look it up."}]
    used = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    loop = [
        *turns,
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "There."}]},
    ]
    async with router.bind(run="r1") as binding:
        await agent(router.claude, turns, tools)
        await agent(router.claude, loop, tools)
    assert binding.decisions[-1].source == "step"


async def test_escalation(here: Path, make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """The page's check sends an answer without a clause to the next tier, and lets one with a clause through."""
    contracts = names_of(DOCS / "escalation.md")["contracts"]
    fake.answer = lambda received: "It is so by § 5." if "sonnet" in str(received.model) else "It is so."
    fake.grade = lambda *_: 5
    router = make_router()
    with contracts:
        message = await router.claude.messages.create(
            model="auto", max_tokens=2_000, messages=[{"role": "user", "content": "Is it valid?"}]
        )
    assert message.content[-1].text == "It is so by § 5."
    assert "sonnet" in message.model
    assert router.report().escalations == 1


def test_synchronous_code(answering: Callable[[], list[str | None]], capsys: pytest.CaptureFixture[str]) -> None:
    """The `def` endpoint of the page answers, and its job runs in a script, both without a client of the app's."""
    names = names_of(DOCS / "sync.md")
    with TestClient(names["app"]) as browser:
        assert browser.post("/answer", params={"text": "Are you open on Saturday? Yes or no."}).json()
        names["job"]("acme")
    assert capsys.readouterr().out == f"{names['router'].ladder[0].name}\n"
    assert answering()
