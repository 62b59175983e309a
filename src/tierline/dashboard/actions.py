"""What may be done on the page: nothing, unless `may_act` says so; and then by nobody but the page itself."""

from __future__ import annotations

import hmac
import json
import logging
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from starlette.exceptions import HTTPException

from tierline.dashboard.access import asked, csrf_of
from tierline.dashboard.guard import VIEWER, body_of, is_same_origin
from tierline.errors import ConfigurationError, LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from tierline.dashboard.access import Access, Viewer
    from tierline.router import Router

    MayAct = Callable[[Request, "Action"], object]

log: Final = logging.getLogger("tierline")

Action = Literal["limit", "breaker", "verdicts"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
HEADER: Final = "x-tierline-csrf"
_FIELDS: Final[dict[Action, dict[str, tuple[type, ...]]]] = {
    "limit": {"budget": (str,), "account": (str, type(None)), "limit": (str, type(None))},
    "breaker": {"model": (str,), "endpoint": (str, type(None))},
    "verdicts": {},
}


class Actions:
    """Of one Router."""

    def __init__(self, router: Router[Any], access: Access, may_act: MayAct | None) -> None:
        if may_act is not None and not callable(may_act):
            raise ConfigurationError(
                f"dashboard(may_act=…) takes a function of the request and the action, got {type(may_act).__name__}"
            )
        self._router, self._access, self._may_act = router, access, may_act

    async def allowed(self, request: Request) -> list[Action]:
        """What whoever asks may do."""
        return [action for action in ACTIONS if await self._may(request, action)]

    async def csrf(self, viewer: Viewer) -> str:
        """What their page sends along; empty where it cannot be known now, and nothing can be done either."""
        try:
            return csrf_of(await self._access.key(), viewer)
        except LedgerUnavailableError:
            return ""

    async def act(self, action: Action, request: Request) -> None:
        """Do it, and say so in the log. HTTPException for who may not, and for what cannot be done."""
        viewer: Viewer = request.scope[VIEWER]
        if not await self._may(request, action):
            raise HTTPException(403, "you may not do that here")
        if not is_same_origin(request):
            raise HTTPException(403, "another site sent this")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "send JSON, as content-type: application/json")
        given, known = request.headers.get(HEADER, "").encode("utf-8", "replace"), await self.csrf(viewer)
        if not known:
            raise HTTPException(503, "the store cannot be asked now")
        if not hmac.compare_digest(given, known.encode()):
            raise HTTPException(403, f"the header {HEADER} is not that of your session: load the page anew")
        said = _document(action, await body_of(request))
        try:
            what = await getattr(self, f"_{action}")(said)
        except ConfigurationError as error:
            raise HTTPException(422, str(error)) from error
        except LedgerUnavailableError as error:
            raise HTTPException(503, "the store cannot be asked now") from error
        log.warning("page: %s, by %r", what, viewer.name)

    async def _may(self, request: Request, action: Action) -> bool:
        if self._may_act is None:
            return False
        try:
            return await asked("may_act", self._may_act, request, action) is True
        except HTTPException:
            return False

    async def _limit(self, said: dict[str, Any]) -> str:
        budget, account, limit = said["budget"], said["account"], said["limit"]
        await self._router.set_limit(budget, account, limit=limit)
        whose = "all accounts" if account is None else f"account {account!r}"
        return f"the limit of budget {budget!r}, {whose}, is {limit or 'what the app says'}"

    async def _breaker(self, said: dict[str, Any]) -> str:
        model, endpoint = said["model"], said["endpoint"]
        if not self._router.health.close(model, endpoint):
            meter = self._router.meter
            raise HTTPException(
                409,
                "no such breaker is open in the worker that was asked"
                f"{f' ({meter.worker})' if meter is not None else ''}, and each has its own: try again, or wait a "
                "minute at most, and it tries by itself",
            )
        return f"the breaker of model {model!r:.200} is closed"

    async def _verdicts(self, _: dict[str, Any]) -> str:
        await self._router.forget_verdicts()
        return "all verdicts are forgotten"


def _document(action: Action, body: bytes) -> dict[str, Any]:
    """What an action is told. HTTPException (422) for anything else than its fields."""
    fields = _FIELDS[action]
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or set(said) != set(fields) or not all(
        isinstance(said[name], types) for name, types in fields.items()
    ):  # fmt: skip
        names = ", ".join(fields) or "nothing"
        raise HTTPException(422, f"send an object of JSON with these fields, and no others: {names}")
    return said
