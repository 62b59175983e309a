"""Fitting to an app's own rows, and reading the result back."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tierline.errors import ConfigurationError
from tierline.evaluation.fitting import chances_unseen, of_outcomes, outcome_model
from tierline.evaluation.rows import Row
from tierline.evaluation.training import compare

if TYPE_CHECKING:
    from pathlib import Path

TIERS = ("haiku", "opus")


def graded(count: int) -> list[Row]:
    """Requests of two routes: on one of them the cheap tier is hardly ever good enough, whatever the text."""
    rng = random.Random(2)  # noqa: S311
    rows = []
    for number in range(count):
        hard = number % 2
        good = float(rng.random() < (0.1 if hard else 0.95))
        grades = (("haiku", good), ("opus", 1.0))
        rows.append(Row(f"line {number}", str(number), f"please look at {rng.random()}", f"/{hard}", grades=grades))
    return rows


def test_routes_are_learned() -> None:
    """What the route teaches is better than the text alone, and than counting."""
    recipe = of_outcomes(TIERS)
    found = compare(graded(200), recipe.fit, recipe.shipped)
    assert found.better
    assert found.fitted.value > compare(graded(200), recipe.plain, recipe.shipped).fitted.value


def test_outcomes_are_read_back(tmp_path: Path) -> None:
    """The file of a model has numbers, and no text; a tier that it does not know, and a broken line, are named."""
    path = tmp_path / "model"
    path.write_bytes(of_outcomes(TIERS).pack(graded(80)))
    assert b"please" not in path.read_bytes()
    model = outcome_model(path, TIERS)
    easy, hard = (model.predict(route=route, text="please look")["haiku"] for route in ("/0", "/1"))
    assert easy - hard > 0.3
    with pytest.raises(ConfigurationError, match="line 1: it is of another version, or of a tier"):
        outcome_model(path, ("small", "large"))
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(ConfigurationError, match="line 161: it is no trained evidence"):
        outcome_model(path, TIERS)


def test_nobody_judges_what_it_has_seen() -> None:
    """Rows whose grades are noise are predicted no better than by their mean, though they could be learned by heart."""
    rng = random.Random(4)  # noqa: S311
    rows = [Row(f"{n}", str(n), f"text {n}", grades=(("haiku", float(rng.random() < 0.5)),)) for n in range(120)]
    said = chances_unseen(rows, TIERS)
    error = sum((said[n]["haiku"] - row.grades[0][1]) ** 2 for n, row in enumerate(rows)) / len(rows)
    assert error > 0.24


def test_a_tier_that_is_not_there() -> None:
    """Said with its line."""
    with pytest.raises(ConfigurationError, match="line 0: tier 'haiku' is not on the ladder"):
        of_outcomes(("small", "large")).shipped(graded(1)[0])
