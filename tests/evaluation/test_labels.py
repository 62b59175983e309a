"""Fitting to an app's own labels, and reading the weights back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierline.classify import LocalClassifier
from tierline.evaluation.labels import of_labels
from tierline.evaluation.rows import Row
from tierline.evaluation.training import compare

if TYPE_CHECKING:
    from pathlib import Path


def labelled(count: int) -> list[Row]:
    """Texts whose label is in a word of the app's own."""
    words = {"simple": "frobnicate", "moderate": "transmogrify", "complex": "defenestrate"}
    labels = [*words] * count
    return [
        Row(f"line {n}", str(n), f"{words[label]} the widget number {n}", label=label)
        for n, label in enumerate(labels[:count])
    ]


def test_labels_are_learned() -> None:
    """Words that nobody else uses are told apart once an app has labelled some."""
    recipe = of_labels()
    found = compare(labelled(150), recipe.fit, recipe.shipped)
    assert found.better
    assert found.fitted.value > 0.9
    assert compare(labelled(150), recipe.plain, recipe.shipped).fitted.value < 0.5


def test_weights_are_read_back(tmp_path: Path) -> None:
    """The file of a classifier is one for `LocalClassifier`, and is the same for the same rows."""
    rows = labelled(60)
    (tmp_path / "w").write_bytes(of_labels().pack(rows))
    found = LocalClassifier(tmp_path / "w").probabilities("defenestrate the widget number 1000")
    assert max(found, key=found.__getitem__) == "complex"
    assert (tmp_path / "w").read_bytes() == of_labels().pack(rows)
