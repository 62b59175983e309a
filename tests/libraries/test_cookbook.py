"""The cookbook's code runs as it stands, and does what it says."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.needs import need
from tests.pages import DOCS, names_of
from tierline import Budget, policy
from tierline.errors import BudgetExceededError
from tierline.testing import FakeClaude, Received

if TYPE_CHECKING:
    from collections.abc import Iterator

need("pydantic_ai", "langchain_anthropic", "instructor", "boto3")

from langchain_core.messages import HumanMessage  # noqa: E402

QUESTION = "What is the largest city of Italy?"


def run(name: str) -> dict[str, Any]:
    """The names that a page's code leaves."""
    return names_of(DOCS / "cookbook" / name)


@pytest.fixture
def fake() -> FakeClaude:
    def answer(received: Received) -> str | None:
        return json.dumps({"name": "Rome", "people": 3}) if "JSON" in str(received.body.get("system")) else None

    return FakeClaude(answer=answer)


@pytest.fixture
def page(fake: FakeClaude, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names of libraries.md, its client pointed at an offline API."""
    with fake.serve_in_thread() as url:
        monkeypatch.setenv("ANTHROPIC_API_KEY", fake.api_key)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        yield run("libraries.md")


@pytest.mark.parametrize("library", ["pydantic_ai", "langchain", "instructor"])
async def test_libraries(page: dict[str, Any], fake: FakeClaude, library: str) -> None:
    """Each example gives a city, on the tier that its question and its floor ask for, at the price that is billed."""
    router, ask = page["router"], page[f"with_{library}"]
    async with router.claude, router.bind() as binding:
        assert isinstance(await ask(QUESTION), page["City"])
        with policy(floor="opus"):
            assert isinstance(await ask(QUESTION), page["City"])
        with policy(budgets=[Budget("$0.00000001")]), pytest.raises(BudgetExceededError):
            await ask(QUESTION)
    *_, routed, floored, refused = binding.decisions
    assert (routed.tier, floored.tier, refused.attempts) == ("haiku", "opus", ())
    assert sum(decision.cost for decision in binding.decisions) == fake.billed > 0


def test_langchain_does_not_slip_away(page: dict[str, Any], fake: FakeClaude) -> None:
    """The synchronous methods of the routed chat are routed too, its token count among them."""
    router, chat = page["router"], page["chat"]
    with router.bind() as binding, policy(floor="opus"):
        chat.invoke(QUESTION)
        assert chat.get_num_tokens_from_messages([HumanMessage(QUESTION)]) > 0
    assert [received.model for received in fake.requests] == ["claude-opus-5-5"] * 2
    assert binding.decisions[-1].cost == fake.billed > 0
    asyncio.run(router.claude.close())
    asyncio.run(router.aclose())


async def test_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Bedrock app of the page can be made, and its test passes."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "unused")
    page = run("platforms.md")
    assert await page["ask"]("Are you open on Saturday? Yes or no.")
    await page["router"].claude.close()
