"""The page is of the figures, and of nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from benchmarks.peers.aims import AIMS, times_less
from benchmarks.peers.figures import figures_of
from benchmarks.peers.page import TEMPLATE, absent, aims, app, columns, page, ratios, startup
from benchmarks.peers.plot import plot
from tests.peers.recorded import ABOUT, figures

if TYPE_CHECKING:
    from pathlib import Path


def line(of: str, begins: str) -> str:
    (found,) = [each for each in of.splitlines() if each.startswith(f"| {begins} |")]
    return found


def test_an_aim_is_met_or_missed_by_its_median() -> None:
    """Both are said as they are, and what was not measured is said to be so."""
    cached = AIMS[0].what
    assert line(aims(figures(1.05)), cached).endswith("| ≤ 1.06 | 1.05 | met |")
    assert line(aims(figures(1.07)), cached).endswith("| ≤ 1.06 | 1.07 | **missed** |")
    assert "| not measured |" in line(aims(figures()), "a stream of 1,000 events")
    assert line(aims(figures()), "`import tierline`, beside FastAPI and the SDK").endswith(
        "| ≤ 60 ms | 50 ms (40 to 70) | met |"
    )
    assert line(aims(figures()), "memory that it adds to an app with the SDK").endswith("| ≤ 8 MB | 7.00 MB | met |")


def test_times_less_is_of_what_is_added() -> None:
    """Seven times the call against a twentieth of it are 140 times, each over the SDK beside it."""
    found = times_less(figures(1.05, 8.0))
    assert found is not None
    assert found.value == pytest.approx(140)
    assert times_less(figures_of([], ABOUT, {})) is None


def test_ratios_have_intervals_where_there_are_rounds() -> None:
    """With three rounds only the median is shown; the base is 1; what was not measured is a dash."""
    found = ratios(figures())
    assert line(found, "Tierline").startswith("| Tierline | **1.05** 1.05 to 1.05 | **1.20** | - |")
    assert line(found, "plain SDK").startswith("| plain SDK | 1 | 1 | - |")


def test_the_plain_sdk_is_shown_once() -> None:
    """It was measured beside every peer, and is a column of the first environment only."""
    assert [column for _, column in columns(figures())] == [
        "plain SDK", "Tierline", "Tierline, SQLite", "LiteLLM Router, rules and budget",
    ]  # fmt: skip


def test_the_page_has_every_part() -> None:
    """No name in braces is left, no table is empty, and the run is named by date, commit and machine."""
    found = page(figures(), TEMPLATE.read_text(encoding="utf-8"))
    assert not re.search(r"\{[a-z ]+\}", found)
    for said in ("2026-11-22", "abc1234", "a processor", "litellm 1.106.2", "left out: a single call takes 0.3 s"):
        assert said in found
    for table in (ratios, aims, app, startup, absent):
        assert table(figures()) in found


def test_sections_of_others_are_taken_as_they_are(tmp_path: Path) -> None:
    """What is not there leaves nothing behind."""
    (tmp_path / "where.md").write_text("## Where the time goes\n\nHere.\n")
    template = "# Page\n\n{section where}\n\n{section large}\n\n{date}\n"
    assert page(figures(), template, tmp_path) == "# Page\n\n## Where the time goes\n\nHere.\n\n2026-11-22\n"


def test_a_name_that_nothing_is_known_of_is_an_error() -> None:
    """A slip in the template is no hole in the page."""
    with pytest.raises(KeyError, match="nonsense"):
        page(figures(), "{nonsense}")


def test_a_run_without_start_up_or_app_says_so() -> None:
    """So does one that measured a row alone."""
    nothing = figures_of([], ABOUT, {})
    assert startup(nothing) == app(nothing) == "Not measured."


def test_the_picture_is_of_the_figures(tmp_path: Path) -> None:
    """It names each column, has no background of its own, and is the same for the same figures."""
    pytest.importorskip("matplotlib")
    for name in ("one.svg", "other.svg"):
        plot(figures(), tmp_path / name)
    found = (tmp_path / "one.svg").read_text()
    assert found == (tmp_path / "other.svg").read_text()
    for _, column in columns(figures()):
        assert column in found
