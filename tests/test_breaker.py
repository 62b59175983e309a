"""The circuit breaker, on a clock of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.breaker import FIRST_HOLD, HALF, IN_A_ROW, LEAST, LONGEST_HOLD, PROBE, Breaker

if TYPE_CHECKING:
    from tierline.breaker import State


class Lab:
    """A breaker, its clock, and the states that it has been in."""

    def __init__(self, share: float = 0.5) -> None:
        self.at = 0.0
        self.seen: list[tuple[State, State]] = []
        self.breaker = Breaker(lambda: self.at, lambda: share, lambda *states: self.seen.append(states))

    def fail(self, times: int = 1, each: float = 0.01) -> None:
        """One failure after the other."""
        for _ in range(times):
            entry = self.breaker.enter()
            assert entry
            began = self.at
            self.at += each
            self.breaker.failed(began, entry)

    def answer(self, times: int = 1, each: float = 0.01) -> None:
        for _ in range(times):
            entry = self.breaker.enter()
            assert entry
            self.at += each
            self.breaker.answered(entry)


def test_consecutive_failures_open_it() -> None:
    """So many in a row, and no fewer; an answer between them starts the count anew."""
    lab = Lab()
    lab.fail(IN_A_ROW - 1)
    lab.answer()
    lab.fail(IN_A_ROW - 1)
    assert lab.breaker.state == "closed"
    lab.fail()
    assert (lab.breaker.state, lab.breaker.enter(), lab.breaker.ready) == ("open", "", False)
    assert lab.breaker.why == f"{IN_A_ROW} failures in a row"


def test_a_rate_opens_it() -> None:
    """Half of what came back within the window, however it is mixed with answers."""
    lab = Lab()
    for _ in range(LEAST // 2 - 1):
        lab.answer()
        lab.fail()
    lab.answer()
    assert lab.breaker.state == "closed"
    lab.fail()
    assert lab.breaker.state == "open"
    assert lab.breaker.why == f"{LEAST // 2} failures of {LEAST}"


def test_the_window_slides() -> None:
    """Failures of half a minute ago tell nothing of now."""
    lab = Lab()
    for _ in range(100):
        lab.answer(2)
        lab.fail()
        lab.at += HALF / 5
    assert lab.breaker.state == "closed"
    lab = Lab()
    for _ in range(LEAST):
        lab.answer()
        lab.fail()
        if lab.breaker.state == "open":
            return
    pytest.fail("it never opened")


def test_one_wave_is_one_failure() -> None:
    """Attempts that were in flight together fail together, and are one failure in a row."""
    lab = Lab()
    lab.at = 1.0
    for _ in range(100):
        lab.breaker.failed(0.5)
    assert lab.breaker.state == "closed"
    for n in range(IN_A_ROW - 1):
        lab.at = 2.0 + n
        lab.breaker.failed(lab.at - 0.5)
    assert lab.breaker.state == "open"


@pytest.mark.parametrize(("share", "factor"), [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25)])
def test_reopening_is_jittered_and_doubles(share: float, factor: float) -> None:
    """Each probe that fails doubles the wait, up to a minute, give or take a quarter."""
    lab = Lab(share)
    lab.fail(IN_A_ROW)
    for hold in (FIRST_HOLD, 10, 20, 40, LONGEST_HOLD, LONGEST_HOLD):
        opened = lab.at
        assert lab.breaker.until - opened == pytest.approx(factor * hold)
        lab.at = lab.breaker.until - 0.001
        assert lab.breaker.enter() == ""
        lab.at = lab.breaker.until
        lab.fail(each=0.0)
    lab.at = lab.breaker.until
    lab.answer()
    lab.fail(IN_A_ROW)
    assert lab.breaker.until - lab.at == pytest.approx(factor * FIRST_HOLD)


def test_half_open_single_probe() -> None:
    """One is let through, and its answer closes it; late failures of before say nothing."""
    lab = Lab()
    lab.fail(IN_A_ROW)
    lab.at += FIRST_HOLD
    assert [lab.breaker.enter() for _ in range(3)] == ["probe", "", ""]
    lab.breaker.failed(0.0)
    lab.breaker.answered()
    assert lab.breaker.state == "half_open"
    lab.breaker.answered("probe")
    assert [lab.breaker.enter() for _ in range(3)] == ["closed"] * 3
    assert lab.seen == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


def test_a_probe_that_tells_nothing() -> None:
    """The next call is the next probe, at once; one that takes its time keeps others out for a while."""
    lab = Lab()
    lab.fail(IN_A_ROW)
    lab.at += FIRST_HOLD
    assert lab.breaker.enter() == "probe"
    lab.breaker.left("probe")
    assert lab.breaker.enter() == "probe"
    lab.at += PROBE - 1
    assert lab.breaker.enter() == ""
    lab.at += 1.01
    assert lab.breaker.enter() == "probe"


def test_one_probe_over_threads() -> None:
    """Of many threads at the same moment one is let through."""
    lab = Lab()
    lab.fail(IN_A_ROW)
    lab.at += FIRST_HOLD
    barrier = threading.Barrier(8)

    def enter(_: int) -> str:
        barrier.wait()
        return lab.breaker.enter()

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(enter, range(8))) == [""] * 7 + ["probe"]


def test_an_api_that_refuses_is_up() -> None:
    """An error of the request ends a row of failures and closes a half-open breaker, and hides none in the rate."""
    lab = Lab()
    for _ in range(2):
        lab.fail(IN_A_ROW - 1)
        lab.breaker.refused()
    assert lab.breaker.state == "closed"
    lab.fail(2)
    assert (lab.breaker.state, lab.breaker.why) == ("open", f"{LEAST} failures of {LEAST}")
    lab.breaker.refused()  # begun before it opened
    assert lab.breaker.state == "open"
    lab.at += FIRST_HOLD
    assert lab.breaker.enter() == "probe"
    lab.breaker.refused("probe")
    assert lab.breaker.state == "closed"
    lab.fail(IN_A_ROW - 1)
    assert lab.breaker.state == "closed"


@given(st.lists(st.tuples(st.sampled_from(["answered", "refused", "failed", "left"]), st.floats(0, 30)), max_size=200))
def test_it_never_stays_shut(steps: list[tuple[str, float]]) -> None:
    """Whatever came before, an attempt is let through within the longest hold, and its answer closes it."""
    lab = Lab(1.0)
    for what, seconds in steps:
        lab.at += seconds
        began = lab.at
        if entry := lab.breaker.enter():
            if what == "failed":
                lab.breaker.failed(began, entry)
            else:
                getattr(lab.breaker, what)(entry)
    lab.at += LONGEST_HOLD * 1.25
    entry = lab.breaker.enter()
    assert entry
    lab.breaker.answered(entry)
    assert lab.breaker.state == "closed"


def test_the_rate_is_that_of_calls() -> None:
    """Bad requests of somebody, each retried twice, are a quarter of the calls, and not half of them."""
    lab = Lab()
    for _ in range(3 * LEAST):
        for again in (False, True, True):
            began = lab.at
            lab.at += 0.01
            lab.breaker.failed(began, again=again)
        lab.answer(3)
    assert lab.breaker.state == "closed"


def test_an_operator_closes_it() -> None:
    """Open or half open, it is as new: it takes as many failures again; one that is closed stays so."""
    lab = Lab()
    assert not lab.breaker.close()
    for waits in (0.0, LONGEST_HOLD):
        lab.fail(IN_A_ROW)
        assert lab.breaker.state == "open"
        lab.at += waits
        assert lab.breaker.enter() == ("probe" if waits else "")
        assert lab.breaker.close()
        lab.fail(IN_A_ROW - 1)
        assert lab.breaker.state == "closed"
        lab.answer()
