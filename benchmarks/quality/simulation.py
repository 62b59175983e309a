"""An app with routes, from its first call on: what it pays and how good its answers are while it learns.

    python -m benchmarks.quality.simulation --data DIR [--plot FILE]

Each source of the Claude 3 tiers is a route. Calls are drawn at random, with replacement, as often as a source has
prompts; the recorded outcome of the tier that was chosen answers. A share of the answers is graded, and only the grades
of tiers that were taken are learned from. The model's prior says the same of every text, for the weights of the package
have seen these prompts. Where answers were graded first, those are of other prompts than the calls'.

A model that starts with nothing and does not explore stays with the top tier: nobody ever tells it that a cheaper one
would have done. That is why a Router asks its classifiers until a route has outcomes.

The regret of a call is what it is worth less than the best choice in hindsight, where a good answer is worth as much as
WORTH mean answers of the top tier cost.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from benchmarks.quality.data import claude
from benchmarks.quality.routes import Blind, outcomes
from benchmarks.quality.writing import table
from tierline.learn import Outcome, OutcomeModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.quality.data import Pair

CALLS: Final = 5_000
SEEDS: Final = 3
GRADED: Final = 0.3
"""The share of answers that somebody grades."""
QUALITY: Final = 0.95
"""The share of the top tier's quality that the app asks for."""
WORTH: Final = 20
FIRST: Final = 30
"""Prompts of each route that are set apart, to be graded first; at most half of them."""
EXPLORED: Final = 0.01
EPSILON: Final = 0.1
TIERS: Final = ("haiku", "opus")
PICTURE: Final = Path(__file__).resolve().parents[2] / "docs" / "simulation.svg"


class Chooser(Protocol):
    """A way of choosing a tier: its place in TIERS."""

    def choose(self, pair: Pair) -> int: ...

    def learn(self, pair: Pair, tier: int, good: float) -> None: ...


class Fixed:
    """The same tier for all, or by a rule that is written once."""

    def __init__(self, rule: Callable[[Pair], int]) -> None:
        self.choose = rule

    def learn(self, pair: Pair, tier: int, good: float) -> None:
        """Nothing."""


def enough(chances: Sequence[float]) -> int:
    """The cheapest tier that reaches the quality asked for, relative to the top tier: what a Router takes."""
    return next(place for place, chance in enumerate(chances) if chance >= QUALITY * chances[-1])


class Learned:
    """What a Router does, with or without exploration."""

    def __init__(self, seed: int, explored: float = 0.0, first: Sequence[Pair] = ()) -> None:
        self._model = OutcomeModel(TIERS, classifier=Blind(), clock=lambda: 0.0)
        self._model.fit(outcomes(first, lambda pair: pair.source))
        self._random, self._explored = random.Random(seed), explored

    def choose(self, pair: Pair) -> int:
        chances = self._model.predict(route=pair.source, text=pair.prompt, tools=pair.tools)
        found = enough(list(chances.values()))
        return 1 - found if self._random.random() < self._explored else found

    def learn(self, pair: Pair, tier: int, good: float) -> None:
        self._model.observe(Outcome(pair.source, pair.prompt, TIERS[tier], good, pair.tools))


class Bandit:
    """Epsilon-greedy by route: the mean of what each tier was graded there, and a random tier now and then."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._sums: dict[str, list[list[float]]] = {}

    def choose(self, pair: Pair) -> int:
        if self._random.random() < EPSILON:
            return self._random.randrange(2)
        return enough([good / count for good, count in self._of(pair)])

    def learn(self, pair: Pair, tier: int, good: float) -> None:
        found = self._of(pair)[tier]
        found[0] += good
        found[1] += 1

    def _of(self, pair: Pair) -> list[list[float]]:
        # One good answer of each is taken for granted: the cheapest tier is tried first.
        return self._sums.setdefault(pair.source, [[1.0, 1.0], [1.0, 1.0]])


def by_rule(pair: Pair) -> int:
    """What a person might write: the top tier for long prompts, for formulas, and for several tools."""
    return int(len(pair.prompt) > 400 or pair.tools > 1 or "$" in pair.prompt)


class Run(NamedTuple):
    """Sums after each call: cost (nano-USD), good answers, regret (nano-USD)."""

    cost: list[float]
    good: list[float]
    regret: list[float]


def simulate(chooser: Chooser, pairs: Sequence[Pair], seed: int) -> Run:
    """The calls of an app."""
    rng = random.Random(seed)
    worth = WORTH * fmean(pair.strong_cost for pair in pairs)
    cost = good = regret = 0.0
    run = Run([], [], [])
    for pair in rng.choices(pairs, k=CALLS):
        graded = rng.random() < GRADED
        goods, costs = (pair.weak, pair.strong), (pair.weak_cost, pair.strong_cost)
        tier = chooser.choose(pair)
        if graded:
            chooser.learn(pair, tier, goods[tier])
        values = [worth * each - paid for each, paid in zip(goods, costs, strict=True)]
        cost, good, regret = cost + costs[tier], good + goods[tier], regret + max(values) - values[tier]
        for sums, value in zip(run, (cost, good, regret), strict=True):
            sums.append(value)
    return run


WAYS: Final[dict[str, Callable[[int, Sequence[Pair]], Chooser]]] = {
    "always the top tier": lambda _, __: Fixed(lambda _: 1),
    "always the cheapest": lambda _, __: Fixed(lambda _: 0),
    "static rules": lambda _, __: Fixed(by_rule),
    "epsilon-greedy by route": lambda seed, _: Bandit(seed),
    "OutcomeModel from nothing": lambda seed, _: Learned(seed),
    "OutcomeModel from nothing, 1% explored": lambda seed, _: Learned(seed, EXPLORED),
    f"OutcomeModel, {FIRST} graded first": lambda seed, first: Learned(seed, 0.0, first),
    f"OutcomeModel, {FIRST} graded first, 1% explored": lambda seed, first: Learned(seed, EXPLORED, first),
}


def set_apart(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """What is graded first, and what is asked."""
    first = []
    for source in sorted({pair.source for pair in pairs}):
        of_it = [pair for pair in pairs if pair.source == source]
        first += random.Random(0).sample(of_it, min(FIRST, len(of_it) // 2))
    taken = {pair.id for pair in first}
    return first, [pair for pair in pairs if pair.id not in taken]


def plot(found: dict[str, Run], to: Path) -> None:
    """The mean regret of a call so far, and the running cost, over calls."""
    import matplotlib as mpl  # noqa: PLC0415  (of the group `quality`: the table needs none)

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tierline"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    top = found["always the top tier"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    shown = range(99, CALLS, 50)
    for name, run in found.items():
        left.plot(list(shown), [run.regret[at] / 1e9 for at in shown], label=name)
        right.plot(run.cost[-1] / top.cost[-1], run.good[-1] / CALLS, "o", label=name)
    left.set(title="Regret so far", xlabel="calls", ylabel="US dollars")
    right.set(title=f"After {CALLS:,} calls", xlabel="cost, of all on the top tier", ylabel="good answers")
    left.legend(fontsize=8)
    figure.savefig(to, metadata={"Date": None})


def main() -> None:
    """Print the table, and draw the picture where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the directory of the data")
    parser.add_argument("--plot", type=Path, default=PICTURE, help="an SVG to write")
    options = parser.parse_args()
    first, pairs = set_apart(claude(options.data))
    found = {}
    for name, way in WAYS.items():
        runs = [simulate(way(seed, first), pairs, seed) for seed in range(SEEDS)]
        found[name] = Run(*([fmean(sums) for sums in zip(*each, strict=True)] for each in zip(*runs, strict=True)))
    top = found["always the top tier"]
    print(
        f"{CALLS:,} calls, {GRADED:.0%} of the answers graded, quality {QUALITY}, mean of {SEEDS} runs. Regret counts "
        f"a good answer as {WORTH} mean answers of the top tier.\n"
    )
    print(table(
        ["way", "good answers", "of the top tier's", "cost, of the top tier's", "regret, $", "in the last 1,000 calls"],
        [[name, f"{run.good[-1] / CALLS:.3f}", f"{run.good[-1] / top.good[-1]:.3f}",
          f"{run.cost[-1] / top.cost[-1]:.3f}", f"{run.regret[-1] / 1e9:.2f}",
          f"{(run.regret[-1] - run.regret[-1001]) / 1e9:.2f}"]
         for name, run in found.items()],
    ))  # fmt: skip
    plot(found, options.plot)
    print(f"\n![Regret, cost and quality of the ways]({options.plot.name})")


if __name__ == "__main__":
    main()
