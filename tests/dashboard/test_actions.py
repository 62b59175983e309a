"""What may be done on the page: by nobody, unless the app says so, and by no other site."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.dashboard.conftest import BEARER
from tests.dashboard.test_access import sign_in
from tierline import Budget
from tierline.dashboard.actions import ACTIONS
from tierline.dashboard.guard import LONGEST_BODY
from tierline.errors import LedgerUnavailableError
from tierline.values import NANO, Classification
from tierline.verdicts.store import Kept, StoredVerdicts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx
    from starlette.requests import Request

    from tierline import Router

    Visit = Callable[..., httpx.AsyncClient]

LIMIT: dict[str, Any] = {"budget": "each", "account": "acme", "limit": "$7"}
BODIES: dict[str, dict[str, Any]] = {
    "limit": LIMIT, "breaker": {"model": "claude-haiku-5-5", "endpoint": None}, "verdicts": {},
}  # fmt: skip


def anyone(_: Request, __: str) -> bool:
    return True


async def csrf_of(browser: httpx.AsyncClient) -> dict[str, str]:
    return {"x-tierline-csrf": (await browser.get("api/overview")).json()["csrf"]}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("answer", [None, False, 1, "yes", "raise"])
async def test_nobody_may_by_default(desk: Router, visit: Visit, action: str, answer: Any) -> None:
    """Nor where the app does not say True, or fails; and the page is not told how it would be done."""

    def may_act(request: Request, action: str) -> object:
        if answer == "raise":
            raise RuntimeError("a secret")
        return answer

    browser = visit(desk, **({} if answer is None else {"may_act": may_act}))
    await sign_in(browser)
    overview = (await browser.get("api/overview")).json()
    assert (overview["actions"], overview["csrf"]) == ([], "")
    found = await browser.post(f"api/{action}", json=BODIES[action], headers={"x-tierline-csrf": ""})
    assert found.status_code == 403
    assert await desk.limits() == {}


async def test_each_action_has_its_permission(desk: Router, visit: Visit) -> None:
    """Whoever may change limits may not therefore close breakers; asked in a coroutine function, too."""

    async def may_act(request: Request, action: str) -> bool:
        return action == "limit" and request.headers.get("x-user") == "chief"

    browser = visit(desk, authorize=lambda request: request.headers.get("x-user"), may_act=may_act)
    for user, may in (("chief", ["limit"]), ("clerk", [])):
        browser.headers["x-user"] = user
        await browser.get("")
        overview = (await browser.get("api/overview")).json()
        assert overview["actions"] == may
        found = {
            action: (
                await browser.post(f"api/{action}", json=BODIES[action], headers={"x-tierline-csrf": overview["csrf"]})
            ).status_code
            for action in ACTIONS
        }
        assert found == {"limit": 204 if may else 403, "breaker": 403, "verdicts": 403}


async def test_a_limit_is_changed(desk: Router, visit: Visit, caplog: pytest.LogCaptureFixture) -> None:
    """It holds from the next call on, stands on the page at once, and the log says who did what."""
    browser = visit(desk, authorize=lambda _: "eve\n<b>", may_act=anyone)
    await browser.get("")
    headers = await csrf_of(browser)
    with caplog.at_level(logging.WARNING, "tierline"):
        assert (await browser.post("api/limit", json=LIMIT, headers=headers)).status_code == 204
    assert await desk.limits() == {("each", "acme"): 7 * NANO}
    assert "page: the limit of budget 'each', account 'acme', is $7, by 'eve\\n<b>'" in caplog.messages
    day: dict[str, Any] = {"budget": "$5/day", "account": None, "limit": "$0.50"}
    assert (await browser.post("api/limit", json=day, headers=headers)).status_code == 204
    (row,) = (await browser.get("api/overview")).json()["budgets"]
    assert (row["limit"], row["overridden"]) == (str(NANO // 2), True)
    day["limit"] = None
    assert (await browser.post("api/limit", json=day, headers=headers)).status_code == 204
    assert await desk.limits() == {("each", "acme"): 7 * NANO}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"1", b"\xff", b'{"budget": "each"}',
        b'{"budget": "each", "account": 1, "limit": "$1"}',
        b'{"budget": "each", "account": null, "limit": "$1", "more": 1}',
        b'{"budget": "each", "account": null, "limit": "1"}', b'{"budget": "each", "account": null, "limit": "$-1"}',
        b'{"budget": "each", "account": null, "limit": "$1/day"}',
        b'{"budget": "none", "account": null, "limit": "$1"}',
        b'{"budget": "each", "account": "a\\u0000", "limit": "$1"}',
        b'{"budget": "each", "account": "\\ud800", "limit": "$1"}', b"[" * 5_000,
    ],
)  # fmt: skip
async def test_what_makes_no_sense(desk: Router, visit: Visit, body: bytes) -> None:
    """Is answered with a sentence, and changes nothing."""
    browser = visit(desk, may_act=anyone)
    browser.headers.update(BEARER)
    headers = {**await csrf_of(browser), "content-type": "application/json"}
    found = await browser.post("api/limit", content=body, headers=headers)
    assert found.status_code == 422
    assert found.json()["error"]
    assert await desk.limits() == {}


async def test_what_is_too_long(desk: Router, visit: Visit) -> None:
    """Is not read to its end."""
    browser = visit(desk, may_act=anyone)
    browser.headers.update(BEARER)
    headers = {**await csrf_of(browser), "content-type": "application/json"}
    found = await browser.post("api/limit", content=b" " * (LONGEST_BODY + 1), headers=headers)
    assert found.status_code == 413


FORGED: list[tuple[dict[str, str | None], int]] = [
    ({}, 204),
    ({"origin": "http://desk.test"}, 204),
    ({"origin": "https://desk.test"}, 204),  # a proxy speaks TLS for us
    ({"sec-fetch-site": "same-origin", "origin": "https://outside.name"}, 204),  # it has another name for us, too
    ({"content-type": "application/json; charset=utf-8"}, 204),
    ({"x-tierline-csrf": None}, 403),
    ({"x-tierline-csrf": ""}, 403),
    ({"x-tierline-csrf": "0" * 64}, 403),
    ({"x-tierline-csrf": "\xe9"}, 403),
    ({"origin": "http://evil.test"}, 403),
    ({"origin": "http://desk.test.evil.test"}, 403),
    ({"origin": "http://evil.test?desk.test"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": ""}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"sec-fetch-site": "same-site"}, 403),
    ({"sec-fetch-site": "none"}, 403),
    ({"sec-fetch-site": "cross-site", "origin": "http://desk.test"}, 403),
    ({"content-type": "text/plain"}, 415),
    ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ({"content-type": None}, 415),
]


@pytest.mark.parametrize("way", ["form", "app"])
async def test_forged_requests(desk: Router, visit: Visit, way: str) -> None:
    """A session alone does nothing: what another site can make a browser send is refused."""
    options: dict[str, Any] = {} if way == "form" else {"authorize": lambda _: True}
    browser = visit(desk, may_act=anyone, **options)
    await (sign_in(browser) if way == "form" else browser.get(""))
    right = {**await csrf_of(browser), "content-type": "application/json"}
    body = b'{"budget": "each", "account": "acme", "limit": "$7"}'
    for change, status in FORGED:
        headers = {name: value.encode("latin-1") for name, value in (right | change).items() if value is not None}
        found = await browser.post("api/limit", content=body, headers=headers)
        assert found.status_code == status, change
        assert await desk.limits() == ({("each", "acme"): 7 * NANO} if status == 204 else {}), change
        await desk.set_limit("each", "acme", limit=None)


async def test_a_token_is_for_its_session(desk: Router, visit: Visit) -> None:
    """That of one who signed in is of no use to another, nor to the same one later."""
    one, other = visit(desk, may_act=anyone), visit(desk, may_act=anyone)
    await sign_in(one)
    await sign_in(other)
    mine = await csrf_of(one)
    assert mine != await csrf_of(other)
    assert (await other.post("api/limit", json=LIMIT, headers=mine)).status_code == 403
    await sign_in(one)
    assert (await one.post("api/limit", json=LIMIT, headers=mine)).status_code == 403
    assert (await one.post("api/limit", json=LIMIT, headers=await csrf_of(one))).status_code == 204


async def test_workers_know_each_others_sessions(
    make_router: Callable[..., Router], visit: Visit, tmp_path: Path
) -> None:
    """A page that one process showed may act in another one of the same store."""
    store = f"sqlite:///{tmp_path}/a.db"
    ways: list[dict[str, Any]] = [{}, {"authorize": lambda _: "me"}]
    for options in ways:
        routers = [make_router(store=store, budgets=[Budget("$5/day")]) for _ in range(2)]
        one, other = (visit(router, may_act=anyone, **options) for router in routers)
        await one.get("") if options else await sign_in(one)
        other.cookies.update(one.cookies)
        body = {"budget": "$5/day", "account": None, "limit": "$7"}
        assert (await other.post("api/limit", json=body, headers=await csrf_of(one))).status_code == 204


async def test_verdicts_are_forgotten(make_router: Callable[..., Router], visit: Visit, tmp_path: Path) -> None:
    """Those in memory here, and those that the store has for all."""
    router = make_router(store=f"sqlite:///{tmp_path}/a.db")
    router.cache.put(b"0" * 16, Classification("simple", 1.0, "claude"))
    assert router.shared is not None
    await router.shared.store.put([Kept("a", "acme", "sealed", 60.0)])
    browser = visit(router, may_act=anyone)
    browser.headers.update(BEARER)
    assert (router.cache.stats().size, await router.verdicts()) == (1, StoredVerdicts(1, 0, 0))
    assert (await browser.post("api/verdicts", json={}, headers=await csrf_of(browser))).status_code == 204
    assert (router.cache.stats().size, await router.verdicts()) == (0, StoredVerdicts(0, 0, 0))


async def test_a_breaker_is_closed(desk: Router, visit: Visit) -> None:
    """That of this worker, at one endpoint or at all of them; what is open nowhere here is said to be so."""
    browser = visit(desk, may_act=anyone)
    browser.headers.update(BEARER)
    for endpoint in ("http://a", "http://b"):
        tier = desk.health.of(endpoint, "my-model")
        for _ in range(10):
            tier.breaker.failed(float("inf"))
        assert tier.breaker.state == "open"
    headers = await csrf_of(browser)
    open_now = (await browser.get("api/overview")).json()["breakers"]
    assert {(row["model"], row["state"]) for row in open_now} == {("my-model", "open")}
    assert len({row["endpoint"] for row in open_now}) == 2
    body = {"model": "my-model", "endpoint": open_now[0]["endpoint"]}
    assert (await browser.post("api/breaker", json=body, headers=headers)).status_code == 204
    states = [desk.health.of(endpoint, "my-model").breaker.state for endpoint in ("http://a", "http://b")]
    assert sorted(states) == ["closed", "open"]
    found = await browser.post("api/breaker", json=body, headers=headers)
    assert (found.status_code, "try again" in found.json()["error"]) == (409, True)
    assert (await browser.post("api/breaker", json={**body, "endpoint": None}, headers=headers)).status_code == 204
    assert desk.health.of("http://b", "my-model").breaker.state == "closed"


async def test_nothing_is_done_while_the_store_is_away(
    desk: Router, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever wanted it done is told."""

    async def away(*_: object, **__: object) -> None:
        raise LedgerUnavailableError("no route")

    browser = visit(desk, may_act=anyone, authorize=lambda _: True)
    headers = await csrf_of(browser)
    monkeypatch.setattr(desk, "set_limit", away)
    assert (await browser.post("api/limit", json=LIMIT, headers=headers)).status_code == 503
    monkeypatch.setattr(desk.learning, "known_secret", away)
    other = visit(desk, may_act=anyone, authorize=lambda _: True)
    assert (await other.get("api/overview")).json()["csrf"] == ""
    assert (await other.post("api/limit", json=LIMIT, headers={"x-tierline-csrf": ""})).status_code == 503
