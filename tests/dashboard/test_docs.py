"""The page's own page of documentation: its code runs, and does what it says."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.dashboard.conftest import BEARER, TOKEN
from tests.pages import DOCS, names_of

if TYPE_CHECKING:
    import pytest

PAGE = DOCS / "dashboard.md"


async def test_the_code_of_the_page_runs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Mounted as it says, it is open to the token; by `authorize`, to operators, and chiefs among them may act."""
    monkeypatch.setenv("TIERLINE_PAGE_TOKEN", TOKEN)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    names = names_of(PAGE)
    path = "/operator/page/api/overview"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(names["app"]), base_url="http://desk.test") as browser:
        assert [(await browser.get(path, headers=headers)).status_code for headers in ({}, BEARER)] == [401, 200]

    mounted = Starlette(routes=[Mount("/operator/page", names["page"])])

    async def signed_in(scope: Any, receive: Any, send: Any) -> None:
        name = dict(scope["headers"]).get(b"x-user", b"").decode()
        user = SimpleNamespace(name=name, is_operator=name != "clerk", is_chief=name == "chief") if name else None
        await mounted({**scope, "state": {"user": user}}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(signed_in), base_url="http://desk.test") as browser:
        for user, status, actions in (("", 403, None), ("clerk", 403, None), ("joe", 200, []), ("chief", 200, 3)):
            found = await browser.get(path, headers={"x-user": user} if user else {})
            assert found.status_code == status
            if status == 200:
                assert len(found.json()["actions"]) == (actions or 0)
        headers = {"x-user": "chief", "x-tierline-csrf": found.json()["csrf"]}
        body = {"budget": "$50/day", "account": None, "limit": "$60"}
        with caplog.at_level(logging.WARNING, "tierline"):
            changed = await browser.post("/operator/page/api/limit", json=body, headers=headers)
        assert changed.status_code == 204
        assert "by 'chief'" in caplog.text
    await names["router"].aclose()


def test_it_says_what_holds() -> None:
    """Bounds in the text are those in the code."""
    from tierline.dashboard import access, live
    from tierline.traffic import meter, store

    text = " ".join(PAGE.read_text("utf-8").split())
    assert f"at least {access.LEAST} characters" in text
    assert f"once in {access.SESSION // 3_600} hours" in text
    assert f"the latest {store.MOST_DECISIONS}, of all workers; a second has at most {meter.MOST_RECORDS}" in text
    assert f"heard of within {store.ALIVE:.0f} seconds" in text
    assert f"Up to {live.MOST_STREAMS} people" in text
    assert (access.TRIES, access.PAUSE, live.Pace().life) == (10, 60, 60)
