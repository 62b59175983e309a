"""The page's own routes, asked for anything: they answer, never with a 500, and say nothing to who may not look."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.redis_server import redis_server
from tierline import Budget, Router
from tierline.dashboard import dashboard
from tierline.dashboard.actions import HEADER
from tierline.ledger import RedisLedger, SQLiteLedger
from tierline.store.redis import RedisStore
from tierline.store.sqlite import SQLiteStore
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CANARY: Final = "canary-of-a-tenant"
TOKEN: Final = "a token of the tests"
LOOKS: Final = ("", "api/overview", "api/accounts", "api/decisions", "api/decisions/{}", "static/{}", "{}")
ACTS: Final = ("api/limit", "api/breaker", "api/verdicts", "sign-out", "sign-in", "{}")
NAMES: Final = (
    "hours", "sort", "offset", "most", "search", "budget", "before", "id", "account", "limit", "model", "endpoint",
)  # fmt: skip
ODD: Final = (
    "0", "-1", "9" * 400, "nan", "inf", "1e999", "daily", CANARY, "\x00", "../..", "\ud800", "٣", "$5/day", "%00",
    "a\r\nb",
)  # fmt: skip
SENT: Final = ("application/json", "*/*", "text/html", "null", "http://desk.test", "a" * 300, "", "tierline=x; y")

words = st.text(max_size=30) | st.sampled_from(ODD)
queries = st.dictionaries(st.sampled_from(NAMES), words, max_size=4)
bodies = st.binary(max_size=50) | st.dictionaries(
    st.sampled_from(NAMES), words | st.none() | st.integers() | st.floats(), max_size=4
).map(lambda found: json.dumps(found).encode())
headers = st.dictionaries(
    st.sampled_from([HEADER, "origin", "host", "accept", "if-none-match", "content-type", "cookie", "sec-fetch-site"]),
    st.sampled_from(SENT),
    max_size=3,
)


def written(text: str) -> str:
    """As it stands in a URL, whatever it is."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def page(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """A page over each store, with a tenant's spend on it; whoever looks may act."""
    fake = FakeClaude()
    async with AsyncExitStack() as resources, fake.client() as client:
        options: dict[str, Any] = {}
        if request.param == "sqlite":
            options = {"ledger": SQLiteLedger(SQLiteStore(tmp_path / "a.db", timeout=5))}
        if request.param == "redis":
            server = resources.enter_context(redis_server())
            options = {"ledger": RedisLedger(RedisStore(server.url, timeout=5))}
        router = Router(client, budgets=[Budget("$5/day", per="tenant", name="daily")], **options)
        app = Starlette(routes=[Mount("/page", dashboard(router, token=TOKEN, may_act=lambda *_: True))])
        async with router.bind(tenant=CANARY):
            await router.claude.messages.create(
                model="auto", max_tokens=5, messages=[{"role": "user", "content": "hello"}]
            )
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk.test") as browser:
            yield browser
        await router.aclose()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    look=st.sampled_from(LOOKS), act=st.sampled_from(ACTS), word=words, query=queries, body=bodies, said=headers,
    reading=st.booleans(), known=st.booleans(), valid=st.booleans(),
)  # fmt: skip
async def test_anything_is_answered(
    page: Any, look: str, act: str, word: str, query: Any, body: bytes, said: Any,
    reading: bool, known: bool, valid: bool,
) -> None:  # fmt: skip
    """Below 500, and with no tenant in it for a stranger."""
    bearer = {"authorization": f"Bearer {TOKEN}"} if known else {}
    asked = "&".join(f"{name}={written(value)}" for name, value in query.items())
    at = (look if reading else act).replace("{}", written(word))
    if at.startswith("api/events"):
        return  # it has no end
    if not reading and known and valid:
        told = (await page.get("/page/api/overview", headers=bearer)).json()
        said = {**said, HEADER: told["csrf"], "content-type": "application/json"}
    sent = {name: value.encode("utf-8", "replace") for name, value in {**bearer, **said}.items()}
    answer = await page.request("GET" if reading else "POST", f"/page/{at}?{asked}", headers=sent, content=body)
    assert answer.status_code < 500, (answer.status_code, at, answer.text)
    if not known:
        assert CANARY not in answer.text
        assert "daily" not in answer.text
