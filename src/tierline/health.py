"""What a process knows of the API's health: breakers, exhausted rate limits, and the budget of retries.

Kept for each model of each endpoint (an address and a key), in the Router, bounded. Safe from any thread.
"""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING, Any, Final

from tierline.breaker import Breaker
from tierline.call import whole
from tierline.limits import LONGEST, exhausted_for
from tierline.recent import keyed
from tierline.retries import OWN_BURST, RetryBudget
from tierline.traffic.base import BreakerStanding

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from tierline.attempts import Reply, Timing
    from tierline.breaker import Entry, State

    Changed = Callable[[str, State, State], None]

_MOST: Final = 1_000
"""Most models of endpoints that are told apart: ids may be an app's clients'."""
FIRST_BYTE: Final = 30.0
"""Seconds after which a stream of which no byte has come speaks of the API, and no longer of an app in a hurry."""
TOKENS_A_SECOND: Final = 35
"""How fast an answer is written at least that is sent when it is whole: the SDK expects 128,000 tokens in an hour."""
_CLIENT_ERROR: Final = range(400, 500)
_STATUSES: Final = {"overloaded_error": 529, "api_error": 500, "timeout_error": 504}
"""What an error in the middle of a stream would have been before it."""
_BUSY: Final = (429, 503, 529)
"""Statuses whose `Retry-After` holds for all calls to the model, not for one."""


def silence_of(body: Mapping[str, Any]) -> float:
    """Seconds without an answer to this request after which the API seems to be down.

    A stream begins early. Of any other answer no byte comes before it is written to its end, which may take as long as
    `max_tokens` allows: until then nobody can tell a long answer from none.
    """
    most = 0 if body.get("stream") else whole(body.get("max_tokens")) or 0
    return FIRST_BYTE + most / TOKENS_A_SECOND


class TierHealth:
    """One model of one endpoint."""

    __slots__ = (
        "_health",
        "_key",
        "_limited_at",
        "_timing",
        "breaker",
        "endpoint",
        "error",
        "limited_until",
        "model",
        "status",
    )

    def __init__(self, health: Health, key: tuple[Hashable, str], timing: Timing) -> None:
        self._health = health
        self._key = key
        self._timing = timing
        self.endpoint, self.model = key
        self.breaker = Breaker(timing.perf, timing.jitter, self._changed)
        self._limited_at = 0.0
        self.limited_until = 0.0
        """Until when the API says that nothing is left, on the clock that `Timing.perf` is; 0 where it does not."""
        self.status = 0
        self.error = ""
        """The last failure that the breaker was told of."""

    def _changed(self, before: State, state: State) -> None:
        self._note()
        self._health.changed(self.model, before, state)

    def _note(self) -> None:
        """Be among those that are looked at before a call, or no longer."""
        if (self.breaker.state != "closed" or self.limited_until) and self._health.knows(self._key, self):
            self._health.troubled.add(self)
        else:
            self._health.troubled.discard(self)

    @property
    def limited(self) -> float:
        """Seconds for which the API says that nothing is left; 0 where there may be something."""
        if not self.limited_until:
            return 0.0
        left = self.limited_until - self._timing.perf()
        if left <= 0:
            self._unlimited()
            return 0.0
        return left

    def _unlimited(self) -> None:
        self.limited_until = 0.0
        self._note()

    @property
    def why_not(self) -> str:
        """Why this tier is not tried now; empty where it may be."""
        breaker = self.breaker
        if not breaker.ready:
            if breaker.state == "half_open":
                return "its breaker is open, and one attempt is out to try it"
            left = max(0.0, breaker.until - self._timing.perf())
            return f"its breaker is open after {breaker.why}, for {left:.1f} s more"
        return f"its rate limit is exhausted for {left:.1f} s more" if (left := self.limited) else ""

    def ended(
        self, reply: Reply | None, began: float, entry: Entry, *, again: bool = False, silence: float = FIRST_BYTE
    ) -> None:
        """An attempt (`again`: a retry) that began then brought this back; None where nobody waited for it.

        A timeout is a failure of the tier after `silence` seconds, and before them the app's own choice.
        """
        breaker = self.breaker
        if reply is None:
            breaker.left(entry)
        elif not reply.error:
            breaker.answered(entry)
            if (seconds := self._exhausted(reply)) or (self.limited_until and began >= self._limited_at):
                self._limit(seconds)
        elif reply.down and (reply.error != "timeout" or not reply.sent or self._timing.perf() - began >= silence):
            self.status, self.error = reply.status, reply.error
            breaker.failed(began, entry, again=again)
        elif reply.sent and reply.status in _CLIENT_ERROR:
            breaker.refused(entry)
        else:
            breaker.left(entry)
        if reply is not None and reply.error and reply.status in _BUSY:
            seconds = reply.retry_after if reply.retry_after is not None else self._exhausted(reply)
            if seconds:
                self._limit(seconds)

    def _exhausted(self, reply: Reply) -> float | None:
        return exhausted_for(reply.limits, self._timing.now()) if reply.limits is not None else None

    def _limit(self, seconds: float | None) -> None:
        self._limited_at = now = self._timing.perf()
        self.limited_until = now + min(seconds, LONGEST) if seconds else 0.0
        self._note()

    def broke(self, error: str, began: float) -> None:
        """A stream that had begun well ended in an error of the API."""
        self.status, self.error = _STATUSES.get(error, 0), error
        self.breaker.failed(began)


class Health:
    """Of all models of all endpoints."""

    def __init__(
        self,
        timing: Timing,
        changed: Changed = lambda *_: None,
        withheld: Callable[[str], None] = lambda _: None,
        deadline: float | None = None,
    ) -> None:
        self._timing = timing
        self._tiers: dict[tuple[Hashable, str], TierHealth] = {}
        self._lock = threading.Lock()
        self._names = keyed(secrets.token_bytes(16), b"endpoint")
        self.changed = changed
        """Told of a model whose breaker changes, with its states before and after."""
        self.withheld = withheld
        """Told of an attempt that is not made, with what stands against it."""
        self.deadline = deadline
        """Seconds for a whole call, where the app says so."""
        self.retries = RetryBudget()
        self.own_retries = RetryBudget(OWN_BURST)
        self.troubled: set[TierHealth] = set()
        """Those with an open breaker or an exhausted limit. Where there are none, nobody looks any further."""

    def of(self, endpoint: Hashable, model: str) -> TierHealth:
        """That of one model."""
        key = (endpoint, model)
        found = self._tiers.get(key)
        if found is None:
            with self._lock:
                if (found := self._tiers.get(key)) is None:
                    if len(self._tiers) >= _MOST:
                        # Ids that somebody made up must not push out what is known of real ones.
                        calm = (known for known, tier in self._tiers.items() if tier not in self.troubled)
                        self.troubled.discard(self._tiers.pop(next(calm, next(iter(self._tiers)))))
                    found = self._tiers[key] = TierHealth(self, key, self._timing)
        return found

    def name_of(self, tier: TierHealth) -> str:
        """What the endpoint of a tier is called: tells nothing of an address or a key, and is new in each process."""
        digest = self._names.copy()
        digest.update(repr(tier.endpoint).encode())
        return digest.hexdigest()[:8]

    def close(self, model: str, endpoint: str | None = None) -> int:
        """Close the breakers of a model, at one endpoint (its name) or all: an operator's word. How many were open."""
        with self._lock:
            found = [tier for (_, known), tier in self._tiers.items() if known == model]
        return sum([tier.breaker.close() for tier in found if endpoint in (None, self.name_of(tier))])

    def knows(self, key: tuple[Hashable, str], tier: TierHealth) -> bool:
        """Whether it has not been dropped for want of room."""
        return self._tiers.get(key) is tier


def breakers_of(health: Health, timing: Timing, worker: str) -> tuple[BreakerStanding, ...]:
    """The breakers that are not closed, as this worker tells of them."""
    now, perf = timing.now(), timing.perf()
    return tuple(
        BreakerStanding(
            worker, tier.model, health.name_of(tier), tier.breaker.state, now + max(0.0, tier.breaker.until - perf)
        )
        for tier in tuple(health.troubled)
        if tier.breaker.state != "closed"
    )
