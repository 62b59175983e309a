"""What one account may weigh beside all others."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.learn.stores import evidence
from tierline.learn.shares import FREE, Shares

DAY = 86_400.0
HALF = 30 * DAY

said = st.lists(
    st.tuples(
        st.sampled_from(["", "acme", "globex", "mallory"]),
        st.sampled_from(["/a", "/b"]),
        st.sampled_from(["haiku", "opus"]),
        st.floats(0.01, 50),
    ),
    max_size=120,
)


@given(said)
def test_no_account_outweighs_the_others(story: list[tuple[str, str, str, float]]) -> None:
    """On every route and tier, at every moment, it weighs at most what all others do together, or the free minimum."""
    shares, weights = Shares(HALF), Counter()
    for number, (account, route, tier, weight) in enumerate(story):
        given = evidence(f"{number}", account=account, route=route, tier=tier, weight=weight, at=1e9)
        found = shares.counted(given)
        before = Counter(weights)
        if found is not None:
            assert found == given._replace(weight=found.weight)
            assert 0 < found.weight <= weight
            weights[route, tier, account] += found.weight
        if account:
            mine = weights[route, tier, account]
            others = sum(w for (r, t, a), w in before.items() if (r, t) == (route, tier) and a != account)
            assert mine <= max(others, FREE) + 1e-6
        else:
            assert found == given, "what the app itself says is not bounded"


def test_what_was_too_much_counts_later() -> None:
    """As others say more, an account may say more, too."""
    shares = Shares(HALF)
    many = [shares.counted(evidence(f"{n}", account="acme")) for n in range(20)]
    assert sum(each is not None for each in many) == FREE
    for n in range(30):
        shares.counted(evidence(f"app {n}"))
    more = [shares.counted(evidence(f"more {n}", account="acme")) for n in range(40)]
    assert sum(each is not None for each in more) == 30 - FREE


def test_what_others_said_long_ago_has_faded() -> None:
    """An account does not outweigh today what the others said a year ago, and its own fades as well."""
    shares = Shares(HALF)
    for n in range(1000):
        shares.counted(evidence(f"{n}"))
    today = [shares.counted(evidence(f"t {n}", account="acme", at=360 * DAY)) for n in range(100)]
    assert sum(each.weight for each in today if each is not None) == FREE
    later = [shares.counted(evidence(f"l {n}", account="acme", at=390 * DAY)) for n in range(100)]
    assert abs(sum(each.weight for each in later if each is not None) - FREE / 2) < 1e-6
