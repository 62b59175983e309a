"""What strategies cost and gain: the same calls through a Router for each, and docs/strategies.md with what came of it.

    make strategies DATA=DIR     (python -m benchmarks.quality.strategies --data DIR [--folds DIR] [--sample N])

The prompts of the Claude 3 tiers go through real Routers and the real SDK to FakeClaude, which answers as it is
recorded (`benchmarks.quality.world`) and says of prompts and answers what is assumed (`benchmarks.quality.assumed`).
Time is simulated, so nobody waits, and the same data gives the same figures. The weights that judge texts are trained
without them (five folds; the group `quality`), which takes most of the minutes: `--folds` keeps them for another time.
"""

from __future__ import annotations

import argparse
import platform
import random
import re
import sys
import tempfile
import textwrap
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.quality.assumed import EXPERTS, LABELS, shares_of
from benchmarks.quality.claims import claims
from benchmarks.quality.data import claude
from benchmarks.quality.routes import FOLDS, folds, trained
from benchmarks.quality.simulation import FIRST, set_apart
from benchmarks.quality.standings import ENOUGH, Figures, cost_of, figures, keeps
from benchmarks.quality.ways import BEFORE, BEST, MIDDLE, SEEN, TODAY, VARIED, WAYS, Setting, play
from benchmarks.quality.world import PACES, tasks_of
from benchmarks.quality.writing import commit, table
from tierline import Ladder
from tierline.classify import LocalClassifier
from tierline.values import NANO, usd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.quality.data import Pair
    from benchmarks.quality.ways import Way
    from tierline.evaluation.intervals import Interval

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "strategies.md"
PICTURE: Final = "strategies.svg"

_HEAD: Final = """# Strategies, compared

Written by `make strategies DATA=DIR` (`python -m benchmarks.quality.strategies --data DIR`) on {date}: commit {commit},
Python {python}, {system}, genai-prices {prices}. Nothing here is written by hand.

**These are benchmark prompts, answered by older models** (sums in words, hard maths and tool calls; Claude 3 Haiku,
Sonnet and Opus). They set strategies beside each other; they do not tell what your app would save, nor how good today's
models are. That is what [`tierline eval`](evaluation.md) on your own traffic is for.

## How it is played

Every way is a Router of its own, and the same calls go through all of them, in the same order: the real SDK, and
`FakeClaude` behind it. Sources stand for the routes of an app.

**Recorded** are the prompts, whether each model's answer was right, and (estimated from its characters) its tokens.

**Assumed** is the rest:

- prices: the tiers are billed as {today}; "at older prices" is what the same attempts would have cost as {before},
  the choices being those made at today's. That models of today count tokens otherwise is left out
- seconds: {paces}, every call alike, so p50 and p95 tell of lengths and of what is waited for in turn, and not of busy
  hours
- **Claude's verdicts**: what Claude would say of these prompts is not recorded. They are dealt as BIRD's annotators
  deal difficulty ({shares}), and as much to the point as experts' labels were measured to be: an APGR of
  {experts:.2f}, where a coin has .50. All are given at a confidence above the Router's threshold, by Haiku
- **escalation, by form**: a wrong answer says "I'm not sure" in {hit:.0%} of all cases, a right one in {alarm:.0%}.
  Models seldom own up to so much: this stands for whatever an app can see of an answer (a test that fails,
  JSON that does not parse)
- **escalation, graded**: nothing shows in the form, and the cheapest tier's grade is poor for {hit:.0%} of wrong
  answers and {alarm:.0%} of right ones
- **the route, {first} graded first**: of each route, {first} other prompts (at most half of them) were answered by
  every tier and graded. What that cost is told below each table, and not in it
- nothing fails, no prompt comes twice, prompts are not cached, and one call is made after the other: so no verdict is
  found in the cache, and none is asked for with others in one request

Weights that judge a text have not seen it, also those that routes learn with; but they have seen others of its kind.
Expect less of them elsewhere. In brackets is the 95% bootstrap interval
over prompts ({resamples} draws), which knows nothing of what is assumed: the tables under other assumptions do.

- **good**: the share of right answers; **of the top tier's**: over those of the top tier on the same calls
- **cost**: of all that was billed or charged (answers that were not used, verdicts, grades), over the top tier's
- **lost**: calls that the top tier answered well and this way did not, and their share of all calls; **won**: the other
  way round
- **in vain**: answers, or their beginnings, that the app did not get, and their tokens; of those that were cut
  off, the prompt's

Ways that escalate learn from their checks at which tier a chain begins on a route. The best in hindsight is no
strategy: it takes the cheapest of the best recorded answers, and bounds what any choice could give.
"""


class Results(NamedTuple):
    """A setting's figures by the names of ways, and below them by those of `VARIED`."""

    setting: Setting
    ways: dict[str, Figures]
    varied: dict[str, Figures]
    notes: list[str]


def setting_of(data: Path, tiers: Sequence[str], by_text: Mapping[str, LocalClassifier], sample: int | None) -> Setting:
    """The prompts that all of `tiers` have answered, but for those that are graded first."""
    first, calls = set_apart(tasks_of(data, tiers))
    random.Random(0).shuffle(calls)
    ladder = Ladder.of(**{tier: TODAY[tier] for tier in tiers})
    return Setting(ladder, calls[:sample], first, by_text, shares_of(data), calls)


def judges(data: Path, pairs: Sequence[Pair], kept: Path) -> dict[str, LocalClassifier]:
    """For each prompt, weights that have not seen it: those that are kept there, or new ones."""
    files = [kept / f"fold-{number}.weights" for number in range(FOLDS)]
    if not all(file.is_file() for file in files):
        kept.mkdir(parents=True, exist_ok=True)
        for file, classifier in zip(files, trained(data, pairs), strict=True):
            assert isinstance(classifier, LocalClassifier)
            file.write_bytes(classifier.weights.pack())
    found = [LocalClassifier(file) for file in files]
    return {pair.prompt: found[fold] for pair, fold in zip(pairs, folds(pairs), strict=True)}


def compared(setting: Setting, ways: Sequence[Way], varied: Sequence[Way] = ()) -> Results:
    """Play all of them. The first way is the one that the others are held against."""
    played = {}
    for way in (*ways, *varied):
        print(f"  {way.name}", file=sys.stderr, flush=True)
        played[way.name] = play(setting, way)
    top = played[ways[0].name].calls
    found = {name: figures(each.calls, top, setting.tiers) for name, each in played.items()}
    notes = [
        f"{name}: of {usd(sum(call.cost for call in each.calls))} charged, {usd(each.estimated)} were estimates for "
        f"what was cut off; the API billed {usd(each.billed)}."
        for name, each in played.items()
        if each.estimated
    ]
    names = {way.name for way in ways}
    return Results(
        setting,
        {name: each for name, each in found.items() if name in names},
        {name: each for name, each in found.items() if name not in names},
        notes,
    )


def shown(found: Interval, digits: int = 2) -> str:
    """A figure with its interval; shares are written by `str`."""
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def money_table(found: Mapping[str, Figures]) -> str:
    """How good each way is, and what it costs."""
    return table(
        ["way", "good", "of the top tier's", "cost", "cost, at older prices", "lost", "won"],
        [
            [name, str(f.good), str(f.of_top), str(f.cost), str(f.elsewhere),
             f"{f.losses}: {f.lost}", str(f.won)]
            for name, f in found.items()
        ],
    )  # fmt: skip


def work_table(found: Mapping[str, Figures], tiers: Sequence[str]) -> str:
    """What each way takes."""
    return table(
        ["way", "p50, s", "p95, s", "requests a call", "in vain, a call", "tokens in vain, a call",
         *(f"on {tier}" for tier in tiers)],
        [
            [name, shown(f.p50), shown(f.p95), shown(f.requests), shown(f.vain),
             shown(f.vain_tokens, 0),
             *(f"{f.on[tier].value:.0%}" for tier in tiers)]
            for name, f in found.items()
        ],
    )  # fmt: skip


def section(title: str, results: Results) -> str:
    """Tables of one setting."""
    setting = results.setting
    graded = cost_of(setting.first, {tier.name: tier.model for tier in setting.ladder})
    sources = len({task.source for task in setting.calls})
    costs = (
        f"Answers to the {len(setting.first)} prompts that were graded first would cost "
        f"{usd(round(graded * NANO))}, all calls on the top tier {usd(top_cost(setting))}."
    )
    about = (
        f"{len(setting.calls):,} calls on {sources} routes; {' below '.join(setting.tiers)}. "
        f"Verdicts, as dealt, have an APGR of {setting.deal(EXPERTS).apgr:.3f}."
    )
    parts = [
        f"## {title}\n\n{about}",
        money_table(results.ways),
        work_table(results.ways, setting.tiers),
        cheapest(results.ways),
        costs,
        *results.notes,
    ]
    if results.varied:
        dealt = ", ".join(
            f"{wanted:.2f} is {setting.deal(wanted).apgr:.3f}" for wanted in sorted({way.verdicts for way in VARIED})
        )
        about = (
            "Detectors by how many wrong answers they notice, and right ones they take for wrong. Of verdicts, as "
            f"dealt, an APGR of {dealt}."
        )
        parts += [
            f"### Under other assumptions\n\n{about}",
            money_table(results.varied),
            work_table(results.varied, setting.tiers),
        ]
    return "\n\n".join(parts)


def top_cost(setting: Setting) -> int:
    """All calls on the top tier, in nano-USD."""
    top = setting.ladder[setting.ladder.top]
    return round(cost_of(setting.calls, {top.name: top.model}) * NANO)


def cheapest(found: Mapping[str, Figures]) -> str:
    """The cheapest way that keeps the quality, by either price list."""
    kept = {name: f for name, f in found.items() if keeps(f) and name != BEST}
    today = min(kept, key=lambda name: kept[name].cost.value)
    before = min(kept, key=lambda name: kept[name].elsewhere.value)
    return (
        f"Of the ways that know no answer and give at least {ENOUGH:.0%} of the top tier's good ones, the cheapest is "
        f"“{today}” at today's prices ({kept[today].cost.value:.3f}), and “{before}” at older ones "
        f"({kept[before].elsewhere.value:.3f}). What verdicts and escalation do rests on what is assumed of them."
    )


def wrapped(page: str) -> str:
    """Its paragraphs and points in lines of 120 characters at most; tables, headings and pictures as they are."""
    blocks = []
    for block in page.split("\n\n"):
        if block.startswith(("|", "#", "!")):
            blocks.append(block)
            continue
        points = re.split(r"\n(?=- )", block)
        blocks.append("\n".join(
            textwrap.fill(" ".join(point.split()), 120, subsequent_indent="  " if point.startswith("- ") else "",
                          break_long_words=False, break_on_hyphens=False)
            for point in points
        ))  # fmt: skip
    return "\n\n".join(blocks)


def plot(results: Sequence[tuple[str, Results]], to: Path) -> None:
    """Good answers over cost, with the intervals of both."""
    import matplotlib as mpl  # noqa: PLC0415  (of the extra `plots`: the tables need none)

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tierline"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, len(results), figsize=(7 * len(results), 5.2), layout="constrained", squeeze=False)
    for place, (axis, (title, each)) in enumerate(zip(axes[0], results, strict=True)):
        for number, way in enumerate(WAYS):
            if (found := each.ways.get(way.name)) is None:
                continue
            x, y = found.cost, found.good
            axis.errorbar(
                x.value, y.value, xerr=[[x.value - x.low], [x.high - x.value]],
                yerr=[[y.value - y.low], [y.high - y.value]], fmt="os^Dvp"[number % 6], capsize=2, elinewidth=0.7,
                color=f"C{number % 10}", label=way.name if place == 0 else None,
            )  # fmt: skip
        axis.set(title=title, xlabel="cost, of all on the top tier (log)", ylabel="good answers", xscale="log")
    figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.savefig(to, metadata={"Date": None})
    plt.close(figure)


def head(shares: Sequence[float]) -> str:
    """What is said before the tables."""
    from benchmarks.quality.scores import RESAMPLES  # noqa: PLC0415

    return _HEAD.format(
        date=f"{datetime.now(UTC):%Y-%m-%d}", commit=commit(), python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}", prices=version("genai-prices"),
        today=", ".join(TODAY.values()), before=", ".join(BEFORE.values()),
        paces=", ".join(f"{tier} {pace.first} s and {pace.rate:g} tokens/s" for tier, pace in PACES.items()),
        shares=", ".join(f"{label} {part:.0%}" for label, part in zip(LABELS, shares, strict=True)),
        experts=EXPERTS, hit=SEEN.hit, alarm=SEEN.alarm, first=FIRST, resamples=RESAMPLES,
    )  # fmt: skip


def main() -> None:
    """Play everything, and write the page once all is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the directory of the data")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--folds", type=Path, help="a directory that keeps the weights of the folds")
    parser.add_argument("--sample", type=int, help="play so many calls only, for a first look")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        by_text = judges(options.data, claude(options.data), options.folds or Path(passing))
    tiers = tuple(TODAY)
    two = (tiers[0], tiers[-1])
    print("three tiers", file=sys.stderr)
    three_way = compared(setting_of(options.data, tiers, by_text, options.sample), WAYS, VARIED)
    print("two tiers", file=sys.stderr)
    shown_there = [way for way in WAYS if way.name != MIDDLE]
    two_way = compared(setting_of(options.data, two, by_text, options.sample), shown_there)
    titles = ("Three tiers", "Two tiers, hard maths among the calls")
    results = list(zip(titles, (three_way, two_way), strict=True))
    plot(results, options.out.parent / PICTURE)
    options.out.write_text(
        wrapped("\n\n".join([
            head(three_way.setting.shares).rstrip(),
            f"![Good answers over cost]({PICTURE})",
            *(section(*each) for each in results),
            claims([(title, each.setting, each.ways) for title, each in results]),
        ])) + "\n",
        encoding="utf-8",
    )  # fmt: skip


if __name__ == "__main__":
    main()
