"""The prompt cache, on a clock that is moved by hand."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tierline.testing._cache import PromptCache, Share
from tierline.testing._prompt import input_tokens, pieces
from tierline.testing._rules import MODELS

HOUR = {"type": "ephemeral", "ttl": "1h"}
FIVE = {"type": "ephemeral"}


class Desk:
    def __init__(self) -> None:
        self.cache = PromptCache()
        self.now = 0.0

    def ask(self, body: dict[str, Any], model: str = "claude-sonnet-4-6") -> Share:
        parts = pieces(body, MODELS[model])
        share = self.cache.visit(body, parts, MODELS[model], model, self.now)
        assert share.fresh + share.read + share.write_5m + share.write_1h == input_tokens(parts)
        return share


def text(size: int, mark: dict[str, str] | None = None, letter: str = "x") -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": letter * size}
    return block if mark is None else {**block, "cache_control": mark}


def body(system: list[dict[str, Any]], *turns: Any, **extra: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns or ("hi",))]
    return {"system": system, "messages": messages, **extra}


def test_written_then_read_then_forgotten() -> None:
    """Five minutes after its last use an entry is gone; each use starts them again."""
    desk = Desk()
    ask = body([text(8_000, FIVE)])
    assert desk.ask(ask) == Share(5, 0, 2_004, 0)
    desk.now = 299
    assert desk.ask(ask) == Share(5, 2_004)
    desk.now = 299 + 299
    assert desk.ask(ask).read == 2_004
    desk.now += 300
    assert desk.ask(ask).write_5m == 2_004


def test_an_hour() -> None:
    """A prefix with a TTL of an hour is there for that long, and written under its own price."""
    desk = Desk()
    ask = body([text(8_000, HOUR)])
    assert desk.ask(ask).write_1h == 2_004
    desk.now = 3_599
    assert desk.ask(ask).read == 2_004


def test_both_ttls_in_one_prompt() -> None:
    """What stands up to the first mark is written for an hour, the rest up to the second for five minutes."""
    desk = Desk()
    ask = body([text(8_000, HOUR), text(4_000, FIVE)])
    assert desk.ask(ask) == Share(5, 0, 1_000, 2_004)
    desk.now = 400
    assert desk.ask(ask) == Share(5, 2_004, 1_000, 0)


def test_a_prefix_is_exact_and_per_model() -> None:
    """Another letter, another model, another tool: nothing is read."""
    desk = Desk()
    desk.ask(body([text(8_000, FIVE)]))
    assert desk.ask(body([text(8_000, FIVE, "y")])).read == 0
    assert desk.ask(body([text(8_000, FIVE)]), "claude-opus-4-8").read == 0
    assert desk.ask(body([text(8_000, FIVE)], tools=[{"name": "t", "input_schema": {}}])).read == 0
    assert desk.ask(body([text(8_000, FIVE)])).read == 2_004


def test_effort_breaks_the_messages_and_not_the_system() -> None:
    """How the model thinks belongs to the messages."""
    desk = Desk()
    ask = body([text(8_000, FIVE)], [text(8_000, FIVE)])
    assert desk.ask(ask).write_5m == 2_004 + 2_004
    other = desk.ask({**ask, "output_config": {"effort": "low"}})
    assert (other.read, other.write_5m) == (2_004, 2_004)


def test_a_conversation_grows_on_the_automatic_mark() -> None:
    """A top-level cache_control marks the last block, and each turn reads what the one before wrote."""
    desk = Desk()
    first = desk.ask(body([text(8_000)], "a" * 400, cache_control=FIVE))
    second = desk.ask(body([text(8_000)], "a" * 400, "b" * 400, "c" * 400, cache_control=FIVE))
    assert second.read == first.write_5m == 2_004 + 104
    assert second.write_5m == 208
    assert second.fresh == 0


def test_lookback_ends_after_twenty_blocks() -> None:
    """An entry nineteen blocks before the mark is found, one that is twenty before it is not."""
    small = [text(40, letter=chr(97 + i)) for i in range(20)]
    for between, read in ((18, 2_004), (19, 0)):
        desk = Desk()
        desk.ask(body([text(8_000, FIVE)]))
        assert desk.ask(body([text(8_000), *small[:between], text(40, FIVE)])).read == read


def test_the_oldest_entries_are_dropped(monkeypatch: Any) -> None:
    """The cache is bounded."""
    monkeypatch.setattr("tierline.testing._cache._ENTRIES", 2)
    desk = Desk()
    for letter in "abc":
        desk.ask(body([text(8_000, FIVE, letter)]))
    assert [desk.ask(body([text(8_000, FIVE, letter)])).read for letter in "cb"] == [2_004, 2_004]
    assert desk.ask(body([text(8_000, FIVE, "a")])).read == 0


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(1, 6_000), st.booleans()), min_size=1, max_size=4), st.integers(0, 400)
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_parts_add_up(asks: list[tuple[list[tuple[int, bool]], int]]) -> None:
    """Whatever was asked before, fresh, read and written tokens are all tokens, and none is negative."""
    desk = Desk()
    for blocks, later in asks:
        share = desk.ask(body([text(size, FIVE if marked else None) for size, marked in blocks]))
        assert min(share.fresh, share.read, share.write_5m, share.write_1h) >= 0
        desk.now += later
