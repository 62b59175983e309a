"""What the route adds to the text: `OutcomeModel` on prompts that neither it nor its prior has seen.

    python -m benchmarks.quality.routes --data DIR [--quick]

Sources stand for the routes of an app. Each figure is of five folds: outcomes of both tiers are given for the prompts
of four, as many for each route as the table says, and the prompts of the fifth are ranked by
predict["opus"] - predict["haiku"]. The weights of the prior are trained anew for each fold, on everything but its
prompts (numpy and scikit-learn: the group `quality`); `--quick` leaves that prior out. Deterministic.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.quality.data import SETS, claude
from benchmarks.quality.figures import exactly, keep, options
from benchmarks.quality.scores import Score, scored
from benchmarks.quality.writing import apgr, table
from tierline.classify import LocalClassifier
from tierline.classify.local import Opinion
from tierline.classify.weights import Weighed
from tierline.evaluation import expected_calibration_error
from tierline.features import dense, hashed, read
from tierline.learn import Outcome, OutcomeModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from benchmarks.quality.data import Pair
    from benchmarks.quality.figures import Figures
    from tierline.values import Label

FOLDS: Final = 5
SIZES: Final = (10, 30, 100, None)
"""Outcomes of each tier for each route; None for all there are."""
TIERS: Final = ("haiku", "opus")


class Blind:
    """A prior that says the same of every text: the mean need of benchmark prompts."""

    def weigh(self, text: str, tools: int = 0) -> tuple[Weighed, Opinion]:
        reading = read(text, tools)
        found = hashed(reading)
        chances: dict[Label, float] = {"simple": 0.86, "moderate": 0.08, "complex": 0.06}
        return Weighed({}, dense(reading), found, len(found)), Opinion(chances, 0.0, "")


class Found(NamedTuple):
    """A way to predict, on all prompts: how well it ranks them, and how honest its probabilities are."""

    score: Score
    ece: float


def folds(pairs: Sequence[Pair]) -> list[int]:
    """The fold of each prompt: equal texts in the same, and of every source as many in each."""
    rng = random.Random(0)
    known: dict[str, int] = {}
    for source in sorted({pair.source for pair in pairs}):
        texts = sorted({pair.prompt for pair in pairs if pair.source == source} - known.keys())
        rng.shuffle(texts)
        known.update((text, place % FOLDS) for place, text in enumerate(texts))
    return [known[pair.prompt] for pair in pairs]


def outcomes(pairs: Iterable[Pair], route: Callable[[Pair], str]) -> list[Outcome]:
    """What both tiers made of some prompts."""
    return [
        Outcome(route(pair), pair.prompt, tier, good, pair.tools)
        for pair in pairs
        for tier, good in zip(TIERS, (pair.weak, pair.strong), strict=True)
    ]


def drawn(pairs: Sequence[Pair], size: int | None, seed: int) -> list[Pair]:
    """At most `size` prompts of each source."""
    by_source: dict[str, list[Pair]] = defaultdict(list)
    for pair in random.Random(seed).sample(pairs, len(pairs)):
        by_source[pair.source].append(pair)
    return [pair for found in by_source.values() for pair in found[:size]]


def crossed(
    pairs: Sequence[Pair],
    size: int | None,
    *,
    classifiers: Sequence[object],
    route: Callable[[Pair], str] = lambda pair: pair.source,
    text: Callable[[Pair], str] = lambda pair: pair.prompt,
) -> Found:
    """Every prompt, predicted by what was learned from the other folds."""
    place = folds(pairs)
    chances: list[list[float]] = [[]] * len(pairs)
    for fold in range(FOLDS):
        known = drawn([pair for pair, of in zip(pairs, place, strict=True) if of != fold], size, fold)
        shown = [replace(pair, prompt=text(pair)) for pair in known]
        model = OutcomeModel(TIERS, classifier=classifiers[fold], most=100_000, clock=lambda: 0.0)
        model.fit(outcomes(shown, route))
        for at, pair in enumerate(pairs):
            if place[at] == fold:
                chances[at] = list(model.predict(route=route(pair), text=text(pair), tools=pair.tools).values())
    return measured(pairs, chances)


def measured(pairs: Sequence[Pair], chances: Sequence[Sequence[float]]) -> Found:
    """How well the differences rank the prompts, and how honest the chances of both tiers are."""
    errors = [
        expected_calibration_error([each[place] for each in chances], [(p.weak, p.strong)[place] for p in pairs])
        for place in range(len(TIERS))
    ]
    return Found(scored([high - low for low, high in chances], pairs), fmean(errors))


def trained(data: Path, pairs: Sequence[Pair]) -> list[object]:
    """For each fold, a classifier whose weights have not seen its prompts, in whatever source they stand."""
    from scripts.train_classifier import examples_of, train  # noqa: PLC0415  (needs the group `quality`)

    place = folds(pairs)
    examples = examples_of(data)
    hidden = [
        {pair.prompt.strip() for pair, of in zip(pairs, place, strict=True) if of == fold} for fold in range(FOLDS)
    ]
    return [LocalClassifier(train([each for each in examples if each.text.strip() not in texts])) for texts in hidden]


def unseen_routes(pairs: Sequence[Pair]) -> list[tuple[str, Score]]:
    """Each source with a gap, by what the others have taught: the model without any outcome of the route."""
    found = []
    for source in sorted({pair.source for pair in pairs}):
        asked = [pair for pair in pairs if pair.source == source]
        if sum(pair.strong - pair.weak for pair in asked) < GAP:
            continue
        model = OutcomeModel(TIERS, classifier=Blind(), most=100_000, clock=lambda: 0.0)
        model.fit(outcomes([pair for pair in pairs if pair.source != source], lambda pair: pair.source))
        chances = [list(model.predict(route=source, text=p.prompt, tools=p.tools).values()) for p in asked]
        found.append((source, scored([high - low for low, high in chances], asked)))
    return found


GAP: Final = 5
"""Prompts by which the strong tier must be ahead, for there to be a share of the gap to speak of."""


def row(name: str, size: str, found: Found) -> list[str]:
    """One line of the table."""
    cost = found.score.cost_at_95
    return [name, size, apgr(found.score), "-" if cost is None else f"{cost:.3f}", f"{found.ece:.3f}"]


def of_both(name: str, found: Found) -> Figures:
    """What the targets are told of."""
    cost = found.score.cost_at_95
    figures = {f"{name}: APGR": found.score.apgr, f"{name}: ECE": exactly(found.ece)}
    return figures if cost is None else {**figures, f"{name}: cost at 95%": exactly(cost)}


def main() -> None:
    """Print the section as Markdown."""
    parser = options(__doc__)
    parser.add_argument("--quick", action="store_true", help="without priors that are trained for each fold")
    given = parser.parse_args()
    pairs = claude(given.data)
    figures: Figures = {}
    blind = [Blind()] * FOLDS
    priors = {"no prior of texts": blind} if given.quick else {
        "no prior of texts": blind, "trained prior": trained(given.data, pairs),
    }  # fmt: skip
    lines = []
    for size in SIZES:
        shown = "all" if size is None else str(size)
        lines.append(row("route and tools", shown, crossed(pairs, size, classifiers=blind, text=lambda _: "")))
        for name, classifiers in priors.items():
            text = crossed(pairs, size, classifiers=classifiers, route=lambda _: "/")
            lines.append(row(f"text alone, {name}", shown, text))
            both = crossed(pairs, size, classifiers=classifiers)
            lines.append(row(f"both, {name}", shown, both))
            figures |= of_both(f"both, {name}, {shown}", both)
    perfect = scored([pair.strong - pair.weak for pair in pairs], pairs)
    lines.append(["oracle", "-", apgr(perfect), f"{perfect.cost_at_95:.3f}", "-"])
    print(f"Claude 3 Haiku and Opus, {len(pairs):,} prompts of {len({p.source for p in pairs})} sources as routes.\n")
    print(table(["what is known", "outcomes a route", "APGR", "cost at 95%", "ECE"], lines))
    print("\nRoutes that were never seen, by what the others have taught (no prior of texts):\n")
    strange = unseen_routes(pairs)
    print(table(["route", "prompts", "APGR"], [[name, str(score.rows), apgr(score)] for name, score in strange]))
    print(f"\nTheir mean is {fmean(score.apgr.value for _, score in strange):.3f}.\n")
    print("Other pairs of models, their sources or subjects as routes, all outcomes, no prior of texts:\n")
    others = [(name, load(given.data)) for name, load in SETS.items() if load is not claude]
    found = [(name, there, crossed(there, None, classifiers=blind)) for name, there in others]
    print(table(
        ["set", "prompts", "routes", "APGR", "ECE"],
        [[name, f"{len(there):,}", str(len({p.source for p in there})), apgr(each.score), f"{each.ece:.3f}"]
         for name, there, each in found],
    ))  # fmt: skip
    keep(given.figures, figures)


if __name__ == "__main__":
    main()
