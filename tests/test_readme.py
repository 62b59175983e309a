"""The README's code runs as it stands, and does what the README says."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from tierline import Budget, Router
from tierline.errors import BudgetExceededError, LedgerUnavailableError
from tierline.ledger import Alert
from tierline.testing import FakeClaude, offline
from tierline.values import NANO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from sybil.document import Document

README = Path(__file__).parents[1] / "README.md"
GUIDE = README.parent / "docs" / "guide.md"


def parsed(page: Path) -> Document:
    """A page, its blocks of Python ready to run."""
    return Sybil([PythonCodeBlockParser()], path=str(page.parent), pattern=page.name).parse(page)


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


async def test_the_app_of_the_page_on_operations_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two routes answer as they are said to; with its ledger away the app is alive, and not ready."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-not-asked")
    document = parsed(GUIDE.with_name("operations.md"))
    for example in document.examples():
        example.evaluate()
    app, router = document.namespace["app"], document.namespace["router"]
    async with (
        router.lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http,
    ):
        assert ((await http.get("/ready")).status_code, (await http.get("/alive")).status_code) == (200, 200)

        async def away() -> None:
            raise LedgerUnavailableError("gone")

        monkeypatch.setattr(router.ledger, "ping", away)
        found = await http.get("/ready")
        assert (found.status_code, (await http.get("/alive")).status_code) == (503, 200)
        assert "gone" in found.json()[0]


def test_the_code_of_the_guide_runs() -> None:
    """Every block of the guide can be pasted as it stands."""
    document = parsed(GUIDE)
    examples = list(document.examples())
    assert len(examples) == GUIDE.read_text(encoding="utf-8").count("```python")
    for example in examples:
        example.evaluate()
    Router(ladder=document.namespace["ladder"], budgets=document.namespace["budgets"])


@pytest.fixture
def chapter() -> dict[str, Any]:
    """The names that the guide's chapter on budgets leaves."""
    document = parsed(GUIDE)
    text = GUIDE.read_text(encoding="utf-8")
    begin, end = text.index("## Budgets"), text.index("## Classifiers")
    for example in document.examples():
        if begin < example.start < end:
            example.evaluate()
    return document.namespace


async def test_what_the_guide_tells_operators(
    chapter: dict[str, Any], make_router: Callable[..., Router], capsys: pytest.CaptureFixture[str]
) -> None:
    """The chapter's functions raise a limit, show spend, explain a refusal and erase an account."""
    router = make_router(budgets=[Budget("$0.0001/day", per="tenant", name="plan")])
    with pytest.raises(BudgetExceededError):
        async with router.bind(tenant="acme"):
            await chapter["answer"](router, "Why is the sky blue?")
    assert "refused by budget 'plan', account 'acme'" in capsys.readouterr().out
    await chapter["more_for_acme"](router)
    assert await router.limits() == {("plan", "acme"): 20 * NANO}
    async with router.bind(tenant="acme"):
        assert await chapter["answer"](router, "Why is the sky blue?")
    await chapter["look"](router)
    shown = capsys.readouterr().out
    assert "  acme" in shown
    assert "nothing is in flight" in shown
    await chapter["forget"](router, "acme")
    assert (await router.balances(), await router.limits()) == ([], {})


async def test_the_webhook_of_the_guide(
    chapter: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[[Any], Awaitable[httpx.AsyncClient]],
) -> None:
    """The chapter's hook posts what happened to a chat."""
    posted: list[Any] = []

    async def hook(request: Request) -> Response:
        posted.append(await request.json())
        return Response()

    chat = await serve(Starlette(routes=[Route("/", hook, methods=["POST"])]))
    monkeypatch.setenv("CHAT_WEBHOOK", str(chat.base_url))
    await chapter["to_the_chat"](Alert("plan", "acme", 0.8, 8 * NANO, 10 * NANO, None))
    await chapter["to_the_chat"](Alert("plan", "acme", 1.0, 9 * NANO, 10 * NANO, None, refused=True))
    assert posted == [
        {"text": "plan, acme: 80% is reached, $8.00 of $10.00 spent"},
        {"text": "plan, acme: calls are refused, $9.00 of $10.00 spent"},
    ]


def test_the_ledger_of_the_guide(chapter: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """The chapter's ledger does what it says, and passes tests of the suite that it inherits from."""
    tests = chapter["TestLoggedLedger"]()
    tests.test_duplicate_settle()
    tests.test_thundering_herd_last_dollar()
    ledger = tests.open_ledger(lambda: 0.0, 30)
    with caplog.at_level("INFO", "audit"):
        asyncio.run(ledger.set_limit("plan", "acme", NANO))
    assert caplog.messages == ["limit of plan, acme: 1000000000 nano-USD"]


def test_the_synchronous_code_of_the_guide_works(
    monkeypatch: pytest.MonkeyPatch, fake: FakeClaude, thread_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The guide's `def` endpoint answers, and its job runs in a script, both without a client of the app's."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", fake.api_key)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", thread_url)
    document = parsed(GUIDE)
    (code,) = (example for example in document.examples() if "SyncClaude" in example.parsed)
    code.evaluate()
    with TestClient(document.namespace["app"]) as browser:
        assert browser.post("/answer", params={"text": "Are you open on Saturday? Yes or no."}).json()
        document.namespace["job"]("acme")
    assert capsys.readouterr().out == f"{document.namespace['router'].ladder[0].name}\n"
    assert {received.status for received in fake.requests} == {200}


def functions_of(*words: str) -> dict[str, Any]:
    """The names that those blocks of the guide leave which have one of the words."""
    document = parsed(GUIDE)
    for example in document.examples():
        if any(word in example.parsed for word in words):
            example.evaluate()
    return document.namespace


async def test_the_guide_labels_many_texts(
    make_router: Callable[..., Router], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeClaude
) -> None:
    """Its function says how far it is, and a second run takes all labels from the file."""
    monkeypatch.chdir(tmp_path)
    fake.verdict = lambda text, _: ("praise" if "Great" in text else "bug", 0.9)
    sort_mail = functions_of("classify_many")["sort_mail"]
    mails = [f"Great, {n}" if n % 2 else f"It broke, {n}" for n in range(25)]
    labels = ["praise" if n % 2 else "bug" for n in range(25)]
    for asked in (2, 0):
        before = len(fake.requests)
        assert await sort_mail(make_router(), mails) == labels
        assert len(fake.requests) - before == asked


async def test_the_agents_of_the_guide(
    fake: FakeClaude, thread_url: str, make_router: Callable[..., Router], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop is routed step by step, and two calls of one run are charged to one account."""
    names = functions_of("per_step=True")
    router = make_router(budgets=[Budget("$5", per="run")])
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    turns: list[Any] = [{"role": "user", "content": "Look it up."}]
    used = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    loop = [
        *turns,
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "There."}]},
    ]
    async with router.bind(run="r1") as binding:
        await names["agent"](router.claude, turns, tools)
        await names["agent"](router.claude, loop, tools)
    assert binding.decisions[-1].source == "step"
    monkeypatch.setenv("ANTHROPIC_API_KEY", fake.api_key)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", thread_url)
    names = functions_of('per="run"')
    before = len(fake.requests)
    for _ in range(2):
        await names["step"]("r2", turns)
    (balance,) = await names["router"].balances("acme/r2")
    assert balance.spent == sum(received.billed for received in fake.requests[before:]) > 0
    await names["router"].aclose()


async def test_the_escalation_of_the_guide(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """Its check sends an answer without a clause to the next tier, and lets one with a clause through."""
    contracts = functions_of("cites_a_clause")["contracts"]
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


def test_the_readme_names_the_two_commands() -> None:
    """A newcomer finds `make demo` and `make test`."""
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text
