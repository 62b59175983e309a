"""Whose request is sent next: pure."""

from __future__ import annotations

from tierline.batches.pacing import START, Window
from tierline.batches.turns import Turns


class Waiting:
    """A request that notes when it is sent."""

    def __init__(self, tenant: str, started: list[str]) -> None:
        self.tenant, self._started = tenant, started

    def start(self) -> None:
        self._started.append(self.tenant)


def test_accounts_take_turns() -> None:
    """Whoever has few requests does not wait for whoever has many, and came first."""
    started: list[str] = []
    turns: Turns[Waiting] = Turns(Window())
    for tenant, number in (("a", 1_000), ("b", 3), ("c", 2)):
        for _ in range(number):
            turns.put(Waiting(tenant, started))
    assert started == ["a"] * START
    for _ in range(8):
        turns.ended()
    assert "".join(started[START:]) == "abcabcab"
    turns.ended()
    assert started[-1] == "a"
    assert turns.running == START


def test_the_window_says_how_many_are_under_way() -> None:
    """More, when it opens; none more, while it has shrunk."""
    started: list[str] = []
    window = Window()
    turns: Turns[Waiting] = Turns(window)
    for _ in range(20):
        turns.put(Waiting("a", started))
    window.answered()
    turns.ended()
    assert len(started) == START + 2
    window.busy(sent=1.0, now=1.0)
    for _ in range(3):
        turns.ended()
    assert (len(started), turns.running) == (START + 2, 3)
    turns.ended()
    assert (len(started), turns.running) == (START + 3, 3)


def test_an_account_without_room_waits_for_what_is_under_way() -> None:
    """It is not asked again and again, others go on, and it has its turn when something has ended."""
    started: list[str] = []
    turns: Turns[Waiting] = Turns(Window())
    full = Waiting("full", started)
    for waiting in (full, *(Waiting("full", started) for _ in range(9)), *(Waiting("b", started) for _ in range(2))):
        turns.put(waiting)
    assert started == ["full"] * START
    turns.ended(full)
    turns.ended(Waiting("full", started))
    assert started[START:] == ["b", "b"]
    turns.ended()
    assert started[START + 2 :] == ["full"]
    turns.ended(full)
    for _ in range(2):
        turns.ended()
    assert started[START + 3 :] == ["full"] * 3


def test_alone_an_account_without_room_is_asked_all_the_same() -> None:
    """Nothing else will end: it has room now, or none at all."""
    started: list[str] = []
    turns: Turns[Waiting] = Turns(Window())
    one, other = Waiting("full", started), Waiting("full", started)
    turns.put(one)
    turns.put(other)
    turns.ended(one)
    turns.ended(other)
    assert len(started) == 3
    turns.ended()
    assert (len(started), turns.running) == (4, 1)


def test_what_is_taken_out_is_sent_no_more() -> None:
    """Of a job that was cut off."""
    started: list[str] = []
    turns: Turns[Waiting] = Turns(Window())
    for tenant in ("a", "b") * START:
        turns.put(Waiting(tenant, started))
    turns.take_out(lambda waiting: waiting.tenant == "a")
    for _ in range(3 * START):
        turns.ended()
    assert started.count("b") == START
