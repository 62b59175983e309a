from __future__ import annotations

import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tierline.report import KEPT_DOWNGRADES, KEPT_LATENCIES, MOST_NAMES, OTHER, Downgrade, Spend, Tally
from tierline.values import NANO, Attempt, Decision, Observed, Usage


def decision(tier: str = "a", cost: int = 0, **fields: Any) -> Decision:
    fields.setdefault("latency_s", 0.0)
    return Decision("d", tier, "m", tier, None, 1.0, "default", cost=cost, **fields)


calls = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(0, 10**12),
        st.integers(-(10**12), 10**12),
        st.sampled_from([None, "/x", "/y"]),
        st.sampled_from([None, "acme"]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=30,
)


@given(calls)
def test_the_sums(ended: list[Any]) -> None:
    """Whatever calls end, every way of slicing them adds up to the same calls and the same money."""
    tally = Tally(("a", "b"))
    for tier, cost, saved, route, tenant, failed, fell in ended:
        attempts = (Attempt(tier, "m", "fallback" if fell else "retry", "ok", Usage()),)
        found = decision(tier, cost, saved=saved, route=route, tenant=tenant, attempts=attempts)
        tally.ended(found, {"a": 3, "b": 5}, failed=failed)
    report = tally.report(3, 1)
    assert report.calls == len(ended)
    assert report.cost == sum(c[1] for c in ended)
    assert report.saved == sum(c[2] for c in ended)
    assert report.failures == sum(c[5] for c in ended)
    assert report.fallbacks == sum(c[6] for c in ended)
    for table in (report.by_tier, report.by_route, report.by_account):
        assert sum(s.calls for s in table.values()) == len(ended)
        assert sum(s.cost for s in table.values()) == report.cost
    assert report.all_on == ({"a": 3 * len(ended), "b": 5 * len(ended)} if ended else {})
    assert list(report.by_tier) == [t for t in "ab" if any(c[0] == t for c in ended)]
    assert (report.cache_hits, report.cache_misses) == (3, 1)
    assert str(report)


def test_tags_and_what_was_only_observed() -> None:
    """A call counts in the row of each of its tags; what enforcing would have made of it stands beside what was."""
    tally = Tally(("a", "b"))
    tags = (("feature", "chat"), ("team", "legal"))
    tally.ended(decision("b", 90, tags=tags, observed=Observed("a", cost=40, saved=50)), {}, failed=False)
    tally.ended(
        decision("b", 95, tags=tags[:1], classifier_cost=5, observed=Observed("a", downgraded=True, cost=45, saved=45)),
        {},
        failed=False,
    )
    tally.ended(decision("b", 7, observed=Observed(None, "budget x has no room")), {}, failed=True)
    report = tally.report(0, 0)
    assert report.by_tag == {"feature=chat": Spend(2, 180), "team=legal": Spend(1, 90)}
    seen = report.observed
    assert (seen.calls, seen.cost, seen.saved, seen.downgraded, seen.refused) == (3, 85, 95, 1, 1)
    assert seen.by_tier == {"a": Spend(2, 80)}
    table = str(report)
    assert "only observed" in table
    assert "$0.000000095, 53%" in table
    assert "only observed" not in str(Tally(("a",)).report(0, 0))


def test_names_are_bounded() -> None:
    """However many routes and tenants there are, so many rows are kept, and nothing is lost."""
    tally = Tally(("a",))
    for number in range(MOST_NAMES + 50):
        tally.ended(decision(cost=1, route=f"/{number}", tenant=f"t{number}"), {}, failed=False)
    tally.ended(decision(cost=1, route="/0", tenant="t0"), {}, failed=False)
    report = tally.report(0, 0)
    for table, name in ((report.by_route, "/0"), (report.by_account, "t0")):
        assert len(table) == MOST_NAMES + 1
        assert table[OTHER].calls == 50
        assert table[name].calls == 2
        assert sum(s.cost for s in table.values()) == MOST_NAMES + 51


def test_downgrades_are_counted_all_and_kept_the_latest() -> None:
    """The count of downgrades is whole, the list of them is bounded."""
    tally = Tally(("a",))
    for number in range(KEPT_DOWNGRADES + 10):
        tally.downgraded(Downgrade(float(number), "b", "a", 0.7))
    report = tally.report(0, 0)
    assert report.downgraded == KEPT_DOWNGRADES + 10
    assert [d.at for d in report.downgrades] == [float(n) for n in range(10, KEPT_DOWNGRADES + 10)]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40))
def test_latencies(seconds: list[float]) -> None:
    """The median and the 95th percentile are times that were measured, with enough calls on either side."""
    tally = Tally(("a",))
    for latency in seconds:
        tally.ended(decision(latency_s=latency, classifier_latency_s=latency / 2), {}, failed=False)
    report = tally.report(0, 0)
    for q, found in ((0.5, report.latency_p50), (0.95, report.latency_p95)):
        assert found in seconds
        assert sum(s <= found for s in seconds) >= q * len(seconds)
        assert sum(s >= found for s in seconds) >= (1 - q) * len(seconds) - 1e-9
    assert report.classifier_latency_p95 == report.latency_p95 / 2
    assert len(tally._latency) <= KEPT_LATENCIES


def test_an_empty_report() -> None:
    """A process that did nothing has a report that divides by nothing."""
    text = str(Tally(("a",)).report(0, 0))
    assert "no lookups" in text
    assert "$0.00" in text


def test_the_table() -> None:
    """The table shows calls, money by tier, what each tier alone would have cost, and refusals."""
    tally = Tally(("haiku", "opus"))
    tally.ended(decision("haiku", NANO, saved=3 * NANO), {"haiku": NANO, "opus": 4 * NANO}, failed=False)
    tally.ended(decision("opus", 4 * NANO), {"haiku": NANO, "opus": 4 * NANO}, failed=True)
    tally.refused()
    text = str(tally.report(1, 3))
    rows = dict(line.rstrip().split("  ", 1) for line in text.splitlines() if not line.startswith(" "))
    rows = {name: value.strip() for name, value in rows.items()}
    assert rows["calls"] == "2"
    assert rows["cost"] == "$5.00"
    assert rows["saved"].startswith("$3.00")
    assert rows["refusals"] == "1"
    assert rows["failures"] == "1"
    assert rows["verdict cache"] == "1 hits, 3 misses (25%)"
    assert "1 for $4.00" in text
    assert "all on opus" in text
    assert len({line.find(line.split("  ")[-1].strip()) for line in text.splitlines()}) == 1


def test_a_snapshot_stays() -> None:
    """A report does not change when calls go on."""
    tally = Tally(("a",))
    tally.ended(decision(cost=1, route="/x"), {"a": 1}, failed=False)
    before = tally.report(0, 0)
    shown = str(before)
    tally.ended(decision(cost=1, route="/y"), {"a": 1}, failed=False)
    assert str(before) == shown
    assert list(before.by_route) == ["/x"]


def test_threads_lose_nothing() -> None:
    """Calls that end in many threads at once are all counted."""
    tally = Tally(("a",))

    def work() -> None:
        for _ in range(500):
            tally.ended(decision(cost=2, route="/x"), {"a": 3}, failed=False)
            tally.refused()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = tally.report(0, 0)
    assert (report.calls, report.cost, report.refusals, report.all_on) == (4_000, 8_000, 4_000, {"a": 12_000})


def test_what_classifying_cost_is_counted_once() -> None:
    """A verdict that several calls waited for is counted when it was paid, and not with each of them."""
    tally = Tally(("a",))
    tally.asked(7, "/r", "acme")
    for _ in range(3):
        tally.ended(decision(cost=17, classifier_cost=7), {}, failed=False)
    report = tally.report(0, 0)
    assert (report.classifier_cost, report.cost) == (7, 37)
    assert "18.9% of it" in str(report)
