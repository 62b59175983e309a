"""Stands before all that is mounted: nothing is answered to who may not look, and nothing without its headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tierline.dashboard.access import COOKIE, SESSION, ByToken
from tierline.dashboard.written import json_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tierline.dashboard.access import Access
    from tierline.dashboard.files import Form

VIEWER: Final = "tierline.viewer"
"""Where the scope says who looks."""
LONGEST_BODY: Final = 8_192
"""Bytes of what may be sent here."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_READS: Final = ("GET", "HEAD")
_REFUSED: Final = 1008


class Guard:
    """Pure ASGI. `access` says who may look; `form` is where people sign in, if that is done here.

    `actions` are the paths to which something may be posted.
    """

    def __init__(self, app: ASGIApp, *, access: Access, form: Form, actions: frozenset[str]) -> None:
        self.app = app
        self._access, self._form, self._actions = access, form, actions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in who may look."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": _REFUSED, "reason": "there is no WebSocket here"})
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope, receive)
        inside = {**scope, "path": path_of(scope), "root_path": ""}
        answer = await self._answer(request, inside)
        await (answer or self.app)(inside, receive, sent)

    async def _answer(self, request: Request, inside: Scope) -> Response | None:
        """What is said instead of letting somebody in; None for who may look, and is then known inside."""
        by_form = inside["path"] == "/" and isinstance(self._access, ByToken)
        try:
            if by_form and request.method == "POST":
                return await self._sign_in(request)
            viewer = await self._access.admit(request)
        except HTTPException as error:
            if by_form and error.status_code == 401 and "text/html" in request.headers.get("accept", ""):  # noqa: PLR2004
                return self._ask(error, "" if request.method in _READS else error.detail)
            return told(error)
        inside[VIEWER] = viewer
        posted = request.method == "POST" and inside["path"] in self._actions
        if request.method not in _READS and not posted:
            return told(HTTPException(405, "this can only be read", {"allow": "GET, HEAD"}))
        return None

    async def _sign_in(self, request: Request) -> Response:
        assert isinstance(self._access, ByToken)  # noqa: S101  (who asks has looked)
        if not is_same_origin(request):
            return self._ask(HTTPException(403), "That form was not of this page: type the token here.")
        form = parse_qs((await body_of(request)).decode("utf-8", "replace"))
        try:
            self._access.check(form.get("token", [""])[0].strip(), request)
        except HTTPException as error:
            return self._ask(error, f"{error.detail[:1].upper()}{error.detail[1:]}.")
        answer = RedirectResponse("./", 303)
        answer.set_cookie(
            COOKIE,
            self._access.signed(),
            max_age=SESSION,
            path=None,  # that of the page, as the browser knows it: no proxy in between needs to tell
            secure=is_secure(request),
            httponly=True,
            samesite="strict",
        )
        return answer

    def _ask(self, error: HTTPException, trouble: str) -> Response:
        headers = {**(error.headers or {}), "content-security-policy": self._form.policy}
        return HTMLResponse(self._form.saying(trouble), error.status_code, headers)


async def body_of(request: Request) -> bytes:
    """What was sent. HTTPException (413) where that is too much."""
    found = b""
    async for chunk in request.stream():
        found += chunk
        if len(found) > LONGEST_BODY:
            raise HTTPException(413, "that is too long")
    return found


def told(error: HTTPException) -> Response:
    """An error, as the page and programs read it."""
    body = json_of({"error": error.detail})
    return Response(body, error.status_code, dict(error.headers or {}), "application/json")


def path_of(scope: Scope) -> str:
    """The path below the mount.

    A proxy may have taken away what stands before the app: then only the end of `root_path` is in the path.
    """
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    places = [place for place, letter in enumerate(root) if letter == "/"]
    for place in places:
        mount = root[place:]
        if path == mount or path.startswith(f"{mount}/"):
            return path[len(mount) :] or "/"
    return path


def is_same_origin(request: Request) -> bool:
    """Whether a page of this very site sent it, or no page at all."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:  # no script can set it
        return site == "same-origin"
    origin = request.headers.get("origin")
    # A proxy may speak TLS for us: only the host is the same on both sides of it.
    return origin is None or urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower() != ""


def is_secure(request: Request) -> bool:
    """Whether the browser speaks TLS, with us or with a proxy before us."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
