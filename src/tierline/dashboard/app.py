"""`dashboard(router, …)`: the page, as an app to mount."""

from __future__ import annotations

import asyncio
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route

from tierline.dashboard.access import COOKIE, SESSION, ByApp, ByToken, new_number
from tierline.dashboard.accounts import SORTS
from tierline.dashboard.actions import ACTIONS, Actions
from tierline.dashboard.board import RECENT, Board
from tierline.dashboard.files import Form, read_files
from tierline.dashboard.guard import HEADERS, VIEWER, Guard, is_secure, told
from tierline.dashboard.live import MOST_STREAMS, Pace, Stream
from tierline.dashboard.period import MOST_HOURS
from tierline.dashboard.sessions import Sessions
from tierline.dashboard.written import decision_row, json_of
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.router import Router

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from tierline.dashboard.access import Access, Authorize, Viewer
    from tierline.dashboard.actions import Action, MayAct
    from tierline.traffic.store import TrafficStore

T = TypeVar("T")

HOURS: Final = 24
MOST_ROWS: Final = 200
"""Most rows of one answer."""
_JSON: Final = "application/json"
_PLACE: Final = "{trace_id}"


def dashboard(
    router: Router[Any],
    *,
    authorize: Authorize | None = None,
    token: str | None = None,
    may_act: MayAct | None = None,
    trace: str | None = None,
) -> Starlette:
    """The page where the money is, for an app to mount: `app.mount("/page", dashboard(router, token=…))`.

    Everybody's spend is on it, so one of these two is needed, and stands before all that is mounted:

    - `authorize`: a plain or a coroutine function of the Starlette `Request`. True lets somebody in, and so does a
      text, their name for the log. Everything else is a no (403), as is all that it raises; an HTTPException says so in
      its own words, or leads to where people sign in
    - `token`: one secret of at least 16 ASCII characters for all who may look. Programs send it as
      `Authorization: Bearer …`, people type it into a form, once in 12 hours

    And then:

    - `may_act`: a plain or a coroutine function of the `Request` and an action (`"limit"`, `"breaker"` or
      `"verdicts"`). True lets whoever may look change a limit, close a breaker of the worker that answers, or forget
      the verdicts. By default nobody may
    - `trace`: where a trace is to be seen, such as `"http://localhost:16686/trace/{trace_id}"`

    From then on the Router records what its calls do, as with `Router(traffic=True)`: on the page is what all processes
    recorded that share its store. The app may be mounted at any path, and be served alone.

    Raises ConfigurationError for what cannot work.
    """
    if not isinstance(router, Router):
        raise ConfigurationError(f"dashboard(router) takes a Router, got {type(router).__name__}")
    access = _access(router, authorize, token)
    page = _Page(router, access, Actions(router, access, may_act), _template(trace))
    posts: dict[str, Callable[[Request], Awaitable[Response]]] = {
        f"/api/{action}": partial(page.act, action) for action in ACTIONS
    }
    if isinstance(access, ByToken):
        posts["/sign-out"] = page.sign_out
    app = Starlette(
        routes=[
            *(Route(path, endpoint, methods=["GET"]) for path, endpoint in page.shows.items()),
            *(Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()),
        ],
        middleware=[
            Middleware(Guard, access=access, form=Form(page.files["signin.html"]), actions=frozenset(posts)),
        ],
        exception_handlers={HTTPException: _told, Exception: _broken},
    )
    app.router.redirect_slashes = False
    router.record_traffic()
    return app


class _Page:
    """What is answered to who may look."""

    def __init__(self, router: Router[Any], access: Access, actions: Actions, trace: str | None) -> None:
        self._router, self._access, self._actions, self._trace = router, access, actions, trace
        self._boards: WeakKeyDictionary[asyncio.AbstractEventLoop, Board] = WeakKeyDictionary()
        self._streams: set[Stream] = set()
        self.pace = Pace()
        self.files = read_files()
        self.shows = {
            "/": self._home,
            "/static/{name:path}": self._file,
            "/api/overview": self._overview,
            "/api/events": self._events,
            "/api/accounts": self._accounts,
            "/api/decisions": self._decisions,
            "/api/decisions/{id}": self._decision,
        }

    async def act(self, action: Action, request: Request) -> Response:
        """Do something."""
        await self._actions.act(action, request)
        self._board.expire()
        return Response(status_code=204)

    async def sign_out(self, request: Request) -> Response:
        """End the session, and take the cookie back."""
        assert isinstance(self._access, ByToken)  # noqa: S101  (there is no such path otherwise)
        await self._access.end(request.scope[VIEWER])
        answer = Response(status_code=204)
        answer.set_cookie(COOKIE, "", max_age=0, path=None, secure=is_secure(request), httponly=True, samesite="strict")
        return answer

    @property
    def _board(self) -> Board:
        """That of this event loop."""
        loop = asyncio.get_running_loop()
        board = self._boards.get(loop)
        if board is None:
            board = self._boards[loop] = Board(self._router)
        return board

    async def _home(self, request: Request) -> Response:
        answer = Response(self.files["index.html"].body, media_type="text/html")
        viewer: Viewer = request.scope[VIEWER]
        if isinstance(self._access, ByApp) and not viewer.session:
            answer.set_cookie(
                COOKIE, new_number(), max_age=SESSION, path=None, secure=is_secure(request), httponly=True,
                samesite="strict",
            )  # fmt: skip
        return answer

    async def _file(self, request: Request) -> Response:
        file = self.files.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404, "there is no such file")
        headers = {"etag": file.tag, "cache-control": "private, no-cache"}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.body, 200, {**headers, "content-type": file.type})

    async def _overview(self, request: Request) -> Response:
        shot = await self._board.overview(_number(request, "hours", HOURS, 1, MOST_HOURS))
        return Response(shot.body[:-1] + b"," + (await self._tail(request))[1:], media_type=_JSON)

    async def _events(self, request: Request) -> Response | Stream:
        hours = _number(request, "hours", HOURS, 1, MOST_HOURS)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        tail = await self._tail(request)
        if len(self._streams) >= MOST_STREAMS:  # nothing is waited for from here until it is one of them
            raise HTTPException(503, "too many look at the page live", {"retry-after": "10"})
        return Stream(self._board, hours, tail, self.pace, self._streams)

    async def _accounts(self, request: Request) -> Response:
        query = request.query_params
        sort = query.get("sort", SORTS[0])
        if sort not in SORTS:
            raise HTTPException(422, f"sort is one of {', '.join(SORTS)}")
        offset = _number(request, "offset", 0, 0, 10_000_000)
        most = _number(request, "most", 50, 1, MOST_ROWS)
        board = self._board
        found = await board.page(query.get("search", ""), query.get("budget", ""), sort, offset, most)
        if found is None:
            raise HTTPException(503, board.accounts.away)
        return Response(json_of(found), media_type=_JSON)

    async def _decisions(self, request: Request) -> Response:
        most = _number(request, "most", 50, 1, MOST_ROWS)
        before = _moment(request, "before")
        if before is None and most <= RECENT:
            rows = await self._board.decisions.get()
            if rows is None:
                raise HTTPException(503, self._board.decisions.away)
        else:
            place = None if before is None else (before, request.query_params.get("id", ""))
            rows = tuple(decision_row(record) for record in await _there(self._router.decisions(most, before=place)))
        return Response(json_of({"rows": rows[:most]}), media_type=_JSON)

    async def _decision(self, request: Request) -> Response:
        record = await _there(self._router.decision(request.path_params["id"]))
        if record is None:
            raise HTTPException(404, "no such decision is kept")
        return Response(json_of(decision_row(record)), media_type=_JSON)

    async def _tail(self, request: Request) -> bytes:
        """What of an overview is for whoever asks."""
        allowed = await self._actions.allowed(request)
        viewer: Viewer = request.scope[VIEWER]
        return json_of(
            {
                "actions": allowed,
                "csrf": await self._actions.csrf(viewer) if allowed else "",
                "trace": self._trace,
                "sign_out": viewer.signed_in,
            }
        )


def _access(router: Router[Any], authorize: Authorize | None, token: str | None) -> Access:
    if (authorize is None) == (token is None):
        raise ConfigurationError(
            "dashboard(router) shows everybody's spend, and needs to know who may look: write "
            'dashboard(router, token=os.environ["TIERLINE_PAGE_TOKEN"]), or dashboard(router, authorize=…) with a '
            "function of the request that gives True for who may; one of the two"
        )
    if token is not None:
        return ByToken(token, Sessions(partial(_traffic_of, router), router.timing.now), router.timing.now)
    return ByApp(cast("Authorize", authorize), router.learning.known_secret)


def _traffic_of(router: Router[Any]) -> TrafficStore:
    assert router.meter is not None  # noqa: S101  (a page records)
    return router.meter.store


def _template(trace: str | None) -> str | None:
    if trace is None:
        return None
    if not isinstance(trace, str) or urlsplit(trace).scheme not in ("http", "https") or _PLACE not in trace:
        raise ConfigurationError(
            f"dashboard(trace={trace!r:.200}): write where a trace is to be seen, such as "
            f'"http://localhost:16686/trace/{_PLACE}"'
        )
    return trace


def _number(request: Request, name: str, usual: int, least: int, most: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return usual
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else -1  # noqa: PLR2004
    if not least <= number <= most:
        raise HTTPException(422, f"{name} is a whole number from {least} to {most}")
    return number


def _moment(request: Request, name: str) -> float | None:
    text = request.query_params.get(name, "")
    if not text:
        return None
    try:
        if isfinite(found := float(text)):
            return found
    except ValueError:
        pass
    raise HTTPException(422, f"{name} is a moment, in seconds since the epoch")


async def _there(asked: Awaitable[T]) -> T:
    """What the store says. HTTPException where it is away."""
    try:
        return await asked
    except LedgerUnavailableError as error:
        raise HTTPException(503, f"the store cannot be asked: {error}") from error


async def _told(_: Request, error: Exception) -> Response:
    return told(cast("HTTPException", error))


async def _broken(_: Request, __: Exception) -> Response:
    # The guard, which gives all else its headers, is inside of what calls this.
    return told(HTTPException(500, "the page is broken: see the log", HEADERS))
