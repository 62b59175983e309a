"""Prompt caching for apps that do not ask for it: `Router(cache_prompt=True)`.

A prefix that comes back pays for being cached: writing it costs a quarter more than reading it once, and reading it
from the cache a tenth or less. So what stands before the messages (tools and system) is marked once it has been seen
twice within the time that a cache lives. Nothing but `cache_control` is added to a request.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tierline.call import text_bytes
from tierline.models import model_of
from tierline.recent import Recent, keyed
from tierline.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tierline.call import Call
    from tierline.prices import PriceBook
    from tierline.values import Terms

TTL: Final = 300.0
"""Seconds that a cached prefix lives without being read."""
_MOST: Final = 1_000
"""Prefixes that are remembered."""
_BYTES: Final = 4
"""Bytes of plain text in a token. An estimate that is too high is free: what is too short for a cache is not cached."""
_MARK: Final = {"type": "ephemeral"}
_PURPOSE: Final = b"tierline prefix"


class PromptCaching:
    """Remembers prefixes by a keyed hash. Bounded, and safe from any thread. `clock` gives seconds."""

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._keyed = keyed(secret, _PURPOSE)
        self._clock = clock
        self._seen: Recent[bytes, float] = Recent(_MOST)

    def marked(self, call: Call, models: Iterable[str]) -> Call | None:
        """The call with its prefix marked, or None where that would not pay on any of the models that it may go to."""
        if call.kind == "count" or call.cache_ttl is not None or call.continues:
            return None  # nothing is cached, the app does it itself, or the server holds the prefix
        system, tools = call.body.get("system"), call.body.get("tools")
        try:
            prefix = json.dumps([tools, system], ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            return None
        least = min((facts.min_cacheable for model in models if (facts := model_of(model)) is not None), default=0)
        if text_bytes(prefix) < least * _BYTES:
            return None
        digest = self._keyed.copy()
        digest.update(prefix.encode("utf-8", "surrogatepass"))
        key, now = digest.digest(), self._clock()
        before = self._seen.find(key)
        self._seen.keep(key, now)
        if before is None or now - before >= TTL:
            return None
        changed = _with_mark(system, tools)
        return None if changed is None else call._replace(body={**call.body, **changed}, cache_ttl="5m")


def _with_mark(system: object, tools: object) -> dict[str, Any] | None:
    """The field that ends the prefix, with a mark on its end."""
    if isinstance(system, str) and system:
        return {"system": [{"type": "text", "text": system, "cache_control": _MARK}]}
    for name, blocks in (("system", system), ("tools", tools)):
        if not isinstance(blocks, list):
            continue
        # A tool that is loaded later is no part of the prefix: to mark it is a 400.
        end = len(blocks) - 1
        while end >= 0 and isinstance(blocks[end], dict) and blocks[end].get("defer_loading"):
            end -= 1
        if end >= 0 and isinstance(blocks[end], dict):
            return {name: [*blocks[:end], {**blocks[end], "cache_control": _MARK}, *blocks[end + 1 :]]}
    return None


def gain(model: str, usage: Usage, prices: PriceBook, terms: Terms) -> int:
    """What a marked prefix saved (nano-USD): less than 0 where it was written and not read. 0 without a price."""
    plain = Usage(usage.prompt_tokens, usage.output_tokens, web_searches=usage.web_searches)
    costs = prices.cost(model, plain, terms), prices.cost(model, usage, terms)
    return 0 if costs[0] is None or costs[1] is None else costs[0] - costs[1]
