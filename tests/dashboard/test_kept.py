"""A value that is asked for while somebody looks: once for all of them, at most each second."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from typing import TYPE_CHECKING

from tierline.dashboard.kept import EACH, OLD, PATIENCE, SHARE, Kept
from tierline.errors import LedgerUnavailableError

if TYPE_CHECKING:
    import pytest


class Lab:
    """A clock, and something that takes a while and may fail."""

    def __init__(self) -> None:
        self.at = 0.0
        self.asked = 0
        self.takes = 0.0
        self.value = "one"
        self.error: Exception | None = None
        self.kept: Kept[str] = Kept(self.make, perf=lambda: self.at)

    async def make(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        self.at += self.takes
        if self.error is not None:
            raise self.error
        return self.value


async def test_nothing_is_done_while_nobody_asks() -> None:
    """Neither when it is made nor afterwards."""
    lab = Lab()
    await asyncio.sleep(0)
    assert (lab.asked, lab.kept.value) == (0, None)


async def test_all_who_ask_share_one_answer() -> None:
    """Those who ask at the same time, and those within a second; then it is asked for again."""
    lab = Lab()
    assert await asyncio.gather(*(lab.kept.get() for _ in range(5))) == ["one"] * 5
    lab.at = EACH - 0.001
    lab.value = "two"
    assert (await lab.kept.get(), lab.asked) == ("one", 1)
    lab.at = EACH
    assert (await lab.kept.get(), lab.asked) == ("two", 2)


async def test_what_takes_long_is_asked_for_less_often() -> None:
    """A page takes a store at most a tenth of its time."""
    lab = Lab()
    lab.takes = 0.5
    await lab.kept.get()
    lab.at += SHARE * 0.5 - 0.001
    await lab.kept.get()
    assert lab.asked == 1
    lab.at += 0.001
    await lab.kept.get()
    assert lab.asked == 2


async def test_whoever_is_cancelled_takes_nobody_along() -> None:
    """The others get what the one who left had begun to ask for."""
    lab = Lab()
    first = asyncio.create_task(lab.kept.get())
    second = asyncio.create_task(lab.kept.get())
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "one"
    assert lab.asked == 1


async def test_editions_tell_what_is_new() -> None:
    """The same value again is no news, another is; so is that the store goes away, and that it is back."""
    lab = Lab()
    seen = []
    for value, error in (
        ("one", None), ("one", None), ("two", None), ("two", LedgerUnavailableError("no route")),
        ("two", LedgerUnavailableError("no route")), ("two", None),
    ):  # fmt: skip
        lab.value, lab.error = value, error
        lab.kept.expire()
        await lab.kept.get()
        seen.append(lab.kept.edition)
    assert [after - before for before, after in pairwise(seen)] == [0, 1, 1, 0, 1]


async def test_the_last_value_stays_while_the_store_is_away() -> None:
    """And it is said why there is no newer one, until there is."""
    lab = Lab()
    await lab.kept.get()
    lab.kept.expire()
    lab.error = LedgerUnavailableError("no route")
    assert await lab.kept.get() == "one"
    assert lab.kept.away == "the store cannot be asked: no route"
    await lab.kept.get()
    assert lab.asked == 2  # one that is away is not asked more often, either
    lab.error, lab.at = None, lab.at + EACH
    await lab.kept.get()
    assert lab.kept.away == ""


async def test_a_defect_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is no end of the page: what is shown stays, and the log has where it broke."""
    lab = Lab()
    lab.error = TypeError("a secret")
    with caplog.at_level(logging.ERROR, "tierline"):
        for _ in range(3):
            lab.kept.expire()
            assert await lab.kept.get() is None
    assert lab.kept.away == "what the store has cannot be read: TypeError"
    assert len(caplog.records) == 1


async def test_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while it counts as away, and whoever looks is told so."""
    monkeypatch.setattr("tierline.dashboard.kept.PATIENCE", 0.01)

    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    kept = Kept(never)
    assert await kept.get() is None
    assert kept.away == "the store does not answer"
    assert PATIENCE > 5  # a store has its own patience before


async def test_a_slow_value_is_worth_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one that is not old, that is given out; an old one, and one of before a change, is not."""
    monkeypatch.setattr("tierline.dashboard.kept.WAIT", 0.0)
    gate = asyncio.Event()
    values = iter(range(10))
    at = 0.0

    async def make() -> int:
        value = next(values)
        await gate.wait()
        return value

    kept = Kept(make, perf=lambda: at)
    first = asyncio.create_task(kept.get())
    await asyncio.sleep(0)
    gate.set()
    assert await first == 0
    gate.clear()
    at += EACH
    assert await kept.get() == 0  # the first is still good enough to be shown
    late = asyncio.create_task(kept.get())
    await asyncio.sleep(0)
    at += OLD
    old = asyncio.create_task(kept.get())
    await asyncio.wait((late, old), timeout=0.01)
    assert (late.done(), old.done()) == (True, False)
    kept.expire()
    changed = asyncio.create_task(kept.get())
    await asyncio.sleep(0)
    gate.set()
    assert await changed == 2  # and not 1, which was asked for before the change
    assert kept.value == 2
