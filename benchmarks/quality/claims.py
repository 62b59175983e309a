"""Claims that are made of routing between tiers, recomputed from what is recorded, at prices of today and of before.

- "Haiku is enough for 60 to 80% of calls"
- "84% are saved"
- "95% of calls on the cheap tier and 5% on the dear one": what that costs, and what it gives
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.quality.simulation import route_of
from benchmarks.quality.standings import ENOUGH, enough_on, holds, keeps, split
from benchmarks.quality.ways import BEFORE, BEST, CHEAPEST, TODAY
from benchmarks.quality.writing import table
from tierline.evaluation.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.quality.standings import Figures
    from benchmarks.quality.ways import Setting

ENOUGH_FOR: Final = (0.6, 0.8)
SAVED: Final = 0.84
DEAR: Final = 0.05
BEYOND: Final = 9.0
"""A bound for what has none: a cheaper tier may be the better one."""
_HEAD: Final = (
    "## What is claimed of routing\n\nThree claims that are made for tiers, recomputed from the recorded answers. They "
    "are about prompts like these; what holds here may not hold for yours."
)
PRICES: Final = {"today's": TODAY, "older": BEFORE}
WHICH: Final = {"today's": "cost", "older": "elsewhere"}


def claims(played: Sequence[tuple[str, Setting, Mapping[str, Figures]]]) -> str:
    """The section about all of them."""
    return "\n\n".join([_HEAD, _cheap_is_enough(played), _saved(played), _split(played)])


def _cheap_is_enough(played: Sequence[tuple[str, Setting, Mapping[str, Figures]]]) -> str:
    low, high = ENOUGH_FOR
    rows = []
    for title, setting, found in played:
        tiers = setting.tiers
        enough = enough_on(setting.calls, tiers[0], tiers[-1])
        rows.append([title, "known in hindsight", str(enough), "-", holds(enough, low, high)])
        for name, each in found.items():
            sent = each.on[tiers[0]]
            if keeps(each) and name != BEST and 0 < sent.value < 1:
                rows.append([title, name, str(sent), f"{each.of_top.value:.3f}", holds(sent, low, high)])
    return (
        f"### “Haiku is enough for {low:.0%} to {high:.0%} of calls”\n\nThe share of calls whose answer from Haiku is "
        f"no worse than that from Opus; and below it, of the ways that keep {ENOUGH:.0%} of the top tier's good "
        "answers, the share of calls that Haiku answered in the end.\n\n"
        + table(["calls", "way", "on Haiku", "good, of the top tier's", "the claim"], rows)
        + f"\n\nThe mix of calls decides. {played[-1][0]}, in hindsight, by route:\n\n"
        + _by_route(played[-1][1])
    )


def _by_route(setting: Setting) -> str:
    tiers = setting.tiers
    routes = sorted({route_of(task) for task in setting.calls})
    asked = {route: [task for task in setting.calls if route_of(task) == route] for route in routes}
    return table(
        ["route", "calls", f"{tiers[0]} is enough"],
        [[route, str(len(tasks)), str(enough_on(tasks, tiers[0], tiers[-1]))] for route, tasks in asked.items()],
    )


def _saved(played: Sequence[tuple[str, Setting, Mapping[str, Figures]]]) -> str:
    rows, told = [], []
    for title, _, found in played:
        kept = {name: each for name, each in found.items() if keeps(each) and name != BEST and each.cost.value < 1}
        rows += [
            [title, name, str(each.of_top), *(str(saved_by(each, which)) for which in WHICH.values())]
            for name, each in kept.items()
        ]
        for prices, which in WHICH.items():
            saving = {name: each for name, each in kept.items() if holds(saved_by(each, which), SAVED) == "holds"}
            sure = [f"“{name}”" for name, each in saving.items() if each.of_top.low >= ENOUGH]
            doubtful = [f"“{name}”" for name in saving if f"“{name}”" not in sure]
            there = [
                f"“{name}” ({saved_by(each, which)})"
                for name, each in kept.items()
                if name not in saving and saved_by(each, which).value >= SAVED
            ]
            most = saved_by(found[CHEAPEST], which)
            said = f"it holds for {', '.join(sure)}" if sure else "it is shown for no way"
            said += f"; {', '.join(doubtful)} would, but the quality is not shown" if doubtful else ""
            said += f"; by the figure alone, its interval having both, for {', '.join(there)}" if there else ""
            said += f"; no choice of tiers could, as the cheapest alone saves {most}" if most.high < SAVED else ""
            told.append(f"- {title}, {prices} prices: {said}.")
    return (
        f"### “{SAVED:.0%} saved”\n\nAgainst all calls on the top tier, by the ways that keep {ENOUGH:.0%} of its good "
        f"answers: it holds where the interval of what is saved is above {SAVED:.0%}, and that of the quality above "
        f"{ENOUGH:.0%}. What was graded first is not paid for in any of these figures.\n\n"
        + "\n".join(told)
        + "\n\n"
        + table(["calls", "way", "good, of the top tier's", *(f"saved, {prices} prices" for prices in WHICH)], rows)
    )


def saved_by(found: Figures, which: str) -> Interval:
    """What a way costs less than the top tier."""
    cost: Interval = getattr(found, which)
    return Interval(1 - cost.value, 1 - cost.high, 1 - cost.low)


def _split(played: Sequence[tuple[str, Setting, Mapping[str, Figures]]]) -> str:
    rows, told = [], []
    for prices, models in PRICES.items():
        for title, setting, _ in played:
            ends = {tier: models[tier] for tier in (setting.tiers[0], setting.tiers[-1])}
            found = split(setting.calls, ends, DEAR)
            money = "holds" if abs(found.cost.value - found.plain) <= 0.1 * found.plain else "does not hold"
            rows.append([
                prices, title, f"{found.plain:.3f}", str(found.cost), str(found.chosen), str(found.blind),
            ])  # fmt: skip
            told.append(
                f"- {title}, {prices} prices: the arithmetic {money}: {found.cost.value:.3f} of the top tier's cost, "
                f"instead of {found.plain:.3f}. That {ENOUGH:.0%} of its good answers are kept "
                f"{holds(found.chosen, ENOUGH, BEYOND)} where the {DEAR:.0%} are chosen in hindsight, and "
                f"{holds(found.blind, ENOUGH, BEYOND)} where they are drawn at random."
            )
    return (
        f"### “{1 - DEAR:.0%} on the cheap tier, {DEAR:.0%} on the dear one”\n\nThe arithmetic: {1 - DEAR:.2f} times "
        f"the price of the cheap tier, and {DEAR:.2f} times that of the dear one. It takes answers to be equally long, "
        "choosing to be free and the choice to be right. The recorded lengths are put in here; it is said to hold "
        "where that changes it by no more than a tenth.\n\n"
        + "\n".join(told)
        + "\n\n"
        + table(
            ["prices", "calls", "cost by arithmetic", "cost, recorded", "good, chosen in hindsight", "good, at random"],
            rows,
        )
    )
