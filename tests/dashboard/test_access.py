"""Who may look: nobody by accident."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.dashboard.conftest import BEARER, HTML, MOUNT, TOKEN
from tierline.asgi import TierlineMiddleware
from tierline.attempts import Timing
from tierline.dashboard import dashboard
from tierline.dashboard.access import COOKIE, LEAST, PAUSE, SESSION, TRIES
from tierline.errors import ConfigurationError, LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.requests import Request

    from tierline import Router

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
NEVER: Any = object()
HEADERS = {
    "x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
}  # fmt: skip


def paths_of(app: Starlette) -> list[str]:
    """One path for each route, and some that are none."""
    found = [str(getattr(route, "path", "")) for route in app.routes]
    found = [path.replace("{name:path}", "index.html").replace("{id}", "1") for path in found]
    return [*found, "/nowhere", "/static/nothing.js", "/static/%2e%2e/%2e%2e/app.py", "/api", "//", "/api/overview/"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "one of the two"),
        ({"token": TOKEN, "authorize": lambda _: True}, "one of the two"),
        ({"token": "x" * (LEAST - 1)}, "at least 16"),
        ({"token": b"x" * LEAST}, "at least 16"),
        ({"token": "ä" * LEAST}, "at least 16"),
        ({"token": f"{'x' * LEAST}\n"}, "at least 16"),
        ({"authorize": True}, "a function of the request"),
        ({"token": TOKEN, "may_act": True}, "a function of the request and the action"),
        ({"token": TOKEN, "trace": "javascript:alert({trace_id})"}, "such as"),
        ({"token": TOKEN, "trace": "http://jaeger/"}, "such as"),
        ({"token": TOKEN, "trace": 1}, "such as"),
    ],
)
def test_what_is_refused_at_the_start(router: Router, options: dict[str, Any], says: str) -> None:
    """Without a permission, with a weak one or an unclear one there is no page; the secret is not told."""
    with pytest.raises(ConfigurationError, match=says) as refused:
        dashboard(router, **options)
    assert str(options.get("token", NEVER)) not in str(refused.value)


def test_it_is_the_page_of_a_router() -> None:
    """And of nothing else."""
    with pytest.raises(ConfigurationError, match="takes a Router"):
        dashboard(object(), token=TOKEN)  # type: ignore[arg-type]


ANSWERS: list[Any] = [False, None, 1, "", b"me", [True], "raise", 403, 404, 204]


@pytest.mark.parametrize("answer", ["token", *ANSWERS], ids=repr)
async def test_nothing_is_open(router: Router, answer: Any) -> None:
    """Every path and method of the mount answers who may not look with 401, 403 or what the app says, and no data."""

    async def authorize(_: Request) -> object:
        if answer == "raise":
            raise RuntimeError("a secret")
        if type(answer) is int and answer > 1:
            raise HTTPException(answer, "said by the app")
        return answer

    app = dashboard(router, **({"token": TOKEN} if answer == "token" else {"authorize": authorize}))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(Starlette(routes=[Mount(MOUNT, app)])), base_url="http://desk.test"
    ) as browser:
        expected = 401 if answer == "token" else 404 if answer == 404 else 403
        for path in paths_of(app):
            for method in METHODS:
                found = await browser.request(method, f"{MOUNT}{path}", headers={"accept": "*/*"})
                assert found.status_code == expected, (method, path)
                if (method, path) == ("POST", "/") and answer == "token":
                    assert "<form" in found.text
                elif method != "HEAD":
                    assert set(found.json()) == {"error"}
                assert found.headers["cache-control"] == "no-store"


async def test_every_answer_has_its_headers(page: httpx.AsyncClient, router: Router) -> None:
    """Whatever the path, the method and the status: nothing is kept, framed, sniffed, or loaded from elsewhere."""
    app = dashboard(router, token=TOKEN)
    seen = set()
    for path in paths_of(app):
        if path == "/api/events":
            continue
        for method in METHODS:
            found = await page.request(method, path.lstrip("/"))
            seen.add((method, found.status_code))
            assert {name: found.headers[name] for name in HEADERS} == HEADERS
            assert "default-src 'none'" in found.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in found.headers["content-security-policy"]
            assert found.headers["cache-control"] == "no-store" or (path, found.status_code) == (
                "/static/index.html", 200,
            )  # fmt: skip
    changing = {(method, status) for method, status in seen if method not in ("GET", "HEAD", "POST")}
    assert changing == {(method, 405) for method in METHODS[3:]}


async def test_what_is_broken_has_its_headers_too(desk: Router) -> None:
    """An answer that nobody had in mind says nothing, and is kept by nobody."""

    def broken(_: Request) -> bool:
        raise HTTPException(403, detail=object())  # type: ignore[arg-type]  (no JSON)

    transport = httpx.ASGITransport(dashboard(desk, authorize=broken), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://desk.test") as browser:
        found = await browser.get("/api/overview")
    assert (found.status_code, found.json()) == (500, {"error": "the page is broken: see the log"})
    assert {name: found.headers[name] for name in HEADERS} == HEADERS
    assert found.headers["cache-control"] == "no-store"


async def test_a_program_sends_the_token(desk: Router, visit: Callable[..., httpx.AsyncClient]) -> None:
    """In the usual header, in any case of its first word; nothing else will do."""
    browser = visit(desk)
    for said, status in (
        (f"Bearer {TOKEN}", 200), (f"bearer {TOKEN}", 200), (f"Basic {TOKEN}", 401), (TOKEN, 401), ("Bearer", 401),
        (f"Bearer {TOKEN}x", 401), (f"Bearer {TOKEN.upper()}", 401),
    ):  # fmt: skip
        assert (await browser.get("api/overview", headers={"authorization": said})).status_code == status
    assert (await browser.get("api/overview", params={"token": TOKEN})).status_code == 401


async def sign_in(browser: httpx.AsyncClient, token: str = TOKEN, **headers: str) -> httpx.Response:
    form = {"content-type": "application/x-www-form-urlencoded", **HTML, **headers}
    return await browser.post("", content=f"token={quote(token)}", headers=form)


async def test_a_person_signs_in(desk: Router, visit: Callable[..., httpx.AsyncClient]) -> None:
    """A form instead of the page, the token into it once, and a session that no script can read and no site can use."""
    browser = visit(desk)
    form = await browser.get("", headers=HTML)
    assert (form.status_code, form.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert "<form" in form.text
    assert (await browser.get("api/overview", headers=HTML)).headers["content-type"] == "application/json"
    wrong = await sign_in(browser, "<script>")
    assert (wrong.status_code, "That is not the token." in wrong.text) == (401, True)
    assert "<script>" not in wrong.text
    found = await sign_in(browser)
    assert (found.status_code, found.headers["location"]) == (303, "./")
    flags = found.headers["set-cookie"].lower().split("; ")[1:]
    assert {"httponly", "samesite=strict", f"max-age={SESSION}"} <= set(flags)
    assert not any(flag.startswith(("path", "domain")) or flag == "secure" for flag in flags)
    assert TOKEN not in found.headers["set-cookie"]
    assert (await browser.get("", headers=HTML)).status_code == 200
    assert (await browser.get("api/overview")).json()["sign_out"] is True
    assert (await browser.post("sign-out")).status_code == 204
    assert (await browser.get("api/overview")).status_code == 401


async def test_who_signs_out_ends_the_session_everywhere(
    make_router: Callable[..., Router], visit: Callable[..., httpx.AsyncClient], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A copy of the cookie opens nothing any more, in no worker; other sessions go on, and the token does."""
    for what in ("EACH", "SHARE", "OLD"):  # each request asks the store anew, and waits for what it says
        monkeypatch.setattr(f"tierline.dashboard.kept.{what}", 0)
    workers = [visit(make_router(store=f"sqlite:///{tmp_path}/a.db")) for _ in range(2)]
    thief, owner, colleague = workers[1], workers[0], workers[1]
    await sign_in(owner)
    copied = {"cookie": f"{COOKIE}={owner.cookies[COOKIE]}"}
    await sign_in(colleague)
    kept = {"cookie": f"{COOKIE}={colleague.cookies[COOKIE]}"}
    for browser in workers:
        browser.cookies.clear()
        assert (await browser.get("api/overview", headers=copied)).status_code == 200
    assert (await owner.post("sign-out", headers=copied)).status_code == 204
    for browser in (owner, thief):
        assert (await browser.get("api/overview", headers=copied)).status_code == 401
        assert (await browser.post("sign-out", headers=copied)).status_code == 401
        assert (await browser.get("api/overview", headers=kept)).status_code == 200
        assert (await browser.get("api/overview", headers=BEARER)).status_code == 200


async def test_who_signs_out_while_the_store_is_away(
    desk: Router, visit: Callable[..., httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The session ends in the worker that was asked, and the log says that others were not told."""

    async def away(*_: object) -> None:
        raise LedgerUnavailableError("no route to the store")

    browser = visit(desk)
    await sign_in(browser)
    copied = {"cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    browser.cookies.clear()
    assert desk.meter is not None
    for what in ("end", "ended"):
        monkeypatch.setattr(desk.meter.store, what, away)
    assert (await browser.get("", headers={**HTML, **copied})).status_code == 200
    assert (await browser.post("sign-out", headers=copied)).status_code == 204
    assert "other workers cannot be told: no route to the store" in caplog.text
    assert (await browser.get("", headers={**HTML, **copied})).status_code == 401
    await sign_in(browser)
    assert (await browser.get("", headers=HTML)).status_code == 200


async def test_the_cookie_is_for_tls_where_the_browser_speaks_it(
    desk: Router, visit: Callable[..., httpx.AsyncClient]
) -> None:
    """With the app, or with a proxy before it."""
    browser = visit(desk)
    assert "secure" in (await sign_in(browser, origin="https://desk.test")).headers["set-cookie"].lower()
    browser = visit(desk)
    browser.base_url = httpx.URL(str(browser.base_url).replace("http:", "https:"))
    assert "secure" in (await sign_in(browser)).headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.test"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
async def test_nobody_is_signed_in_by_another_site(
    desk: Router, visit: Callable[..., httpx.AsyncClient], headers: dict[str, str]
) -> None:
    """Also not by one that knows the token."""
    found = await sign_in(visit(desk), **headers)
    assert (found.status_code, "set-cookie" in found.headers) == (403, False)


async def test_what_is_too_long_to_be_a_token(desk: Router, visit: Callable[..., httpx.AsyncClient]) -> None:
    """Is not read to its end."""
    assert (await sign_in(visit(desk), "x" * 100_000)).status_code == 413


class Clock:
    at = 1_795_262_400.0


async def test_a_session_ends(make_router: Callable[..., Router], visit: Callable[..., httpx.AsyncClient]) -> None:
    """After its time, by another token, and by any change to what is in the cookie; all processes agree on that."""
    router = make_router(timing=Timing(now=lambda: Clock.at))
    browser = visit(router)
    await sign_in(browser)
    (cookie,) = (value for name, value in browser.cookies.items() if name == COOKIE)
    until, number, signature = cookie.split(".")

    async def status(value: str, **options: Any) -> int:
        other = visit(router, **options)  # as another process would
        return (await other.get("api/overview", headers={"cookie": f"{COOKIE}={value}".encode("latin-1")})).status_code

    assert await status(cookie) == 200
    assert await status(cookie, token="another secret of them") == 401
    for forged in (
        "", ".", "..", "x", f"{int(until) + 1}.{number}.{signature}", f"{until}.{number}0.{signature}",
        f"{until}.{number}.{signature[:-1]}", f"{until}.{number}.", f"{until}.{number}", f"{cookie}.{signature}",
        "\xe9.\xe9.\xe9",
    ):  # fmt: skip
        assert await status(forged) == 401, forged
    Clock.at += SESSION
    assert await status(cookie) == 401
    Clock.at -= SESSION


async def test_wrong_tokens_are_bounded(make_router: Callable[..., Router], caplog: pytest.LogCaptureFixture) -> None:
    """After ten, nothing is taken from that network for a minute; who is signed in stays so, others may sign in."""
    router = make_router(timing=Timing(now=lambda: Clock.at))
    app = dashboard(router, token=TOKEN)

    def at(address: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://desk.test")

    async with at("2001:db8::1") as one, at("2001:db8::2:1") as neighbour, at("2001:db8:0:1::1") as other:
        await sign_in(neighbour)
        for _ in range(TRIES // 2):
            assert (await sign_in(one, "wrong")).status_code == 401
            assert (await one.get("/api/overview", headers={"authorization": "Bearer wrong"})).status_code == 401
        with caplog.at_level(logging.WARNING, "tierline"):
            refused = await sign_in(one)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        assert "too many wrong tokens from 2001:db8::/64" in caplog.text
        assert (await one.get("/api/overview", headers=BEARER)).status_code == 429
        assert (await neighbour.get("/api/overview")).status_code == 200
        assert (await sign_in(other)).status_code == 303
        Clock.at += PAUSE + 1
        assert (await sign_in(one)).status_code == 303


async def test_an_address_that_somebody_wrote(desk: Router, caplog: pytest.LogCaptureFixture) -> None:
    """Servers believe a proxy's headers: what is no address is a short and printable text in the log, and no other."""
    app = dashboard(desk, token=TOKEN)
    written = "\x1b[2J\x85page: all is well" + "x" * 60_000
    transport = httpx.ASGITransport(app, client=(written, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://desk.test") as one:
        for _ in range(TRIES):
            await sign_in(one, "wrong")
        with caplog.at_level(logging.WARNING, "tierline"):
            assert (await sign_in(one)).status_code == 429
    (line,) = [record.getMessage() for record in caplog.records if "too many wrong tokens" in record.getMessage()]
    assert line.isprintable()
    assert len(line) < 200


async def test_whom_the_app_lets_in(desk: Router, visit: Callable[..., httpx.AsyncClient]) -> None:
    """True or a name, of a plain function, a coroutine function, an object; an HTTPException says where to sign in."""

    def plain(request: Request) -> bool:
        return request.headers.get("x-user") == "me"

    async def named(request: Request) -> str | None:
        if "x-user" not in request.headers:
            raise HTTPException(307, headers={"location": "/login"})
        return request.headers["x-user"]

    class Sso:
        async def __call__(self, request: Request) -> bool:
            return plain(request)

    for authorize in (plain, named, Sso()):
        browser = visit(desk, authorize=authorize)
        assert (await browser.get("api/overview", headers={"x-user": "me"})).status_code == 200
        refused = await browser.get("", headers=HTML)
        assert refused.status_code == (307 if authorize is named else 403)
        assert (await sign_in(browser)).status_code == refused.status_code
        home = await browser.get("", headers={**HTML, "x-user": "me"})
        assert "httponly" in home.headers["set-cookie"].lower()
        assert "set-cookie" not in (await browser.get("", headers={**HTML, "x-user": "me"})).headers


def fastapi_app(router: Router) -> Any:
    app = FastAPI()
    app.add_middleware(TierlineMiddleware, router=router, headers=True)
    app.mount("/a/b", dashboard(router, token=TOKEN))
    return app


def starlette_app(router: Router) -> Any:
    app = Starlette(routes=[Mount("/a", routes=[Mount("/b", dashboard(router, token=TOKEN))])])
    return TierlineMiddleware(app, router=router)


def behind_a_proxy(router: Router) -> Any:
    inner = fastapi_app(router)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "root_path": "/proxied", "path": f"/proxied{scope['path']}"}, receive, send)

    return app


def behind_a_proxy_that_strips(router: Router) -> Any:
    inner = fastapi_app(router)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "root_path": "/proxied"}, receive, send)

    return app


def alone(router: Router) -> Any:
    return dashboard(router, token=TOKEN)


@pytest.mark.parametrize(
    ("make", "at"),
    [
        (fastapi_app, "/a/b"),
        (starlette_app, "/a/b"),
        (behind_a_proxy, "/a/b"),
        (behind_a_proxy_that_strips, "/a/b"),
        (alone, ""),
    ],
    ids=["fastapi", "starlette", "proxy", "stripped", "alone"],
)
def test_wherever_it_is_mounted(router: Router, make: Callable[[Router], Any], at: str) -> None:
    """Page, data, sign-in and refusals are the same; a WebSocket is refused; nothing of it is traffic of the app's."""
    browser = TestClient(make(router), base_url="http://desk.test", follow_redirects=False)
    assert browser.get(f"{at}/", headers=HTML).status_code == 401
    found = browser.post(f"{at}/", content=f"token={TOKEN.replace(' ', '+')}")
    assert (found.status_code, found.headers["location"]) == (303, "./")
    assert browser.get(f"{at}/", headers=HTML).status_code == 200
    assert browser.get(f"{at}/static/index.html").status_code == 200
    overview = browser.get(f"{at}/api/overview")
    assert overview.json()["total"]["calls"] == 0
    assert not any(name.startswith("x-tierline") for name in overview.headers)
    assert browser.get(f"{at}/nowhere").status_code == 404
    assert browser.post(f"{at}/api/overview").status_code == 405
    with pytest.raises(WebSocketDisconnect), browser.websocket_connect(f"{at}/api/events", headers=BEARER):
        pass
    assert router.report().calls == 0


async def test_files_come_with_their_types(page: httpx.AsyncClient) -> None:
    """Modules run as JavaScript only; a browser that has a file is told that it is the same."""
    found = await page.get("static/index.html")
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    again = await page.get("static/index.html", headers={"if-none-match": found.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
