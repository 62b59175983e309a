"""Every error that Tierline raises.

    TierlineError
    ├── ConfigurationError       at start-up: what was written cannot work
    ├── BudgetExceededError      a hard budget has no room for the cheapest offer
    ├── LedgerUnavailableError   the ledger cannot be asked, so nothing is sent
    ├── UnknownModelError        a model id that is on no rung and has no price
    ├── IllegalRequestError      no tier that is allowed accepts the request
    └── BusyError                never raised: how clients are told of the API's 429 and 529

    ClientGoneError              in a thread that reads an answer for a client that has gone

Errors of the Claude API are not here: they reach the app as the SDK's own types.
No message carries a prompt or a key.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from tierline.values import Refusal


BUSY: Final = (429, 529)
"""Statuses with which the API says that it is busy."""
RETRY_AFTER: Final = 10
"""Seconds after which clients are told to come back, where the API is busy and does not say for how long."""
LONGEST_RETRY_AFTER: Final = 3600
"""Most seconds that they are told."""


class TierlineError(Exception):
    """Base of all errors of Tierline.

    `status` and `headers` are how the error is answered over HTTP, `problem` is the body of that
    answer (RFC 9457, `application/problem+json`).
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Claude could not be called"

    @property
    def http_status(self) -> int:
        """The HTTP status that tells a remote client about this error."""
        return self.status

    @property
    def http_headers(self) -> dict[str, str]:
        """Headers of that answer."""
        return {}

    @property
    def problem(self) -> dict[str, Any]:
        """The body of that answer: what a remote client may know, and no more."""
        return {"type": "about:blank", "title": self.title, "status": self.http_status}


class ClientGoneError(Exception):
    """The client of the request has gone, and so the answer of Claude's that was being read for it is cut off.

    Raised in threads alone, where no cancellation comes; `TierlineMiddleware` takes it. No TierlineError: nobody is
    there to be told of it.
    """

    def __init__(self) -> None:
        super().__init__("the client of this request has gone: nobody is there to read on for")


class ConfigurationError(TierlineError):
    """Something was configured that cannot work; the message names the culprit and what to write instead."""

    title = "The service is not configured correctly"


class BudgetExceededError(TierlineError):
    """A hard budget has no room, even for the cheapest offer that the policy allows.

    `refusal` has every number behind it. As HTTP: 429 with `Retry-After` where the call would fit when the budget
    renews, 402 where waiting does not help.
    """

    title = "The budget for this service is used up"

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.refusal,)

    @property
    def http_status(self) -> int:
        """429 where waiting helps, else 402."""
        return 429 if self.refusal.fits_in is not None else 402

    @property
    def http_headers(self) -> dict[str, str]:
        """How long to wait, in whole seconds."""
        wait = self.refusal.fits_in
        return {} if wait is None else {"retry-after": str(max(1, math.ceil(wait)))}


class LedgerUnavailableError(TierlineError):
    """The ledger cannot be reached, and a hard budget must not be passed unseen. As HTTP: 503."""

    status = 503
    title = "The service cannot check its budget right now"


class UnknownModelError(TierlineError):
    """The call names a model id that is on no rung of the ladder and that the price book does not know."""

    title = "The service asked for a model that it does not know"


class IllegalRequestError(TierlineError):
    """No tier between floor and ceiling accepts the request as the app wrote it."""

    title = "The service sent a request that no allowed model accepts"


class BusyError(TierlineError):
    """The API's 429 or 529, as the app's clients are told of it: nothing of its message, only when to come back.

    Never raised: in the app they are the SDK's own errors.
    """

    status = 503
    title = "The model is busy"

    def __init__(self, status: int, wait: float | None) -> None:
        super().__init__(f"the API answered {status}, and clients are told to come back")
        # `min` first: a header may say infinity.
        self.seconds = RETRY_AFTER if wait is None else max(1, math.ceil(min(wait, LONGEST_RETRY_AFTER)))

    @property
    def http_headers(self) -> dict[str, str]:
        """How long to wait, in whole seconds."""
        return {"retry-after": str(self.seconds)}
