"""Exact token counts of prompts that may not fit into a window, from the API's free endpoint. Each is asked once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tierline.binding import Context, OwnCall, context, enter
from tierline.legality import unsure
from tierline.models import SMALLEST_WINDOW
from tierline.recent import Recent, keyed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tierline.call import Call
    from tierline.ladder import Tier

TIMEOUT: Final = 5.0
"""Seconds that a count may take. A prompt that could not be counted is sent: the API has the last word."""
_COUNTED: Final = ("messages", "system", "tools")
_MOST: Final = 1_000
_PURPOSE: Final = b"tierline counts"


class PromptCounts:
    """Counts of prompts, by a keyed hash. Bounded, and safe from any thread."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = keyed(secret, _PURPOSE)
        self._known: Recent[bytes, int] = Recent(_MOST)

    async def of(
        self,
        call: Call,
        tiers: Iterable[Tier],
        ask: Callable[[dict[str, Any], float], Awaitable[Any]],
        tenant: str | None = None,
    ) -> dict[str, int]:
        """Tokens of a call's prompt by model id, for those tiers on which its size alone does not tell.

        Each tenant's prompts are counted for itself: how fast a count comes must not say what others have sent. `ask`
        counts a body, within so many seconds. What it raises leaves the count out.
        """
        if call.input_bound is not None and call.input_bound <= SMALLEST_WINDOW:
            return {}
        rungs = {tier.model: tier for tier in tiers}
        found: dict[str, int] = {}
        body = {name: call.body[name] for name in _COUNTED if call.body.get(name) is not None}
        for model in unsure(call, rungs):
            try:
                key = self._key({**body, "model": model, "tenant": tenant})
            except (TypeError, ValueError, RecursionError):
                return {}  # what is no JSON is the API's to reject, or the SDK's
            tokens = self._known.find(key)
            if tokens is None:
                tokens = await _asked({**body, "model": model}, rungs[model], ask)
            if tokens is not None:
                found[model] = tokens
                self._known.keep(key, tokens)
        return found

    def _key(self, body: dict[str, Any]) -> bytes:
        digest = self._keyed.copy()
        digest.update(json.dumps(body, default=str, sort_keys=True).encode())
        return digest.digest()


async def _asked(
    body: dict[str, Any], tier: Tier, ask: Callable[[dict[str, Any], float], Awaitable[Any]]
) -> int | None:
    before = context()
    # Nobody's policy is asked: it is Tierline that wants to know, of this very model.
    enter(Context(own=OwnCall(tier.name, (), None, None)))
    try:
        tokens = (await ask(body, TIMEOUT)).input_tokens
    except Exception:  # noqa: BLE001  (any error of the SDK: the call goes on uncounted)
        return None
    finally:
        enter(before)
    return tokens if isinstance(tokens, int) else None
