"""The measuring tools of the security model, with few calls: whether they run, and see what they look for."""

from __future__ import annotations

import pytest

from benchmarks import oracle, soak


def test_an_order_is_told() -> None:
    """Times that are apart are told with certainty, equal ones are a guess, and which way round does not matter."""
    assert oracle.auc([1.0, 2.0], [3.0, 4.0]) == oracle.auc([3.0, 4.0], [1.0, 2.0]) == 1.0
    assert oracle.auc([1.0, 4.0], [2.0, 3.0]) == 0.5


def test_a_slope_is_told() -> None:
    """Bytes for 100,000 calls, by the line that is nearest to all looks."""
    assert soak.slope([(0, 100), (1_000, 110), (2_000, 120)]) == pytest.approx(1_000)
    assert soak.slope([(0, 100), (1_000, 140), (2_000, 100)]) == pytest.approx(0)


async def test_the_soak_makes_every_kind_of_call(capsys: pytest.CaptureFixture[str]) -> None:
    """Whole, streamed, left, cancelled, failed: and in the end nothing is held."""
    looks = await soak.live(calls=40, warm=20, every=20)
    assert [calls for calls, _ in looks] == [0, 20, 40]
    assert "calls/s" in capsys.readouterr().out


async def test_the_oracle_measures_both() -> None:
    """Of a few rounds it gives two figures, each from a half to one."""
    assert all(0.5 <= each <= 1 for each in await oracle.measure(5))


@pytest.mark.soak
@pytest.mark.parametrize("calls", [100_000, 1_000_000])
def test_a_long_life(calls: int) -> None:
    """A hundred thousand calls make the process grow by less than 5 MB, and a million are a flat line."""
    assert soak.main(["--calls", str(calls)]) == 0


@pytest.mark.soak
def test_nobody_is_told_by_time() -> None:
    """Whether another tenant has asked is told by the time of a call no better than by chance."""
    assert oracle.main([]) == 0
