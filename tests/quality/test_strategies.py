"""Ways are played through Router, SDK and API, and their figures are what a world made by hand says they must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.quality.assumed import LABELS, Detector, dealt
from benchmarks.quality.claims import claims
from benchmarks.quality.standings import enough_on, figures, holds, percentile, ratio, split
from benchmarks.quality.strategies import compared, money_table, plot, section, work_table, wrapped
from benchmarks.quality.ways import (
    BEFORE,
    BEST,
    CHEAPEST,
    MIDDLE,
    TODAY,
    TOP,
    VARIED,
    WAYS,
    Played,
    Setting,
    Way,
    play,
)
from benchmarks.quality.world import PACES, Answer, Task
from tierline import Ladder, policy
from tierline.classify import LocalClassifier
from tierline.errors import ConfigurationError
from tierline.escalation import Escalate
from tierline.evaluation.intervals import Interval
from tierline.prices import PriceBook
from tierline.values import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TIERS = tuple(TODAY)
CALLS = 24
PERFECT = Detector(1.0, 0.0)


def task(number: int) -> Task:
    """Of six prompts Haiku answers four well, Sonnet five; the third is one that only Haiku answers well."""
    good = {0: (0, 1, 1), 1: (0, 0, 1), 2: (1, 0, 0)}.get(number % 6, (1, 1, 1))
    route = ("sums", "tools")[number % 2]
    return Task(
        f"{route}/{number}",
        route,
        f"What is the {number}th number after {number * 7}, and why is that so?",
        0,
        {
            tier: Answer(float(right), 100 + number, 50 * place)
            for place, (tier, right) in enumerate(zip(TIERS, good, strict=True), 1)
        },
    )


@pytest.fixture(scope="module")
def setting() -> Setting:
    tasks = [task(number) for number in range(3 * CALLS)]
    shipped = LocalClassifier()
    by_text = {each.prompt: shipped for each in tasks}
    return Setting(Ladder.of(**TODAY), tasks[:CALLS], tasks[CALLS:], by_text, (0.6, 0.3, 0.1), tasks)


@pytest.fixture(scope="module")
def top(setting: Setting) -> Played:
    return played(setting, TOP)


def played(setting: Setting, name: str) -> Played:
    return play(setting, next(way for way in (*WAYS, *VARIED) if way.name == name))


def cost(tasks: Sequence[Task], tier: str) -> int:
    """Of all answers of one tier."""
    prices = PriceBook()
    usages = [Usage(each.answers[tier].input_tokens, each.answers[tier].output_tokens) for each in tasks]
    return sum(prices.cost(TODAY[tier], usage) or 0 for usage in usages)


@pytest.mark.parametrize(("name", "tier"), [(TOP, "opus"), (MIDDLE, "sonnet"), (CHEAPEST, "haiku")])
def test_one_tier_is_what_is_recorded(setting: Setting, name: str, tier: str) -> None:
    """Quality, cost and seconds are those of that tier's recorded answers, one request for each."""
    found = played(setting, name)
    assert [each.good for each in found.calls] == [each.answers[tier].good for each in setting.calls]
    assert sum(each.cost for each in found.calls) == found.billed == cost(setting.calls, tier)
    assert {each.tier for each in found.calls} == {tier}
    assert {each.requests for each in found.calls} == {1}
    for each, known in zip(found.calls, setting.calls, strict=True):
        assert each.seconds == pytest.approx(PACES[tier].seconds(known.answers[tier].output_tokens))


def test_the_best_in_hindsight_loses_nothing(setting: Setting, top: Played) -> None:
    """It is as good as the best recorded answer of each prompt, and takes the cheapest of those."""
    found = played(setting, BEST)
    assert [each.good for each in found.calls] == [1.0] * CALLS
    assert [each.tier for each in found.calls[:6]] == ["sonnet", "opus", "haiku", "haiku", "haiku", "haiku"]
    counted = figures(found.calls, top.calls, TIERS)
    assert (counted.losses, counted.won) == (0, CALLS // 6)


@pytest.mark.parametrize("graded", [False, True])
def test_a_perfect_check_climbs_to_the_first_good_answer(setting: Setting, graded: bool) -> None:
    """By form or by grades: every answer on the way is paid for, waited for, and counted as in vain."""
    rules = Escalate(graded=graded)
    seen = {"grades": PERFECT} if graded else {"doubts": PERFECT}
    way = Way("perfect", lambda _: {"policy": policy(escalate=rules), "learn_after": 10**9}, **seen)
    found = play(setting, way).calls
    assert [each.good for each in found] == [1.0] * CALLS
    climbed = {0: 1, 1: 2}
    for number, (each, known) in enumerate(zip(found, setting.calls, strict=True)):
        steps = climbed.get(number % 6, 0)
        assert each.vain == steps
        passed = [known.answers[tier] for tier in TIERS[:steps]]
        assert each.vain_tokens == sum(answer.input_tokens + answer.output_tokens for answer in passed)
        grades = min(steps + 1, len(TIERS) - 1) if graded else 0
        assert each.requests == steps + 1 + grades
        least = sum(PACES[tier].seconds(known.answers[tier].output_tokens) for tier in TIERS[: steps + 1])
        assert each.seconds == pytest.approx(least) if not graded else each.seconds > least


def test_speculation_saves_time_and_costs_what_is_lost(setting: Setting) -> None:
    """Tiers and answers are those of the verdicts alone; easy calls take less time, the others an answer in vain."""
    asked, beside = played(setting, "Claude's verdicts").calls, played(setting, "verdicts, speculating").calls
    labels = setting.deal(0.6).labels
    assert [each.tier for each in asked] == [each.tier for each in beside]
    assert {each.requests for each in asked} == {2}
    for one, other, known in zip(asked, beside, setting.calls, strict=True):
        assert one.tier == dict(zip(LABELS, TIERS, strict=True))[labels[known.id]]
        assert other.vain == (one.tier != "haiku")
        assert other.cost >= one.cost
        assert other.seconds < one.seconds if one.tier == "haiku" else other.seconds == pytest.approx(one.seconds)
        assert (other.vain_tokens >= known.answers["haiku"].input_tokens) == (other.vain == 1)


def test_the_same_way_comes_out_alike(setting: Setting) -> None:
    """Chance is drawn from names, and time is simulated: to the last digit."""
    for name in ("escalation, graded", 'verdicts, speculate="auto"'):
        assert played(setting, name) == played(setting, name)


def test_detectors_have_their_rates() -> None:
    """Over many answers; and two of them have the same luck, unless they are of different kinds."""
    seen = Detector(0.7, 0.1)
    names = [str(number) for number in range(2_000)]
    assert sum(seen.sees("form", name, "haiku", 0.0) for name in names) / 2_000 == pytest.approx(0.7, abs=0.04)
    assert sum(seen.sees("form", name, "haiku", 1.0) for name in names) / 2_000 == pytest.approx(0.1, abs=0.03)
    assert all(Detector(0.9).sees("form", name, "haiku", 0.0) for name in names if seen.sees("form", name, "haiku", 0))
    assert any(seen.sees("form", name, "haiku", 0.0) != seen.sees("grade", name, "haiku", 0.0) for name in names[:100])


@pytest.mark.parametrize("apgr", [0.5, 0.6, 0.8])
def test_verdicts_are_dealt_in_their_shares(apgr: float) -> None:
    """As many of each label as experts give, and as much to the point as they are to be."""
    tasks = [task(number) for number in range(600)]
    found = dealt(tasks, (0.6, 0.3, 0.1), apgr)
    said = list(found.labels.values())
    assert [said.count(label) for label in LABELS] == [360, 180, 60]
    assert found.apgr == pytest.approx(apgr, abs=0.02)


def test_verdicts_that_nobody_could_give_are_refused() -> None:
    """Who calls everything simple tells nothing apart."""
    with pytest.raises(ConfigurationError, match="cannot be dealt"):
        dealt([task(number) for number in range(60)], (1.0, 0.0, 0.0), 0.9)


def test_figures_are_ratios_and_percentiles() -> None:
    """Of all rows; an interval of rows that are all alike has no width."""
    assert ratio([1.0, 0.0, 1.0, 1.0]).value == 0.75
    assert ratio([2.0] * 9, [4.0] * 9) == Interval(0.5, 0.5, 0.5)
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5).value == 2.0
    assert percentile([float(second) for second in range(100, 0, -1)], 0.95).value == 95.0
    found = ratio([float(number % 2) for number in range(100)])
    assert found.low < 0.5 < found.high


def test_claims_hold_by_their_intervals() -> None:
    """All of it on the right side, or none, or it is not shown."""
    assert holds(Interval(0.7, 0.65, 0.75), 0.6, 0.8) == "holds"
    assert holds(Interval(0.5, 0.4, 0.55), 0.6, 0.8) == "does not hold (it is less)"
    assert holds(Interval(0.9, 0.85, 0.95), 0.6, 0.8) == "does not hold (it is more)"
    assert holds(Interval(0.8, 0.75, 0.85), 0.6, 0.8).startswith("is not shown")


def test_the_split_is_what_it_comes_to_by_hand(setting: Setting) -> None:
    """In hindsight the neediest sixth is that which Haiku alone fails; prices are those of the models."""
    found = split(setting.calls, TODAY, 1 / 3)
    prices = PriceBook()
    cheap, dear = (prices.cost(TODAY[tier], Usage(1_000, 200)) or 0 for tier in ("haiku", "opus"))
    assert found.plain == pytest.approx(2 / 3 * cheap / dear + 1 / 3)
    low, high = cost(setting.calls, "haiku"), cost(setting.calls, "opus")
    assert found.cost.value == pytest.approx((2 / 3 * low + 1 / 3 * high) / high)
    assert found.chosen.value == pytest.approx(6 / 5)
    assert found.blind.value == pytest.approx((2 / 3 * 4 + 1 / 3 * 5) / 5)
    assert split(setting.calls, BEFORE, 1 / 3).plain > found.plain
    assert enough_on(setting.calls, "haiku", "opus").value == pytest.approx(4 / 6)


def test_the_page_says_what_was_found(setting: Setting, tmp_path: Path) -> None:
    """Tables have a row for each way, claims are decided, and the picture is the same every time."""
    ways = [way for way in WAYS if way.name in (TOP, CHEAPEST, "escalation, by form", "verdicts, speculating")]
    found = compared(setting, ways, VARIED[:1])
    for shown in (money_table(found.ways), work_table(found.ways, TIERS)):
        assert [line.split(" | ")[0].removeprefix("| ") for line in shown.splitlines()[2:]] == [w.name for w in ways]
    page = section("Three tiers", found) + "\n\n" + claims([("Three tiers", setting, found.ways)])
    assert f"{CALLS} calls on 2 routes" in page
    assert f"| {VARIED[0].name} |" in page
    assert "verdicts, speculating: of $" in page
    assert "- Three tiers, older prices: it is shown for no way" in page
    assert "| Three tiers | known in hindsight | 0.667 [" in page
    assert "nan" not in page
    assert max(len(line) for line in wrapped(page).splitlines() if not line.startswith(("|", "#"))) <= 120
    for name in ("one.svg", "other.svg"):
        plot([("Three tiers", found)], tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
    assert b"escalation, by form" in (tmp_path / "one.svg").read_bytes()
