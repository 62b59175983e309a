"""Labels, fitted to the weights of a LocalClassifier, beside what ships."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

from tierline.classify.local import LocalClassifier
from tierline.classify.training import Example, fit
from tierline.evaluation.fitting import Recipe
from tierline.evaluation.opinions import Offline, opinion, view_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.classify.weights import Weights
    from tierline.evaluation.rows import Row
    from tierline.evaluation.training import Scorer
    from tierline.values import Label


def of_labels() -> Recipe:
    """By labels: the score is 1 for a row that gets the right one, and 0 for all others."""

    def fitted(rows: Sequence[Row]) -> Weights:
        return fit([Example(row.text or "", cast("Label", row.label), row.tools) for row in rows])

    return Recipe(
        "agreement",
        "what ships: LocalClassifier()",
        'LocalClassifier("{out}")',
        lambda rows: _agreeing(LocalClassifier(fitted(rows))),
        _agreeing(LocalClassifier()),
        _most_frequent,
        "always the most frequent label",
        lambda rows: fitted(rows).pack(),
    )


def _agreeing(classifier: LocalClassifier) -> Scorer:
    consult = Offline()

    def score(row: Row) -> float:
        said = opinion(classifier, view_of(row.text or "", row.tools), consult)
        return float(said is not None and said.label == row.label)

    return score


def _most_frequent(rows: Sequence[Row]) -> Scorer:
    counts = Counter(row.label for row in rows)
    label = min(counts, key=lambda each: (-counts[each], str(each)))
    return lambda row: float(row.label == label)
