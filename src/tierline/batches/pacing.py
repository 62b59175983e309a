"""How fast the concurrent lane goes: within the rate limits that the API's headers tell of, and a window that adapts.

Limits are those of a model of an endpoint: requests, and tokens of input and output, in a minute. As the API has them
they are buckets, which fill at an even rate; what is known of one comes from the headers of each answer, and what is
sent meanwhile is taken from it here. So calls wait before they are sent, and a 429 is the exception: after one, nothing
is sent to that model until the API said, and the window is halved.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from tierline.attempts import Reply, Timing
    from tierline.values import Attempt

START: Final = 5
"""Calls at a time, to begin with."""
MOST: Final = 100
"""Calls at a time, at most, of all jobs of one event loop."""
KEPT: Final = 0.05
"""The share of each limit that is left to the app's other calls: with nothing left, they would go to other tiers."""
_MINUTE: Final = 60.0
_LOOK: Final = 2.0
"""Seconds after which a call that waits looks again: answers may have come that say more."""
_LONGEST: Final = 3600.0
_FIRST_WAIT: Final = 1.0
"""Seconds without a call to a model after a 429 that does not say for how long."""
_BUSY: Final = (429, 503, 529)
_RATE_LIMITED: Final = 429
_DENSITY: Final = 0.3
"""Tokens of input for each character of JSON, until answers have told."""
_WEIGHT: Final = 0.1
"""Of the latest answer, in what is expected of the next one."""
_KINDS: Final = ("requests", "input-tokens", "output-tokens", "tokens")


class Window:
    """How many calls are made at a time: from `START` to `MOST`, by additive increase and multiplicative decrease.

    As with TCP: until the first time that the API is busy each answer makes room for one call more, then each round of
    answers. It is halved where the API is busy, once for all calls that had been sent by then.
    """

    def __init__(self) -> None:
        self.size = float(START)
        self._slow = True
        self._shrunk = float("-inf")

    def answered(self) -> None:
        """A call has been answered."""
        self.size = min(float(MOST), self.size + (1.0 if self._slow else 1.0 / self.size))

    def busy(self, sent: float, now: float) -> None:
        """The API was busy for an attempt that was sent then."""
        if sent > self._shrunk:
            self.size, self._slow, self._shrunk = max(1.0, self.size / 2), False, now


class _Bucket:
    """What is left of one limit, as far as is known."""

    __slots__ = ("_at", "left", "limit")

    def __init__(self, limit: float, left: float, now: float) -> None:
        self.limit, self.left, self._at = limit, left, now

    def fill(self, now: float) -> None:
        """Let it fill until now."""
        self.left = min(self.limit, self.left + (now - self._at) * self.limit / _MINUTE)
        self._at = now

    def wait(self, need: float) -> float:
        """Seconds until it has room. For what it never has, until it is full."""
        wanted = min(self.limit, need + KEPT * self.limit)
        return max(0.0, (wanted - self.left) * _MINUTE / self.limit)


class _Model:
    """What is known of the limits of one model."""

    def __init__(self) -> None:
        self.first = asyncio.Lock()
        """Of those that wait, who came first goes first."""
        self.until = 0.0
        self.buckets: dict[str, _Bucket] = {}
        self._density: float | None = None
        self._answer = 0.0
        self._busy = 0

    def needs(self, size: int) -> dict[str, float]:
        """What a request of so many characters is likely to take."""
        given = size * (_DENSITY if self._density is None else self._density)
        return {
            "requests": 1.0, "input-tokens": given, "output-tokens": self._answer, "tokens": given + self._answer
        }  # fmt: skip

    def wait(self, needs: Mapping[str, float], now: float) -> float:
        """Seconds until there is room for it."""
        wait = self.until - now
        for kind, bucket in self.buckets.items():
            bucket.fill(now)
            wait = max(wait, bucket.wait(needs[kind]))
        return wait

    def take(self, needs: Mapping[str, float]) -> dict[str, float]:
        """It is about to be sent. What was taken from those limits that are known."""
        for kind, bucket in self.buckets.items():
            bucket.left -= needs[kind]
        return {kind: needs[kind] for kind in self.buckets}

    def give_back(self, taken: Mapping[str, float], used: Mapping[str, float]) -> None:
        """It has used something else than was thought."""
        for kind, amount in taken.items():
            bucket = self.buckets[kind]
            bucket.left = min(bucket.limit, bucket.left + amount - used[kind])

    def learn(self, size: int, given: int, answered: int) -> None:
        """Tokens that a request of so many characters had, and its answer."""
        density = given / max(1, size)
        first = self._density is None
        self._density = density if self._density is None else self._density + _WEIGHT * (density - self._density)
        self._answer = float(answered) if first else self._answer + _WEIGHT * (answered - self._answer)

    def heard(self, headers: Mapping[str, str], now: float) -> None:
        """What an answer says of limits. Others may use them too: there is never more left than it says."""
        for kind in _KINDS:
            name = f"anthropic-ratelimit-{kind}"
            limit, left = _number(headers.get(f"{name}-limit")), _number(headers.get(f"{name}-remaining"))
            if not limit or left is None:
                continue
            if kind == "tokens" and "input-tokens" in self.buckets:
                continue  # the sum of the two, or the tighter one of them
            bucket = self.buckets.get(kind)
            if bucket is None:
                self.buckets[kind] = _Bucket(limit, left, now)
            else:
                bucket.fill(now)
                bucket.limit, bucket.left = limit, min(bucket.left, left)

    def limited(self, wait: float | None, now: float) -> None:
        """The API rejected a request for its limits."""
        self._busy += 1
        seconds = min(_FIRST_WAIT * 2.0 ** min(self._busy, 6), _LONGEST) if wait is None else min(wait, _LONGEST)
        self.until = max(self.until, now + seconds)

    def passed(self) -> None:
        """It took one."""
        self._busy = 0


class Pacer:
    """What the calls of all jobs of one event loop know of the API's limits."""

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.window = Window()
        self._models: dict[tuple[Hashable, str], _Model] = {}

    def of(self, endpoint: Hashable, model: str) -> _Model:
        """One model of an endpoint."""
        return self._models.setdefault((endpoint, model), _Model())


class Turn:
    """One request of a job on its way: the `Pace` of its call. `size` is its length as JSON."""

    def __init__(self, pacer: Pacer, size: int) -> None:
        self._pacer, self._size = pacer, size
        self._granted: tuple[_Model, dict[str, float]] | None = None
        self._taken: list[tuple[str, _Model, dict[str, float]]] = []
        self._sent_at = 0.0
        self.waits = True
        """Whether nothing of it has been sent."""

    async def room(self, endpoint: Hashable, model: str) -> float:
        """Wait for room. See `Pace`."""
        timing = self._pacer.timing
        found, began = self._pacer.of(endpoint, model), timing.perf()
        async with found.first:
            needs = found.needs(self._size)
            while (wait := found.wait(needs, timing.perf())) > 0:
                await timing.sleep(min(wait, _LOOK))
                needs = found.needs(self._size)
            self._granted = (found, found.take(needs))
        return timing.perf() - began

    def sent(self, endpoint: Hashable, model: str) -> None:
        """An attempt is about to be made. See `Pace`."""
        found = self._pacer.of(endpoint, model)
        if self._granted is not None and self._granted[0] is found:
            taken = self._granted[1]
        else:
            # Another tier, after a failure or a poor answer: nobody waits for that.
            taken = found.take(found.needs(self._size))
        self._granted, self.waits = None, False
        self._taken.append((model, found, taken))
        self._sent_at = self._pacer.timing.perf()

    def heard(self, endpoint: Hashable, model: str, reply: Reply) -> None:
        """What came back of it. See `Pace`."""
        found, now = self._pacer.of(endpoint, model), self._pacer.timing.perf()
        response: Any = reply.response
        headers = getattr(getattr(response, "http_response", response), "headers", None)
        if headers is not None:
            found.heard(headers, now)
        if reply.status in _BUSY:
            self._pacer.window.busy(self._sent_at, now)
            if reply.status == _RATE_LIMITED or reply.retry_after is not None:
                found.limited(reply.retry_after, now)
        elif not reply.error:
            found.passed()
            self._pacer.window.answered()

    def ended(self, attempts: Sequence[Attempt]) -> None:
        """The call is over: what was taken for it and not used is there for others."""
        for attempt in attempts:
            for place, (model, found, taken) in enumerate(self._taken):
                if model == attempt.model:
                    del self._taken[place]
                    self._true_up(found, taken, attempt)
                    break

    def _true_up(self, found: _Model, taken: Mapping[str, float], attempt: Attempt) -> None:
        usage = attempt.usage
        given = usage.input_tokens + usage.cache_write_5m + usage.cache_write_1h  # what is read from a cache is free
        answered = usage.output_tokens
        used = {"requests": 1.0, "input-tokens": given, "output-tokens": answered, "tokens": given + answered}
        found.give_back(taken, used)
        if attempt.outcome == "ok":
            found.learn(self._size, given, answered)


def _number(text: str | None) -> float | None:
    """A whole number of a header; None for what is none."""
    return float(text) if text and text.isdecimal() and len(text) < 16 else None  # noqa: PLR2004
