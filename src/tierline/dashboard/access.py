"""Who may look: by a token, or by what the app says."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import ipaddress
import logging
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from cachetools import TTLCache
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from tierline.dashboard.sessions import Sessions

    Authorize = Callable[[Request], object]

log: Final = logging.getLogger("tierline")

COOKIE: Final = "tierline_page"
SESSION: Final = 12 * 3_600
"""Seconds for which somebody who signed in stays so."""
LEAST: Final = 16
"""Fewest characters of a token."""
TRIES: Final = 10
"""Wrong tokens from one address, after which it has to wait."""
PAUSE: Final = 60.0
"""Seconds of that, from the last wrong one on."""
_ADDRESSES: Final = 10_000
_LONGEST_ADDRESS: Final = 60
"""Characters that are kept of what is no IP address."""
_ERRORS: Final = range(300, 600)
_NAME: Final = 200
_PREFIX: Final = 64
"""Bits of an IPv6 address that one client has for itself, and may vary the rest of."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who may look.

    `name` is for the log, `session` what an action is bound to, `signed_in` says that the session is ours to end.
    """

    name: str
    session: str
    signed_in: bool = False


class Access(Protocol):
    """Who may look.

    - `admit` says who asks, or raises HTTPException; it never lets anybody in for want of an answer
    - `key` keys the tokens against forged requests: the same in every process of the app
    """

    async def admit(self, request: Request) -> Viewer:
        """Who asks. HTTPException for who may not look."""
        ...

    async def key(self) -> bytes:
        """LedgerUnavailableError where it is in a store that is away."""
        ...


class ByToken:
    """One secret for all who may look: in the header `Authorization: Bearer`, or typed into a form once.

    Whoever signs in has a session in a cookie: when it ends and a number, signed with the token. So every process knows
    it, none remembers it, and another token ends all sessions. Remembered are those that people have ended.
    """

    def __init__(self, token: str, sessions: Sessions, now: Callable[[], float] = time.time) -> None:
        if not isinstance(token, str) or len(token) < LEAST or not (token.isascii() and token.isprintable()):
            # What it is must not be told.
            raise ConfigurationError(
                f"dashboard(token=…) takes a secret of at least {LEAST} ASCII characters: write "
                'os.environ["TIERLINE_PAGE_TOKEN"], and make one with `python -c "import secrets; '
                'print(secrets.token_urlsafe(24))"`'
            )
        self._token = token.encode()
        self._key = hmac.digest(self._token, b"tierline page", "sha256")
        self._now, self._sessions = now, sessions
        self._wrong: TTLCache[str, int] = TTLCache(_ADDRESSES, PAUSE, timer=now)

    async def key(self) -> bytes:
        """It is made of the token."""
        return self._key

    async def admit(self, request: Request) -> Viewer:
        """Who has the token, or a session."""
        session = self._session(request.cookies.get(COOKIE, ""))
        if session and not await self._sessions.has_ended(session):
            return Viewer("session", session, signed_in=True)
        scheme, _, offered = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise HTTPException(401, "send the token, as `authorization: Bearer …`", {"www-authenticate": "Bearer"})
        self.check(offered.strip(), request)
        return Viewer("token", "token")

    def check(self, offered: str, request: Request) -> None:
        """HTTPException for a wrong token, and for any after too many of them."""
        who = _address(request)
        if self._wrong.get(who, 0) >= TRIES:
            log.warning("page: too many wrong tokens from %s", who)
            raise HTTPException(429, "too many wrong tokens: wait a minute", {"retry-after": f"{PAUSE:.0f}"})
        if not hmac.compare_digest(self._token, offered.encode("utf-8", "replace")):
            self._wrong[who] = self._wrong.get(who, 0) + 1
            raise HTTPException(401, "that is not the token", {"www-authenticate": "Bearer"})

    async def end(self, viewer: Viewer) -> None:
        """End their session, here and in the other workers."""
        if viewer.signed_in:
            await self._sessions.end(viewer.session, self._now() + SESSION)

    def signed(self) -> str:
        """A new session, as it stands in a cookie."""
        said = f"{int(self._now()) + SESSION}.{secrets.token_hex(16)}"
        return f"{said}.{self._signature(said)}"

    def _session(self, cookie: str) -> str:
        """The number of a session that goes on; empty for all else."""
        said, _, signature = cookie.rpartition(".")
        until, _, number = said.partition(".")
        good = hmac.compare_digest(self._signature(said).encode(), signature.encode("utf-8", "replace"))
        return number if good and int(until) > self._now() else ""

    def _signature(self, said: str) -> str:
        return hmac.new(self._key, said.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


class ByApp:
    """Whom the app lets in: `authorize` gives True, or the name of who asks, in a plain or a coroutine function.

    Anything else it gives, and whatever it raises, is a no; an HTTPException says so in its own words.
    """

    def __init__(self, authorize: Authorize, secret: Callable[[], Awaitable[bytes]]) -> None:
        if not callable(authorize):
            raise ConfigurationError(
                f"dashboard(authorize=…) takes a function of the request, got {type(authorize).__name__}"
            )
        self._authorize, self._secret = authorize, secret

    async def key(self) -> bytes:
        """It is made of the secret that all processes share."""
        return hmac.digest(await self._secret(), b"tierline page", "sha256")

    async def admit(self, request: Request) -> Viewer:
        """Who asks, as the app says."""
        said = await asked("authorize", self._authorize, request)
        if said is not True and not (isinstance(said, str) and said):
            raise HTTPException(403, "you may not look at this page")
        number = request.cookies.get(COOKIE, "")
        name = "" if said is True else str(said)
        return Viewer(name[:_NAME], number if _is_number(number) else "")


def new_number() -> str:
    """What a session is told by where the app has its own way to know people."""
    return secrets.token_hex(16)


async def asked(what: str, function: Callable[..., object], *given: object) -> object:
    """What a function of the app says, plain or not; None where it failed. HTTPException where it raised one."""
    try:
        said: Any = function(*given) if _is_async(function) else await run_in_threadpool(function, *given)
        return await said if inspect.isawaitable(said) else said
    except HTTPException as error:
        if error.status_code in _ERRORS:
            raise
    except Exception as error:  # noqa: BLE001  (of the app; what it says may have a secret in it)
        log.error("page: dashboard(%s=…) failed: %s", what, type(error).__name__)  # noqa: TRY400
    return None


def csrf_of(key: bytes, viewer: Viewer) -> str:
    """What a page has to send along with an action, and no other site can know."""
    said = f"action\0{viewer.session}\0{viewer.name}".encode("utf-8", "replace")
    return hmac.new(key, said, hashlib.sha256).hexdigest()


def _is_async(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _is_number(text: str) -> bool:
    return len(text) == 32 and text.isascii() and text.isalnum()  # noqa: PLR2004


def _address(request: Request) -> str:
    host = request.client.host if request.client is not None else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A server may have it from a header that anybody writes.
        return "".join(letter if letter.isprintable() else "·" for letter in host[:_LONGEST_ADDRESS])
    if address.version == 4:  # noqa: PLR2004
        return host
    return str(ipaddress.ip_network((address.packed, _PREFIX), strict=False))
