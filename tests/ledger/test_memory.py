"""What is the memory's own: that it never suspends, and that it stays small. The rest is in test_conformance.py."""

from __future__ import annotations

import threading

import pytest

from tierline.budgets import Line, Window
from tierline.errors import ConfigurationError
from tierline.ledger import MemoryLedger, Origin, Reservation, Spent
from tierline.ledger import memory as memory_module
from tierline.ledger import rollup as rollup_module
from tierline.ledger import slots as slots_module
from tierline.ledger.base import NOWHERE
from tierline.testing._ledger.world import DAY, HOUR, NOON, Clock, line, offer, rolling

LEASE = 30.0


def done(coroutine):
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a method of the memory ledger suspended")


def held(ledger: MemoryLedger, key: str, cost: int, *lines: Line, origin: Origin = NOWHERE) -> Reservation:
    found = done(ledger.reserve(key, [offer(cost)], lines, origin=origin))
    assert isinstance(found, Reservation)
    return found


def spend(ledger: MemoryLedger, key: str, cost: int, *lines: Line, origin: Origin = NOWHERE) -> None:
    assert done(ledger.settle(held(ledger, key, cost, *lines, origin=origin), cost))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> MemoryLedger:
    return MemoryLedger(clock=clock, lease=LEASE)


def test_nothing_suspends(ledger: MemoryLedger) -> None:
    """No method lets another task in between, so that a cancellation finds nothing half done."""
    got = held(ledger, "a", 5, line())
    assert ledger.instant
    for call in (
        ledger.renew([got]), ledger.settle(got, 5), ledger.release("b"), ledger.post(got, 5), ledger.forget([line()]),
        ledger.ping(), ledger.aclose(), ledger.balances(), ledger.holds(), ledger.history(0), ledger.confirm(),
        ledger.set_limit("b", None, 5), ledger.limits(), ledger.erase("acme"),
    ):  # fmt: skip
        done(call)


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), "30", None, True])
@pytest.mark.parametrize("word", ["lease", "retention"])
def test_seconds_that_are_none(word: str, wrong: object) -> None:
    """A time of no length is a configuration error that names it."""
    with pytest.raises(ConfigurationError, match=rf"MemoryLedger\({word}="):
        MemoryLedger(**{word: wrong})


def test_a_repeated_id_is_the_same_object(ledger: MemoryLedger) -> None:
    """Nothing is made anew for a repetition."""
    assert held(ledger, "a", 5, line()) is held(ledger, "a", 5, line())


def test_threads_that_start_at_once() -> None:
    """Many threads share the last dollar, and not one nano-USD more is held."""
    ledger = MemoryLedger()
    lines = [line(1000), line(2000, budget="wide", window="total")]
    admitted, start = [], threading.Barrier(16)

    def run(number: int) -> None:
        start.wait()
        for turn in range(40):
            got = done(ledger.reserve(f"{number}-{turn}", [offer(7), offer(3)], lines))
            if isinstance(got, Reservation):
                admitted.append(got)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    total = sum(got.cost for got in admitted)
    assert 997 < total <= 1000
    assert {each.held for each in done(ledger.balances())} == {total}


# Memory


def test_ended_windows_are_pruned(ledger: MemoryLedger, clock: Clock) -> None:
    """Records of ended windows go while calls go on, so memory follows the accounts of one window."""
    for minute in range(20):
        for number in range(50):
            spend(ledger, f"{minute} {number}", 1, line(account=f"{minute}-{number}", window="minute"))
        clock.now += 60
    assert len(ledger._accounts) <= 100
    assert len(ledger._accounts.endings) <= 100
    assert done(ledger.balances()) == []


def test_accounts_that_live_on_are_expected_once(ledger: MemoryLedger, clock: Clock) -> None:
    """However often an account is charged, refused, forgotten and opened again, it is looked at once in a window."""
    lines = [line(window="minute"), line(window=rolling(HOUR))]
    for minute in range(200):
        spend(ledger, f"a{minute}", 1, *lines)
        done(ledger.reserve(f"b{minute}", [offer(500)], lines))
        if minute % 3 == 0:
            done(ledger.forget(lines))
            spend(ledger, f"c{minute}", 1, *lines)
        clock.now += 40
    assert len(ledger._accounts) <= 2
    assert len(ledger._accounts.endings) <= slots_module._FEW + 4


def test_rolling_windows_keep_what_counts(ledger: MemoryLedger, clock: Clock) -> None:
    """Of a rolling window at most 61 parts are kept, though it is charged all the time."""
    window = rolling(HOUR)
    for second in range(0, 3 * HOUR, 20):
        spend(ledger, f"k{second}", 1, line(10**6, window=window))
        (account,) = ledger._accounts.values()
        assert len(account.slots) <= 61
        clock.now += 20
    clock.now += 2 * HOUR
    spend(ledger, "other", 1, line(account="other"))
    assert [account.line.account for account in ledger._accounts.values()] == ["other"]


def test_forgotten_accounts_leave_nothing(ledger: MemoryLedger) -> None:
    """An account for each request does not fill a month with its ending."""
    for number in range(2_000):
        lines = [line(account=f"r{number}", window="month")]
        spend(ledger, f"k{number}", 1, *lines)
        done(ledger.forget(lines))
    assert ledger._accounts == {}
    assert len(ledger._accounts.endings) <= slots_module._FEW + 1


def test_erased_names_leave_nothing(ledger: MemoryLedger, clock: Clock) -> None:
    """No record has the name any more: no account, no ending, no hold, no lapsed one."""
    both = line(account="acme"), line(account="global")
    held(ledger, "lapses", 1, *both, origin=Origin("acme"))
    clock.now += LEASE
    held(ledger, "holds", 1, *both, origin=Origin("acme"))
    done(ledger.set_limit("b", "acme", 50))
    done(ledger.erase("acme"))
    kept = (ledger._accounts, ledger._accounts.endings, ledger._limits, ledger._rollup._hours)
    assert "acme" not in repr(kept)
    for found in (*ledger._holds.values(), *ledger._lapsed.values()):
        assert "acme" not in repr(found[0])
        assert [slot.account.line.account for slot in found[1]] == ["global"]


def test_lapsed_holds_are_remembered_in_bounds(ledger: MemoryLedger, clock: Clock, monkeypatch) -> None:
    """Past the bound the oldest estimate stands, and its late settlement says so; its id stays ended."""
    monkeypatch.setattr(memory_module, "_MOST_LAPSED", 2)
    holds = [held(ledger, str(number), 10, line()) for number in range(3)]
    clock.now += LEASE
    assert [each.spent for each in done(ledger.balances())] == [30]
    with pytest.raises(ValueError, match="'0' has ended"):
        held(ledger, "0", 10, line())
    assert [done(ledger.settle(hold, 1)) for hold in holds] == [False, True, True]
    assert [each.spent for each in done(ledger.balances())] == [12]


def test_ended_ids_are_remembered_in_bounds(ledger: MemoryLedger, monkeypatch) -> None:
    """The last ids that ended are known, at least as many as are promised and at most twice as many."""
    monkeypatch.setattr(memory_module, "_MOST_ENDED", 10)
    for number in range(100):
        spend(ledger, str(number), 0, line())
        for recent in range(max(0, number - 9), number + 1):
            with pytest.raises(ValueError, match="has ended"):
                held(ledger, str(recent), 0, line())
        assert len(ledger._ended) + len(ledger._ended_before) <= 21


def test_hours_are_kept_for_the_retention(clock: Clock) -> None:
    """Hours go when they are older, also where nobody calls any more; what comes too late for them is dropped."""
    ledger = MemoryLedger(clock=clock, lease=10 * DAY, retention=DAY)
    late = held(ledger, "late", 5, origin=Origin("acme"))
    for hour in range(30):
        spend(ledger, str(hour), 1)
        clock.now += HOUR
    hours = [row.hour for row in done(ledger.history(0))]
    assert hours == [NOON + hour * HOUR for hour in range(7, 30)]
    assert done(ledger.settle(late, 5))
    assert [row.hour for row in done(ledger.history(0))] == hours
    clock.now += DAY
    assert done(ledger.history(0)) == []
    assert ledger._rollup._rows == 0


def test_rows_of_hours_are_bounded(ledger: MemoryLedger, clock: Clock, monkeypatch) -> None:
    """However many tenants there are: the oldest hours go first, and within one hour tenants share a row."""
    monkeypatch.setattr(rollup_module, "_MOST_ROWS", 10)
    for number in range(8):
        spend(ledger, f"a{number}", 1, origin=Origin(f"t{number}"))
    clock.now += HOUR
    for number in range(50):
        spend(ledger, f"b{number}", 1, origin=Origin(f"t{number}"))
    rows = done(ledger.history(0))
    assert {row.hour for row in rows} == {NOON + HOUR}
    assert sum(row.cost for row in rows) == 50
    assert [row.cost for row in rows if row.tenant is None] == [40]
    assert ledger._rollup._rows == 11
    clock.now += HOUR
    spend(ledger, "c", 1, origin=Origin("acme"))
    assert done(ledger.history(0)) == [Spent(NOON + 2 * HOUR, "acme", None, "haiku", 1, 1)]


def test_erased_rows_make_room(ledger: MemoryLedger, monkeypatch) -> None:
    """What was erased counts no more, so that the bound holds for what is there."""
    monkeypatch.setattr(rollup_module, "_MOST_ROWS", 4)
    for number in range(4):
        spend(ledger, str(number), 1, origin=Origin("acme" if number < 3 else "globex", f"/{number}"))
    done(ledger.erase("acme"))
    assert ledger._rollup._rows == 1
    for number in range(3):
        spend(ledger, f"more {number}", 1, origin=Origin(f"t{number}"))
    assert [row.tenant for row in done(ledger.history(0)) if row.tenant is None] == []
    assert ledger._rollup._rows == 4


def test_ids_that_were_posted_are_remembered_in_bounds(ledger: MemoryLedger, monkeypatch) -> None:
    """As those of holds that ended: what a journal tells twice is charged once."""
    monkeypatch.setattr(memory_module, "_MOST_ENDED", 10)
    gots = [held(ledger, str(number), 1, line()) for number in range(40)]
    for got in gots:
        done(ledger.release(got.id))
    other = MemoryLedger(clock=lambda: NOON)
    for number, got in enumerate(gots):
        assert done(other.post(got, 1))
        for recent in gots[max(0, number - 9) : number + 1]:
            assert not done(other.post(recent, 1))
        assert len(other._ended) + len(other._ended_before) <= 21
    assert [each.spent for each in done(other.balances())] == [40]


def test_a_lapse_corrects_no_other_row(ledger: MemoryLedger, clock: Clock, monkeypatch) -> None:
    """A late settlement of what was booked to an hour that is gone takes nothing from those that are there."""
    monkeypatch.setattr(rollup_module, "_MOST_ROWS", 3)
    got = held(ledger, "a", 60, origin=Origin("acme"))
    clock.now += LEASE
    assert len(done(ledger.history(0))) == 1
    clock.now += HOUR
    for number in range(5):
        spend(ledger, str(number), 1, origin=Origin(f"t{number}"))
    before = done(ledger.history(0))
    assert done(ledger.settle(got, 5))
    assert done(ledger.history(0)) == before


def test_alerts_where_a_release_finds_them(ledger: MemoryLedger) -> None:
    """A limit that was lowered is noticed by whatever ends next on the account."""
    told = []
    ledger.watch(told.append)
    watched = line(alert_at=(0.8,))
    spend(ledger, "a", 40, watched)
    held(ledger, "b", 5, watched)
    done(ledger.set_limit("b", "acme", 50))
    assert done(ledger.release("b"))
    assert [(alert.share, alert.spent, alert.limit) for alert in told] == [(0.8, 40, 50)]


def test_no_offer_at_all(ledger: MemoryLedger) -> None:
    """Nothing to reserve is a mistake of the program."""
    with pytest.raises(ValueError, match="no offer"):
        done(ledger.reserve("a", [], [line()]))


def test_windows_of_a_plan(ledger: MemoryLedger) -> None:
    """A plan that makes a new line at each call, equal to the one before, changes nothing."""
    for number in range(10):
        spend(ledger, str(number), 10, Line("b", "acme", 100, Window("day"), alert_at=(0.5,)))
    assert [(each.spent, each.limit) for each in done(ledger.balances())] == [(100, 100)]
