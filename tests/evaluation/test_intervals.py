"""How sure a figure is."""

from __future__ import annotations

import random
from math import inf, isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.errors import ConfigurationError
from tierline.evaluation import Interval, Sweep, bootstrap, wilson
from tierline.evaluation.intervals import mean_of, quantile, resamples_for


def test_wilson_as_published() -> None:
    """The example of Newcombe (1998): 81 of 263 is 0.308, from 0.2553 to 0.3662."""
    assert wilson(81, 263) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.0, 0.1611), abs=5e-5)


@given(st.integers(1, 5_000).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_wilson_holds_its_figure(case: tuple[int, int]) -> None:
    """Bounds are from 0 to 1 with the share between them, and mirror those of the misses."""
    hits, rows = case
    found, other = wilson(hits, rows), wilson(rows - hits, rows)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (1 - other.high, 1 - other.low) == pytest.approx((found.low, found.high))
    assert wilson(hits * 4, rows * 4).high - wilson(hits * 4, rows * 4).low <= found.high - found.low


def test_wilson_of_nothing() -> None:
    """No rows tell nothing, and more hits than rows are a mistake."""
    found = wilson(0, 0)
    assert isnan(found.value)
    assert (found.low, found.high) == (0.0, 1.0)
    with pytest.raises(ConfigurationError, match="3 hits of 2 rows"):
        wilson(3, 2)


def test_an_interval_reads_well() -> None:
    """Three digits and the bounds in brackets."""
    assert str(Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


def mean(values: list[float]) -> object:
    def weighed(weights: object) -> float:
        return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)  # type: ignore[call-overload, arg-type]

    return weighed


def test_bootstrap_of_a_mean() -> None:
    """For a mean it is close to 1.96 standard errors, and the same for the same seed."""
    rng = random.Random(7)  # noqa: S311
    values = [rng.gauss(10, 2) for _ in range(400)]
    found = bootstrap(mean(values), 400, seed=3)  # type: ignore[arg-type]
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.15)
    assert found.low < found.value < found.high
    assert found == bootstrap(mean(values), 400, seed=3)  # type: ignore[arg-type]
    assert found != bootstrap(mean(values), 400, seed=4)  # type: ignore[arg-type]


def test_bootstrap_covers() -> None:
    """Of a hundred samples about ninety-five have the true mean in their interval."""
    rng = random.Random(11)  # noqa: S311
    held = 0
    for seed in range(100):
        found = bootstrap(mean([rng.random() for _ in range(60)]), 60, seed=seed, resamples=300)  # type: ignore[arg-type]
        held += found.low <= 0.5 <= found.high
    assert 88 <= held <= 100


def test_draws_that_tell_nothing_widen_both_sides() -> None:
    """Where a figure is undefined for many draws, nothing is promised."""
    sweep = Sweep([2, 1, 0], [0, 1, 1], [1, 1, 1])
    found = bootstrap(sweep.apgr, 3)  # a draw without the first row has no gap
    assert (found.low, found.high) == (-inf, inf)


def test_draws_go_by_one_who_watches() -> None:
    """A progress bar sees every draw, and there are fewer for many rows."""
    seen: list[int] = []

    def watch(draws: object) -> object:
        for draw in draws:  # type: ignore[attr-defined]
            seen.append(draw)
            yield draw

    bootstrap(mean([1.0, 2.0]), 2, resamples=5, watch=watch)  # type: ignore[arg-type]
    assert seen == [0, 1, 2, 3, 4]
    assert (resamples_for(100), resamples_for(8_000), resamples_for(10**6)) == (1_000, 500, 200)


def test_the_interval_of_a_mean() -> None:
    """Two standard errors each way; of one value nothing is known but that."""
    assert mean_of(10, 30, 4) == pytest.approx((2.5, 2.5 - 1.96 * 0.6455, 2.5 + 1.96 * 0.6455), abs=1e-3)
    assert mean_of(7, 49, 1) == (7, -inf, inf)
    assert isnan(mean_of(0, 0, 0).value)
    assert Interval(1, 0.5, 2).times(10) == (10, 5, 20)


def test_quantiles() -> None:
    """In between two values, straight; none of nothing."""
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([0, 10], 0.25) == 2.5
    assert quantile([-inf, 1, 2], 0.0) == -inf
    assert isnan(quantile([], 0.5))
