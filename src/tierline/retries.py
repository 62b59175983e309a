"""Whether a failed attempt is tried again, and when: a budget of the process, and the wait that the API asks for."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Final

from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from types import EllipsisType

    from tierline.attempts import Reply, Timing

LONGEST_WAIT: Final = 60.0
"""Most seconds that a `Retry-After` is waited for; a longer one is answered with the error, or by another tier."""
PATIENT_FOR: Final = 10.0
"""Most seconds that are waited for a tier while another one may take the call at once."""
LEAST_LEFT: Final = 0.25
"""Seconds of a call's deadline that must be left for another attempt: a shorter one would be cut off, and billed."""
_FIRST_BACKOFF: Final = 0.5
_LONGEST_BACKOFF: Final = 8.0

SHARE: Final = 0.1
"""Further attempts that each call pays for. In a total outage a process makes 1.1 requests for each call, over time."""
BURST: Final = 10
"""Further attempts that a process may make before any call has paid for them."""
OWN_BURST: Final = 2
"""The same, of Tierline's own questions: they have a budget of their own, and take nothing from the app's."""
MOST: Final = 100
"""Most further attempts that calls pay for in advance: what a busy process has for a moment in which all is reset."""
KEPT: Final = 5
"""Of them, those that are kept for fallbacks: where one tier is down, retries of it must not use up the way out."""
_ROUNDING: Final = 1e-9
_MOST_DEBTORS: Final = 1_000
"""Most tenants whose debts are remembered: names may come from anywhere. The oldest debt is forgotten first."""


class RetryBudget:
    """How many further attempts the calls of a process may make, as a bucket of tokens. Safe from any thread.

    - each call puts in `SHARE` of a token, each retry and each fallback takes one
    - one that brings an answer gives its token back, so that only those that fail cost any
    - with no answers at all, the attempts of n calls are at most (1 + `SHARE`) * n + `burst`
    - where it has calls of several tenants, none may owe more tokens than are left for the others: those that its
      further attempts took, less those that came back and what its own calls paid

    This is how the SDKs of AWS, gRPC and Finagle keep an outage from being multiplied by those who meet it, and how
    switches share a buffer: who fails alone takes half of it, the next one half of the rest. There is no refill by
    time: it would break that bound for a process with few calls, which has its burst.
    """

    __slots__ = ("_debts", "_first", "_lock", "_shared", "_tokens")

    def __init__(self, burst: int = BURST) -> None:
        self._tokens = float(burst)
        self._lock = threading.Lock()
        self._first: str | EllipsisType | None = ...
        self._shared = False
        """Whether another tenant than the first one has called: who is alone has all of it."""
        self._debts: dict[str | None, float] = {}

    @property
    def tokens(self) -> float:
        """How many further attempts could be made now."""
        return self._tokens

    def called(self, tenant: str | None = None) -> None:
        """A call of this tenant begins; None is whoever has no name."""
        if self._first is ...:
            self._first = tenant
        elif tenant != self._first:
            self._shared = True
        if self._tokens < MOST or self._debts:
            with self._lock:
                self._tokens = min(MOST, self._tokens + SHARE)
                self._pay(tenant, SHARE)

    def take(self, kept: int = 0, tenant: str | None = None) -> bool:
        """Take the token of one further attempt. False where that would leave fewer than `kept`, or be unfair."""
        with self._lock:
            debt = self._debts.get(tenant, 0.0)
            # A tenth is no binary fraction: ten of them must be one.
            if self._tokens < 1 + kept + (debt if self._shared else 0) - _ROUNDING:
                return False
            self._tokens -= 1
            if tenant not in self._debts and len(self._debts) >= _MOST_DEBTORS:
                del self._debts[next(iter(self._debts))]
            self._debts[tenant] = debt + 1
            return True

    def give_back(self, tenant: str | None = None) -> None:
        """A further attempt brought an answer, or was not made after all."""
        with self._lock:
            self._tokens = min(MOST, self._tokens + 1)
            self._pay(tenant, 1)

    def _pay(self, tenant: str | None, tokens: float) -> None:
        debt = self._debts.get(tenant, 0.0) - tokens
        if debt > _ROUNDING:
            self._debts[tenant] = debt
        else:
            self._debts.pop(tenant, None)


def wait_before(reply: Reply, number: int, retries: int, timing: Timing, left: float = math.inf) -> float | None:
    """Seconds until retry `number`: what the API asks for, else full jitter. None where there is no retry.

    `left` is what is left of the call's deadline: a wait that would pass it is not begun.
    """
    if not reply.retry or number > retries:
        return None
    if reply.retry_after is not None:
        wait = reply.retry_after
    else:
        # The exponent is bounded, for retries need not be: 2.0 ** 1024 is no number.
        wait = timing.jitter() * min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(number - 1, 10))
    # Not so that a NaN would pass.
    return wait if wait <= LONGEST_WAIT and wait + LEAST_LEFT <= left else None


def usual_deadline(patience: float, retries: int) -> float:
    """Seconds that a call may take where nobody says: its attempts, each as long as the SDK lets it, and the waits."""
    return patience + retries * (patience + _LONGEST_BACKOFF) if patience < math.inf else math.inf


def check_deadline(seconds: float | None) -> float | None:
    """A deadline as it was written. ConfigurationError for what is no number of seconds above 0."""
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0):
        raise ConfigurationError(f"Router(deadline=…) is seconds for a whole call, more than 0, got {seconds!r:.40}")
    return seconds
