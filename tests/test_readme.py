"""The README's code runs as it stands, and does what the README says."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.pages import ROOT, parsed
from tierline.testing import FakeClaude, offline

README = ROOT / "README.md"


@pytest.fixture
def readme(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The names that the README's code leaves, run against an offline API; its test imports its app."""
    for name in ("TIERLINE_STORE", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TIERLINE_PAGE_TOKEN", "a-long-token-of-your-own")
    fake, main = FakeClaude(), ModuleType("main")
    monkeypatch.setitem(sys.modules, "main", main)
    with fake.serve_in_thread() as url:
        monkeypatch.setenv("ANTHROPIC_API_KEY", fake.api_key)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        document = parsed(README)
        for example in document.examples():
            example.evaluate()
            vars(main).update(document.namespace)
        yield document.namespace | {"fake": fake}


async def test_the_app_of_the_readme_answers_and_routes(readme: dict[str, Any]) -> None:
    """An easy question goes to the cheapest tier, and a contract to none below its floor."""
    app, router = readme["app"], readme["router"]
    transport = httpx.ASGITransport(app)
    async with router.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://desk") as http:
        answer = await http.post("/answer", params={"text": "Are you open on Saturday? Yes or no."})
        contract = await http.post("/contracts", params={"text": "hi"})
        page = await http.get("/operator/page/", headers={"authorization": "Bearer a-long-token-of-your-own"})
        await router.claude.close()
    assert page.status_code == 200
    assert answer.json()["tier"] == "haiku"
    assert answer.json()["text"]
    assert contract.status_code == 200
    assert readme["fake"].requests[-1].model == "claude-sonnet-5-5"


async def test_the_test_of_the_readme_passes(readme: dict[str, Any]) -> None:
    """What the README shows as a test of an app is one, and passes."""
    with offline(readme["fake"]):
        await asyncio.to_thread(readme["test_contracts_never_go_to_haiku"], readme["fake"])
    assert readme["fake"].requests[-1].model == "claude-sonnet-5-5"


def test_the_readme_names_the_two_commands() -> None:
    """A newcomer finds `make demo` and `make test`."""
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text
