"""Whether a fitted model is better than what it would replace, honestly."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.errors import ConfigurationError
from tierline.evaluation.rows import Row
from tierline.evaluation.training import brier, compare, fold_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def rows_of(count: int, seed: int = 0, *, repeat: int = 1) -> list[Row]:
    """Rows that are complex where their text has the word `hard`, and of which one in ten is the other way round."""
    rng = random.Random(seed)  # noqa: S311
    rows: list[Row] = []
    for number in range(count):
        hard = rng.random() < 0.5
        label = "complex" if hard != (rng.random() < 0.1) else "simple"
        row = Row(f"line {number}", str(number), f"{'hard' if hard else 'easy'} {number}", label=label)
        rows += [row] * repeat
    return rows


def always(label: str) -> Callable[[Row], float]:
    return lambda row: float(row.label == label)


def learned(seen: Sequence[Row]) -> Callable[[Row], float]:
    """Learns what the word says."""
    votes = {word: [row.label for row in seen if (row.text or "").startswith(word)] for word in ("hard", "easy")}
    said = {word: max(set(labels), key=labels.count) for word, labels in votes.items()}
    return lambda row: float(said[(row.text or "").split()[0]] == row.label)


def by_heart(seen: Sequence[Row]) -> Callable[[Row], float]:
    """Knows the rows that it has seen, and guesses the others."""
    known = {row.text: row.label for row in seen}
    return lambda row: float(known.get(row.text, "simple") == row.label)


def test_one_who_learns_is_better() -> None:
    """About nine tenths against one half."""
    found = compare(rows_of(300), learned, always("simple"))
    assert found.better
    assert found.fitted.value == pytest.approx(0.9, abs=0.05)
    assert found.gain.value == pytest.approx(found.fitted.value - found.shipped.value)
    assert found.gain.low < found.gain.value < found.gain.high


def test_one_who_learns_by_heart_is_not() -> None:
    """No row is judged by one who has seen it, nor its repetition: it guesses, as the other does."""
    found = compare(rows_of(200, repeat=3), by_heart, always("simple"))
    assert found.gain.value == 0
    assert not found.better


def test_chance_is_not_better() -> None:
    """Of fifty fits to nothing, few are called better."""

    def coin(seen: Sequence[Row]) -> Callable[[Row], float]:
        rng = random.Random(len(seen) + sum(map(len, (row.text or "" for row in seen))))  # noqa: S311
        return lambda row: float(rng.random() < 0.5)

    def other(seed: int) -> Callable[[Row], float]:
        rng = random.Random(seed)  # noqa: S311
        return lambda row: float(rng.random() < 0.5)

    called = sum(compare(rows_of(120, seed), coin, other(seed), seed=seed).better for seed in range(50))
    assert called <= 6


def test_repeated_rows_are_no_more_evidence() -> None:
    """Ten copies of each row leave the interval as wide as it was."""
    once, often = (compare(rows_of(80, repeat=repeat), learned, always("simple")) for repeat in (1, 10))
    assert often.gain.high - often.gain.low > 0.7 * (once.gain.high - once.gain.low)


@given(st.text(min_size=1), st.integers(2, 10), st.integers(0, 5))
def test_a_text_has_one_fold(text: str, folds: int, seed: int) -> None:
    """Whatever its id."""
    one, other = Row("a", "1", text), Row("b", "2", text)
    assert fold_of(one, folds, seed) == fold_of(other, folds, seed) in range(folds)


def test_too_few_rows() -> None:
    """They are refused, and so are many of one text."""
    with pytest.raises(ConfigurationError, match="49 rows are too few"):
        compare(rows_of(49), learned, always("simple"))
    with pytest.raises(ConfigurationError, match="of the same texts"):
        compare(rows_of(1) * 100, learned, always("simple"))


def test_brier() -> None:
    """0 is best."""
    assert (brier(1, 1), brier(0, 1), brier(0.5, 1)) == (0, -1, -0.25)
