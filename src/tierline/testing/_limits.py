"""Rate limits that are enforced: buckets for each model, which fill at an even rate, as the API describes its own."""

from __future__ import annotations

import math
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from tierline.errors import ConfigurationError
from tierline.testing._problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KINDS: Final = ("requests", "input-tokens", "output-tokens")
_MINUTE: Final = 60.0
_ROUNDED: Final = -3
"""Tokens that remain are told in thousands."""


class Limits:
    """What each model takes in a minute: `requests`, `input-tokens`, `output-tokens`; what is not named is unlimited.

    Requests and tokens of input are taken when a request comes, tokens of output when they are written. A prompt counts
    whole: also what is read from a cache. Safe from any thread.
    """

    def __init__(self, most: Mapping[str, int], clock: Callable[[], float]) -> None:
        for kind, number in most.items():
            if kind not in KINDS or isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ConfigurationError(f"limits: {kind!r} is {number!r:.40}: {KINDS} are whole numbers above 0")
        self._most, self._clock = dict(most), clock
        self._left: dict[str, tuple[float, dict[str, float]]] = {}
        self._lock = threading.Lock()

    def admit(self, model: str, tokens: int) -> None:
        """Take in a request with so many tokens. Raises the 429 that the API answers where there is no room."""
        needs = {"requests": 1, "input-tokens": tokens, "output-tokens": 1}
        with self._lock:
            left = self._filled(model)
            for kind, most in self._most.items():
                missing = min(needs[kind], most) - left[kind]
                if missing > 0:
                    wait = math.ceil(missing * _MINUTE / most)
                    said = f"This request would exceed the rate limit of {most} {kind.replace('-', ' ')} per minute"
                    raise Problem(429, said, headers=(("retry-after", str(wait)),))
            for kind in self._most:
                left[kind] -= needs[kind] if kind != "output-tokens" else 0

    def wrote(self, model: str, tokens: int) -> None:
        """So many tokens of output were written."""
        with self._lock:
            if "output-tokens" in self._most:
                self._filled(model)["output-tokens"] -= tokens

    def headers(self, model: str) -> tuple[tuple[str, str], ...]:
        """What is left, and when all of it will be."""
        with self._lock:
            left = dict(self._filled(model))
        found: list[tuple[str, str]] = []
        for kind, most in self._most.items():
            name, rest = f"anthropic-ratelimit-{kind}", max(0.0, left[kind])
            shown = int(rest) if kind == "requests" else min(most, int(round(rest, _ROUNDED)))
            seconds = (most - left[kind]) * _MINUTE / most
            reset = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
            found += [(f"{name}-limit", str(most)), (f"{name}-remaining", str(shown)), (f"{name}-reset", reset)]
        return tuple(found)

    def _filled(self, model: str) -> dict[str, float]:
        now = self._clock()
        then, left = self._left.get(model, (now, {kind: float(most) for kind, most in self._most.items()}))
        for kind, most in self._most.items():
            left[kind] = min(float(most), left[kind] + (now - then) * most / _MINUTE)
        self._left[model] = (now, left)
        return left
