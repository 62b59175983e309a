"""Graded outcomes, fitted to an OutcomeModel, beside what ships."""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tierline.errors import ConfigurationError
from tierline.evaluation.training import FOLDS, brier, fold_of
from tierline.learn import Evidence, OutcomeModel
from tierline.learn.sketch import unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tierline.evaluation.rows import Row
    from tierline.evaluation.training import Scorer


@dataclass(frozen=True, slots=True)
class Recipe:
    """How rows are learned from.

    - `score`: what a row is judged by; `beside`: what ships; `use`: how the file is used, with `{out}` in it
    - `fit`: a model of these rows, as how well it judges one; `shipped`: the same of what ships
    - `plain`: what anybody can do who counts, in place of `fit`; `by_count`: its name
    - `pack`: the bytes of a file with a model of these rows
    """

    score: str
    beside: str
    use: str
    fit: Callable[[Sequence[Row]], Scorer]
    shipped: Scorer
    plain: Callable[[Sequence[Row]], Scorer]
    by_count: str
    pack: Callable[[Sequence[Row]], bytes]


def _shares(rows: Sequence[Row]) -> Scorer:
    sums: dict[str, tuple[float, int]] = {}
    for row in rows:
        for tier, good in row.grades:
            total, count = sums.get(tier, (0.0, 0))
            sums[tier] = total + good, count + 1
    means = {tier: total / count for tier, (total, count) in sums.items()}
    return lambda row: sum(brier(means.get(tier, 0.5), good) for tier, good in row.grades) / len(row.grades)


def of_outcomes(tiers: tuple[str, ...]) -> Recipe:
    """By graded outcomes: the score is Brier's, of how likely each tier was said to be good enough (0 is best)."""

    def fitted(rows: Sequence[Row]) -> Scorer:
        return _judged(OutcomeModel(tiers).fit(outcome for row in rows for outcome in row.outcomes))

    def pack(rows: Sequence[Row]) -> bytes:
        model, at = OutcomeModel(tiers), round(time.time())
        found = [
            Evidence(
                f"{row.id} {outcome.tier}",
                outcome.route,
                outcome.tier,
                float(outcome.good),
                model.features(outcome.text, outcome.tools),
                outcome.source,
                outcome.weight,
                at=at,
            )
            for row in rows
            for outcome in row.outcomes
        ]
        return b"".join(json.dumps(_written(each)).encode() + b"\n" for each in found)

    return Recipe(
        "Brier's score of P(good enough), 0 is best",
        "what ships: the text alone",
        'Router(outcomes=outcome_model("{out}"))',
        fitted,
        _judged(OutcomeModel(tiers)),
        _shares,
        "each tier's share of good answers",
        pack,
    )


def outcome_model(path: str | Path, tiers: tuple[str, ...] = ("haiku", "sonnet", "opus")) -> OutcomeModel:
    """The model that `tierline train` wrote, for `Router(outcomes=…)`. It holds numbers, and no text.

    ConfigurationError for a file that cannot be read, or that was written by another version.
    """
    model = OutcomeModel(tiers)
    for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            evidence = Evidence(**row | {"features": b64decode(row["features"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(f"{path}, line {number}: it is no trained evidence; train again") from error
        if unpack(evidence.features) is None or evidence.tier not in tiers:
            raise ConfigurationError(
                f"{path}, line {number}: it is of another version, or of a tier that is none of {', '.join(tiers)}; "
                "train again"
            )
        model.absorb(evidence)
    model.settle()
    return model


def _written(evidence: Evidence) -> dict[str, object]:
    return evidence._asdict() | {"features": b64encode(evidence.features).decode()}


def _judged(model: OutcomeModel) -> Scorer:
    """How well a model says what became of a row's answers, in the mean over the tiers that were graded."""

    def score(row: Row) -> float:
        said = model.predict(route=row.route, text=row.text or "", tools=row.tools)
        for tier, _ in row.grades:
            if tier not in said:
                raise ConfigurationError(f"{row.where}: tier {tier!r} is not on the ladder ({', '.join(said)})")
        return sum(brier(said[tier], good) for tier, good in row.grades) / len(row.grades)

    return score


def chances_unseen(
    rows: Sequence[Row],
    tiers: tuple[str, ...],
    *,
    folds: int = FOLDS,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[dict[str, float]]:
    """For each row, how likely each tier is good enough, by a model that has not seen it or its text."""
    found: list[dict[str, float]] = [{} for _ in rows]
    for fold in watch(range(folds)):
        seen = [outcome for row in rows if fold_of(row, folds) != fold for outcome in row.outcomes]
        model = OutcomeModel(tiers).fit(seen)
        for place, row in enumerate(rows):
            if fold_of(row, folds) == fold:
                found[place] = model.predict(route=row.route, text=row.text or "", tools=row.tools)
    return found
