"""How errors are told to the app's clients: as HTTP, as an event of a stream, as the close of a WebSocket.

Nothing here imports the SDK: where an error of the API is to be told, the SDK has been loaded.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from tierline.binding import bound_to
from tierline.errors import BUSY, BusyError, TierlineError
from tierline.limits import retry_after

if TYPE_CHECKING:
    from tierline.binding import Binding

log: Final = logging.getLogger("tierline")

_BUSY_TYPES: Final = ("rate_limit_error", "overloaded_error")
"""The same, where it is said in the middle of a stream that began with 200."""
_POLICY_VIOLATION: Final = 1008
_INTERNAL_ERROR: Final = 1011
_TRY_AGAIN_LATER: Final = 1013
_SERVER_ERROR: Final = 500


def told(raised: BaseException | None, *, busy_as_503: bool) -> TierlineError | None:
    """What clients are told of an error; None where that is the app's business.

    Of a group, which tasks of one request raised together, the first is told where all of them may be.
    """
    if isinstance(raised, BaseExceptionGroup):
        found = [told(error, busy_as_503=busy_as_503) for error in raised.exceptions]
        return None if None in found else found[0]
    if isinstance(raised, TierlineError):
        return raised
    return _busy(raised) if busy_as_503 else None


def _busy(raised: BaseException | None) -> BusyError | None:
    sdk: Any = sys.modules.get("anthropic")
    if sdk is None or not isinstance(raised, sdk.APIStatusError):
        return None
    error: Any = raised
    if error.status_code not in BUSY and getattr(error, "type", None) not in _BUSY_TYPES:
        return None
    return BusyError(error.status_code, retry_after(error.response.headers))


def answer_to(error: TierlineError) -> JSONResponse:
    """The answer over HTTP."""
    return JSONResponse(error.problem, error.http_status, error.http_headers, media_type="application/problem+json")


def close_code(error: TierlineError) -> int:
    """How a WebSocket is told: whether to come back later, as 429, 402, 503 and 500 tell it over HTTP."""
    return {402: _POLICY_VIOLATION, 429: _TRY_AGAIN_LATER, 503: _TRY_AGAIN_LATER}.get(
        error.http_status, _INTERNAL_ERROR
    )


def say(error: TierlineError) -> None:
    """Tell the operator what the client is not told. Messages carry no prompt and no key."""
    log.log(
        logging.ERROR if error.http_status == _SERVER_ERROR else logging.INFO, "%s: %s", type(error).__name__, error
    )


def prepare(binding: Binding) -> None:
    """Let Starlette's own exception handling answer, below CORS and the like. The app's own handlers come first."""
    found = binding.scope.get("starlette.exception_handlers") if binding.scope is not None else None
    if not found:
        return
    handlers = found[0]
    handlers.setdefault(TierlineError, _handle)
    handlers.setdefault(BaseExceptionGroup, _handle)
    if binding.busy_as_503:
        sdk: Any = sys.modules.get("anthropic")
        # Whoever handles a base of these errors handles them.
        if sdk is not None and not any(base in handlers for base in sdk.APIStatusError.__mro__[:-3]):
            handlers[sdk.APIStatusError] = _handle


async def _handle(connection: Any, raised: Exception) -> JSONResponse | None:
    # The handlers are those of a whole app; what is told is a matter of the request.
    binding = bound_to(connection.scope)
    error = told(raised, busy_as_503=binding is not None and binding.busy_as_503)
    if error is None:
        raise raised
    say(error)
    if not isinstance(connection, WebSocket):
        return answer_to(error)
    if WebSocketState.DISCONNECTED not in (connection.client_state, connection.application_state):
        with suppress(WebSocketDisconnect):
            await connection.close(close_code(error), error.title)
    return None
