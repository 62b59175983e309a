"""What nobody has recorded, and is therefore assumed: what Claude would say of a prompt, and of an answer.

A `Detector` stands for whatever tells a wrong answer from a right one, by two rates. `dealt` gives each prompt a
verdict, as often of each kind as experts give it, and as much to the point as an APGR says. Chance is drawn from the
names of things, so that the same prompt has the same luck in every way, and on every day.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.quality.data import rows
from tierline.errors import ConfigurationError
from tierline.evaluation.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.quality.world import Task

LABELS: Final = ("simple", "moderate", "complex")
EXPERTS: Final = 0.60
"""The APGR that experts' labels of difficulty were measured to have."""
_LEANS: Final = (-20.0, 20.0)
_HALVINGS: Final = 40
_NEAR: Final = 0.1
"""Few prompts have but few APGR."""


class Detector(NamedTuple):
    """How often a wrong answer is noticed, and how often a right one is taken for wrong: shares from 0 to 1."""

    hit: float = 0.0
    alarm: float = 0.0

    def sees(self, kind: str, task: str, tier: str, good: float) -> bool:
        """Whether it objects to this answer. `kind` tells detectors apart that are not to have the same luck."""
        return random.Random(f"{kind}/{task}/{tier}").random() < (self.alarm if good >= 0.5 else self.hit)

    def __str__(self) -> str:
        return f"{self.hit:.0%} noticed, {self.alarm:.0%} false"


class Deal(NamedTuple):
    """A verdict for each prompt by its id, and the APGR that they have."""

    labels: dict[str, str]
    apgr: float


def shares_of(data: Path) -> tuple[float, float, float]:
    """How often BIRD's annotators call a question simple, moderate and complex."""
    counts = Counter(row["label"] for row in rows(data, "complexity_labels") if row["source"] == "bird-dev")
    whole = sum(counts.values())
    simple, moderate, complex_ = (counts[label] / whole for label in LABELS)
    return simple, moderate, complex_


def dealt(tasks: Sequence[Task], shares: Sequence[float], apgr: float) -> Deal:
    """Verdicts in `shares` that have about this APGR.

    A prompt's score is luck, and some of what the top tier's answer is better than the cheapest one's; the highest
    scores are complex. How much of it is found by halving. ConfigurationError for an APGR that cannot be reached.
    """
    low, high = _LEANS
    found = _deal(tasks, shares, (low + high) / 2)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = _deal(tasks, shares, middle)
        low, high = (middle, high) if found.apgr < apgr else (low, middle)
    if abs(found.apgr - apgr) > _NEAR:
        raise ConfigurationError(
            f"verdicts of APGR {apgr} cannot be dealt in shares {shares}: it gets {found.apgr:.3f}"
        )
    return found


def _deal(tasks: Sequence[Task], shares: Sequence[float], lean: float) -> Deal:
    ends = [_ends(task) for task in tasks]
    scores = [
        random.Random(f"verdict/{task.id}").gauss() + lean * (strong - weak)
        for task, (weak, strong) in zip(tasks, ends, strict=True)
    ]
    order = sorted(range(len(tasks)), key=scores.__getitem__)
    bounds = [round(shares[0] * len(tasks)), round((shares[0] + shares[1]) * len(tasks))]
    needs = [0.0] * len(tasks)
    for rank, place in enumerate(order):
        needs[place] = sum(rank >= bound for bound in bounds) / 2
    labels = {task.id: LABELS[round(2 * need)] for task, need in zip(tasks, needs, strict=True)}
    return Deal(labels, Sweep(needs, [weak for weak, _ in ends], [strong for _, strong in ends]).apgr())


def _ends(task: Task) -> tuple[float, float]:
    """How good the cheapest and the top tier's answers are."""
    known = list(task.answers.values())
    return known[0].good, known[-1].good
