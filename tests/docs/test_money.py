"""What the pages about money show does what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from tests.pages import DOCS, names_of
from tierline import Budget, Router
from tierline.errors import BudgetExceededError
from tierline.ledger import Alert
from tierline.values import NANO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import httpx
    from starlette.requests import Request

    from tierline.testing import FakeClaude


async def test_what_operators_are_told(
    here: Path, make_router: Callable[..., Router], capsys: pytest.CaptureFixture[str]
) -> None:
    """The functions of two pages raise a limit, show spend, explain a refusal and erase an account."""
    budgets, spending = names_of(DOCS / "budgets.md"), names_of(DOCS / "spending.md")
    Router(budgets=budgets["budgets"])
    router = make_router(budgets=[Budget("$0.0001/day", per="tenant", name="plan")], traffic=True)
    with pytest.raises(BudgetExceededError):
        async with router.bind(tenant="acme"):
            await spending["answer"](router, "Why is the sky blue?")
    assert "refused by budget 'plan', account 'acme'" in capsys.readouterr().out
    await budgets["more_for_acme"](router)
    assert await router.limits() == {("plan", "acme"): 20 * NANO}
    async with router.bind(tenant="acme"):
        assert await spending["answer"](router, "Why is the sky blue?")
    await spending["look"](router)
    shown = capsys.readouterr().out
    assert "  acme" in shown
    assert "nothing is in flight" in shown
    await spending["busy"](router)
    shown = capsys.readouterr().out
    assert shown.startswith("traffic from ")
    assert "budget plan refused: $0.0001 left" in shown
    await spending["forget"](router, "acme")
    assert (await router.balances(), await router.limits()) == ([], {})


async def test_the_webhook(
    here: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Any], Awaitable[httpx.AsyncClient]]
) -> None:
    """The hook for alerts posts what happened to a chat."""
    posted: list[Any] = []

    async def hook(request: Request) -> Response:
        posted.append(await request.json())
        return Response()

    chat = await serve(Starlette(routes=[Route("/", hook, methods=["POST"])]))
    monkeypatch.setenv("CHAT_WEBHOOK", str(chat.base_url))
    to_the_chat = names_of(DOCS / "budgets.md")["to_the_chat"]
    await to_the_chat(Alert("plan", "acme", 0.8, 8 * NANO, 10 * NANO, None))
    await to_the_chat(Alert("plan", "acme", 1.0, 9 * NANO, 10 * NANO, None, refused=True))
    assert posted == [
        {"text": "plan, acme: 80% is reached, $8.00 of $10.00 spent"},
        {"text": "plan, acme: calls are refused, $9.00 of $10.00 spent"},
    ]


async def test_a_run(answering: Callable[[], list[str | None]], fake: FakeClaude) -> None:
    """Two calls that are bound to one run are charged to one account."""
    names = names_of(DOCS / "agents.md", 'per="run"')
    for _ in range(2):
        await names["step"]("r2", [{"role": "user", "content": "Look it up."}])
    (balance,) = await names["router"].balances("acme/r2")
    assert balance.spent == sum(received.billed for received in fake.requests) > 0
    await names["router"].aclose()
