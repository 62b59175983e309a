"""What a run found passes into a file and back, and its ratios are those of its rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.peers.figures import cells_of, figures_of, keep, kept
from benchmarks.peers.rows import PLAIN, ROWS
from tests.peers.recorded import ABOUT, figures, part, took

if TYPE_CHECKING:
    from pathlib import Path


def test_ratios_are_of_one_round() -> None:
    """Rounds of the run grow slower by two thirds; what takes 1.05 times the base has that, and no interval."""
    found = cells_of(part(0, "tierline", {"Tierline": 1.05}))
    assert found["Tierline"].over[PLAIN] == pytest.approx((1.05, 1.05, 1.05))
    assert found["Tierline"].cpu == pytest.approx(1.05 * found[PLAIN].cpu)
    assert found["Tierline"].rounds == 8
    assert found[PLAIN].over == {}


def test_what_works_beside_is_counted() -> None:
    """A proxy's CPU is in the ratio, and told by itself."""
    found = cells_of(part(0, "litellm", {"proxy": 1.0}, rounds=1, beside=5_000))["proxy"]
    assert (found.cpu, found.beside, found.all) == (1_000, 5_000, 6_000)
    assert found.over[PLAIN].value == pytest.approx(6)


def test_rounds_without_a_column_pair_nothing() -> None:
    """A column that was lost on the way has the ratio of the rounds that it was in."""
    run = part(0, "tierline", {"Tierline": 1.1}, rounds=3)
    run.rounds[0]["lost"] = took(2_000)
    del run.rounds[2]["Tierline"]
    found = cells_of(run)
    assert found["lost"].over[PLAIN].value == pytest.approx(2)
    assert (found["lost"].rounds, found["Tierline"].rounds, found[PLAIN].rounds) == (1, 2, 3)


def test_other_bases_are_taken_too() -> None:
    """A column may be held against one of its own kind, beside the plain SDK."""
    run = part(0, "tierline", {"traced": 1.2, "Tierline": 1.32})
    run.also["Tierline"] = ("traced", "absent")
    over = cells_of(run)["Tierline"].over
    assert set(over) == {PLAIN, "traced"}
    assert over["traced"].value == pytest.approx(1.1)


def test_figures_pass_through_a_file(tmp_path: Path) -> None:
    """They are the same to five digits, with the reasons for what is missing."""
    keep(figures(), tmp_path / "figures.json")
    found = kept(tmp_path / "figures.json")
    cell = found.cell(ROWS[0].name, "tierline", "Tierline")
    assert cell is not None
    assert cell.over[PLAIN].value == pytest.approx(1.05)
    assert found.missing == {"LiteLLM proxy": {ROWS[0].name: "left out: a single call takes 0.3 s"}}
    assert found.about == ABOUT
    keep(found, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "figures.json").read_bytes()


def test_a_row_without_columns_is_none() -> None:
    """What was not measured is None, and no zero."""
    assert figures_of([], ABOUT, {}).cell(ROWS[0].name, "tierline", "Tierline") is None
