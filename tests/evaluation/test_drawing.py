"""Decisions that are worth a person's look."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tierline.evaluation.drawing import draw
from tierline.evaluation.rows import Row


def logged(number: int, route: str = "/a", confidence: float = 0.9, label: str | None = "simple", **more: Any) -> Row:
    record = {"label": label, "confidence": confidence, "source": "local", "outcome": "ok", "tier": "haiku"} | more
    return Row(f"line {number}", f"d{number}", None, route=route, record=record)


def ids(rows: list[Row], count: int, **options: Any) -> list[str]:
    return [drawn.row.id for drawn in draw(rows, count, **options)]


LOGS = st.lists(
    st.tuples(st.sampled_from(["/a", "/b", "/c"]), st.floats(0, 1), st.sampled_from(["simple", None])), max_size=30
).map(lambda rows: [logged(number, *row) for number, row in enumerate(rows)])


def test_the_doubtful_come_first() -> None:
    """Nobody had an opinion, then nearest to the threshold, then the sure, and pins at the end."""
    silent = logged(2, confidence=0.0, label="moderate", source="default")
    pinned = logged(4, confidence=1.0, label=None, source="pin")
    rows = [logged(0, confidence=0.99), pinned, logged(1, confidence=0.62), silent, logged(3, confidence=0.8)]
    assert ids(rows, 5) == ["d2", "d1", "d3", "d0", "d4"]
    found = draw(rows, 5)
    assert found[0].why == "nobody had an opinion; 1 of 5 calls of /a"
    assert found[-1].why == "chosen by pin; 1 of 5 calls of /a"
    assert "(not sure)" in draw([logged(1, confidence=0.5)], 1)[0].why


def test_where_the_route_chose_its_chances_count() -> None:
    """First the one whose cheaper tier is just about good enough."""
    rows = [
        logged(number, label=None, source="route", chances={"haiku": chance, "opus": 0.9})
        for number, chance in enumerate([0.3, 0.85, 0.7])
    ]
    assert ids(rows, 3) == ["d1", "d2", "d0"]
    assert draw(rows, 1)[0].why == "the route says haiku 0.85, opus 0.90; 1 of 3 calls of /a"


def test_a_rare_route_is_heard() -> None:
    """One call among a thousand is the first that is drawn, however sure its label is."""
    rows = [logged(number, confidence=0.6) for number in range(999)] + [logged(999, "/rare", 0.99)]
    assert ids(rows, 2)[0] == "d999"


def test_what_is_of_no_use_is_left_out() -> None:
    """Calls without an answer, rows of no log, and what has been graded."""
    rows = [logged(0, outcome="refused"), Row("line 1", "d1", "x", label="simple"), logged(2), logged(3)]
    assert ids(rows, 9, without={"d2"}) == ["d3"]


@given(LOGS, st.integers(1, 12), st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_draw(rows: list[Row], count: int, seed: int, random: Any) -> None:
    """As many as there are, none twice, each route heard, and the same whatever the order of the log."""
    found = ids(rows, count, seed=seed)
    assert len(found) == len(set(found)) == min(count, len(rows))
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert ids(shuffled, count, seed=seed) == found
    routes = {row.route for row in rows}
    heard = {row.route for row in rows if row.id in found}
    assert len(heard) == min(len(routes), count)
