"""Conversations: what of each is warm in which model's prompt cache, and whether moving to a cheaper tier pays.

The API keeps a cache for each model. A cheaper model has to read a long prefix anew, at the price of writing it, where
the one that answered last reads it at a tenth: so moving down in mid-conversation may cost more than it saves. Which of
the two is arithmetic over what the API itself said it wrote and read. Nothing here does I/O.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.models import model_of
from tierline.recent import Recent, keyed
from tierline.values import Usage, usd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tierline.call import Call
    from tierline.prices import PriceBook
    from tierline.values import Terms

_PURPOSE: Final = b"tierline talk"
_MOST: Final = 10_000
"""Conversations that are remembered."""
_SLICE: Final = 2_000
"""Characters from each end of a text that tell one conversation from another."""
_TTL: Final = {"5m": 300.0, "1h": 3_600.0}
MOST_TURNS: Final = 3
"""Most further turns for which a conversation is expected to stay where it goes: what a turn asks for changes."""
_WORDIER: Final = 1.3


class Warm(NamedTuple):
    """Tokens of a prefix in the cache of one model, until a moment of the Router's clock."""

    tokens: int
    until: float


class Conversation(NamedTuple):
    """What is known of a conversation after its last answer: which tier gave it, and what the next turn builds on."""

    tier: str
    model: str
    turns: int
    prompt: int
    """Tokens of the last prompt and its answer: the prefix of the next turn."""
    grows: int
    """Tokens by which the last turn made the prompt longer; 0 on the first."""
    output: int
    warm: Mapping[str, Warm]
    decider: str = ""
    """The tier of the last answer that decided what comes next: of an agent's steps not all do."""

    def warm_on(self, model: str, now: float) -> int:
        """Tokens of the prefix that `model` would read from its cache."""
        found = self.warm.get(model)
        return min(found.tokens, self.prompt) if found is not None and found.until > now else 0


class Conversations:
    """Remembers conversations by their beginning. Bounded, and safe from any thread.

    `secret` keys what is remembered, `clock` gives seconds.
    """

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._keyed = keyed(secret, _PURPOSE)
        self._clock = clock
        self._known: Recent[bytes, Conversation] = Recent(_MOST)

    def keys(self, call: Call, tenant: str | None, name: str | None = None) -> tuple[bytes, ...]:
        """What a conversation is found by: the app's own name of it, else its system and first turns.

        The first turn alone is not enough to tell "hi" from "hi", and yet all there is on it: both are keys. Two
        conversations that begin alike share what is warm, in the API's cache too.
        """
        if name is not None:
            return (self._key(tenant, ["named", name]),)
        messages: list[Any] = call.body["messages"]
        first = [_gist(call.body.get("system")), _gist(messages[0])]
        alone = self._key(tenant, first)
        return (alone,) if len(messages) < 2 else (self._key(tenant, [*first, _gist(messages[1])]), alone)  # noqa: PLR2004

    def find(self, keys: tuple[bytes, ...]) -> Conversation | None:
        """The conversation, or None for one that begins."""
        return next((found for key in keys if (found := self._known.find(key)) is not None), None)

    def keep(self, keys: tuple[bytes, ...], tier: str, model: str, usage: Usage, *, decides: bool = True) -> None:
        """Remember an answer, and whether it decided what comes next."""
        now, before = self._clock(), self.find(keys)
        warm = {m: w for m, w in before.warm.items() if w.until > now} if before is not None else {}
        if cached := usage.cache_read + usage.cache_write_5m + usage.cache_write_1h:
            lives = _TTL["1h" if usage.cache_write_1h and not usage.cache_write_5m else "5m"]
            warm[model] = Warm(cached, now + lives)
        self._known.keep(
            keys[0],
            Conversation(
                tier=tier,
                model=model,
                turns=before.turns + 1 if before is not None else 1,
                prompt=usage.prompt_tokens + usage.output_tokens,
                grows=max(0, usage.prompt_tokens - before.prompt) if before is not None else 0,
                output=usage.output_tokens,
                warm=warm,
                decider=tier if decides or before is None else before.decider or before.tier,
            ),
        )

    def _key(self, tenant: str | None, parts: list[str]) -> bytes:
        digest = self._keyed.copy()
        digest.update(json.dumps([tenant, *parts]).encode())
        return digest.digest()


def _gist(content: object) -> str:
    """Enough of a system prompt or a message to know it again."""
    text = content if isinstance(content, str) else ""
    if isinstance(content, dict):
        said = content.get("content")
        return f"{content.get('role')}:{'' if isinstance(said, dict) else _gist(said)}"
    if isinstance(content, list):
        # What calls a tool has no text, and an id of its own: loops that begin alike are told apart by it.
        texts = [block.get("text") or block.get("id") for block in content[:50] if isinstance(block, dict)]
        text = "\n".join(part for part in texts if isinstance(part, str)) + f"\n{len(content)}"
    return text if len(text) <= 2 * _SLICE else f"{text[:_SLICE]}{len(text)}{text[-_SLICE:]}"


def moving(
    talk: Conversation, here: str, there: str, prices: PriceBook, terms: Terms, now: float
) -> tuple[int, int, int]:
    """What moving to a cheaper model saves over the expected rest of a conversation, and what it costs first.

    `(saving, cold, turns)`, money in nano-USD: over `turns` turns, this one included, `there` costs `saving` less once
    it has read the prefix, for which it takes `cold` more than `here` does. A conversation is expected to go on for
    as long as it has lasted. Without prices both are 0.
    """
    turns = max(1, min(MOST_TURNS, talk.turns))
    warm = [_turn(talk, model, here, talk.prompt, prices, terms) for model in (here, there)]
    first = [_turn(talk, model, here, talk.warm_on(model, now), prices, terms) for model in (here, there)]
    if None in warm or None in first:
        return 0, 0, turns
    costs = [cost or 0 for cost in (*warm, *first)]
    return (costs[0] - costs[1]) * turns, (costs[3] - costs[1]) - (costs[2] - costs[0]), turns


def turn_cost(talk: Conversation, model: str, now: float, prices: PriceBook, terms: Terms) -> int | None:
    """What the next turn costs on a model (nano-USD), if it is like the last one. None without a price."""
    return _turn(talk, model, talk.model, talk.warm_on(model, now), prices, terms)


def _turn(talk: Conversation, model: str, counted_by: str, warm: int, prices: PriceBook, terms: Terms) -> int | None:
    """What a turn like the last one costs on a model of whose cache `warm` tokens of the prefix can be read."""
    scale = tokens_scale(model) / tokens_scale(counted_by)
    written = round((talk.prompt - warm + talk.grows) * scale)
    usage = Usage(0, round(talk.output * scale), written, 0, round(warm * scale))
    return prices.cost(model, usage, terms)


def tokens_scale(model: str) -> float:
    """How many tokens a model counts for a text, against those that count the fewest."""
    facts = model_of(model)
    return _WORDIER if facts is not None and facts.wordy else 1.0


def told(verb: str, there: str, saving: int, cold: int, turns: int) -> str:
    """The arithmetic, for the reasons of a decision."""
    return f"{verb}: {there} saves {usd(saving)} over about {turns} turns, and costs {usd(cold)} to warm up"
