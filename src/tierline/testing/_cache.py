"""The prompt cache: which part of a prompt is read from it, which is written to it, and for how long."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from tierline.testing._prompt import BASE_TOKENS, canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tierline.testing._prompt import Piece
    from tierline.testing._rules import ModelRules

_TTL: Final = {"5m": 300.0, "1h": 3600.0}
_LOOKBACK: Final = 20
"""How many blocks before a breakpoint are searched for an entry that an earlier request wrote."""
_ENTRIES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Share:
    """How the tokens of a prompt divide. The four add up to all of them."""

    fresh: int
    read: int = 0
    write_5m: int = 0
    write_1h: int = 0

    def of(self, tokens: int) -> Share:
        """The same cache for a prompt of so many tokens: what is neither read nor written is fresh."""
        return replace(self, fresh=max(tokens - self.read - self.write_5m - self.write_1h, 0))


@dataclass(slots=True)
class _Entry:
    ttl: float
    expires: float


class PromptCache:
    """Prefixes that were marked with `cache_control`, for each model; times in seconds of the caller's clock.

    - a prefix matches exactly: tools, system, messages, in this order; its model is part of it
    - how the model thinks, its effort and `tool_choice` are part of the messages, not of what stands before them
    - reading an entry renews it; a prefix under the model's minimum is never written
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def visit(self, body: Mapping[str, Any], parts: list[Piece], rules: ModelRules, model: str, now: float) -> Share:
        """Read and write what this request marks, and say how its tokens divide."""
        prefixes = list(_prefixes(body, parts, model))
        total = prefixes[-1][1] if prefixes else BASE_TOKENS
        marks = _marks(body, parts)
        if not marks:
            return Share(total)
        with self._lock:
            return self._divide(prefixes, marks, rules.min_cacheable, now)

    def _divide(self, prefixes: list[tuple[bytes, int]], marks: list[tuple[int, str]], least: int, now: float) -> Share:
        hit = self._find(prefixes, marks, now)
        read = prefixes[hit][1] if hit is not None else 0
        written = {"5m": 0, "1h": 0}
        done = read
        for index, ttl in marks:
            key, length = prefixes[index]
            if length <= done or length < least:
                continue
            written[ttl] += length - done
            done = length
            self._entries[key] = _Entry(_TTL[ttl], now + _TTL[ttl])
            self._entries.move_to_end(key)
        while len(self._entries) > _ENTRIES:
            self._entries.popitem(last=False)
        return Share(prefixes[-1][1] - done, read, written["5m"], written["1h"])

    def _find(self, prefixes: list[tuple[bytes, int]], marks: list[tuple[int, str]], now: float) -> int | None:
        """The longest prefix that is in the cache, at a breakpoint or a little before it; it is renewed."""
        for index, _ttl in reversed(marks):
            for candidate in range(index, max(-1, index - _LOOKBACK), -1):
                key = prefixes[candidate][0]
                entry = self._entries.get(key)
                if entry is None:
                    continue
                if entry.expires <= now:
                    del self._entries[key]
                    continue
                entry.expires = now + entry.ttl
                self._entries.move_to_end(key)
                return candidate
        return None


def _prefixes(body: Mapping[str, Any], parts: list[Piece], model: str) -> Iterator[tuple[bytes, int]]:
    """The digest and the length in tokens of the prompt up to and with each piece."""
    digest = blake2b(model.encode(), digest_size=16)
    tokens = BASE_TOKENS
    effort = (body.get("output_config") or {}).get("effort")
    manner = canonical([body.get("thinking"), effort, body.get("tool_choice")])
    for part in parts:
        if part.section == "messages" and manner:
            digest.update(manner.encode("utf-8", "surrogatepass"))
            manner = ""
        digest.update(f"\0{part.section}\0{part.content}".encode("utf-8", "surrogatepass"))
        tokens += part.tokens
        yield digest.digest(), tokens


def _marks(body: Mapping[str, Any], parts: list[Piece]) -> list[tuple[int, str]]:
    """Where the breakpoints are, with their TTL; a top-level `cache_control` marks the last block that can be."""
    marks = {index: part.cache_control for index, part in enumerate(parts) if part.cache_control}
    if body.get("cache_control"):
        able = [i for i, part in enumerate(parts) if part.kind not in ("thinking", "redacted_thinking", "schema")]
        if able:
            marks.setdefault(able[-1], body["cache_control"])
    return [(index, str(marks[index].get("ttl") or "5m")) for index in sorted(marks)]
