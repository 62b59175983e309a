"""The tool that counts instructions counts the calls that it says, and sees what has grown."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.count import ROWS, Figure, Row, count, counted, grown, last_of, table


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_count_holds_the_calls_alone(row: Row) -> None:
    """Between the last two dumps of each way are the calls that are counted, and nothing between those before."""
    made: list[str] = []
    seen: list[int] = []

    async def call(client, model):
        made.append(model)
        return await row.call(client, model)

    known = Row(row.name, call, row.classifier, row.spans, row.parts, row.calls)
    count(known, 3, lambda: seen.append(len(made)))
    assert seen[1] == seen[0]
    assert seen[2] == seen[1] + 3
    assert seen[4] == seen[3] > seen[2]
    assert seen[5] == seen[4] + 3
    assert set(made[: seen[2]]) == {"claude-haiku-5-5"}
    assert set(made[seen[2] :]) == {"auto"}


def test_what_has_grown_by_more_than_two_percent_is_told() -> None:
    """A row may cost two percent more than before, and not three; one that is new has nothing to be held against."""
    figures = {"a": Figure(1_000, 102), "b": Figure(1_000, 103), "c": Figure(1_000, 9)}
    (told,) = grown(figures, {"a": 100, "b": 100})
    assert told == "b: 103 instructions a call, +3.0%"
    assert "1.103" in table(figures, {"b": 100})


def test_figures_are_compared_with_the_last_of_the_same_build() -> None:
    """The latest figure of each row counts, and those of another build never do."""
    history = [
        {"python": "3.11", "added": {"a": 3, "b": 5}},
        {"python": "3.11", "added": {"a": 2}},
        {"python": "3.12", "added": {"a": 1}},
    ]
    assert last_of(history, {"python": "3.11"}) == {"a": 2, "b": 5}
    assert last_of(history, {"python": "3.14"}) == {}


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_a_figure_repeats() -> None:
    """Two counts of one row differ by less than what is told as growth."""
    first, second = counted(ROWS[0], 20), counted(ROWS[0], 20)
    assert 0 < first.added < first.plain
    assert abs(first.added - second.added) < 0.02 * first.added
