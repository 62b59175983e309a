"""What is thought of each tier before anything is known of a route: the cold start."""

from __future__ import annotations

from math import log
from typing import Final

NEEDS: Final = 255
"""In so many steps a need is kept: how likely the cheapest tier's answer is worse than the top tier's."""
CHEAPEST: Final = (-1.2, 1.1)
TOP: Final = (0.1, 0.7)
"""Log-odds that the cheapest and the top tier are good enough: where the need is 1/2, and what each of its own log-odds
takes away.

A fit to benchmark prompts of older models, that the weights had not seen, gave slopes of 1.5 and 0.9. These are three
quarters of that, for the prompts of an app are further away.
"""
_EDGE: Final = 0.01


def starts(tiers: int) -> list[tuple[float, ...]]:
    """For each step of the need: log-odds that each tier is good enough, cheapest first, and never falling."""
    return [_start(min(max(step / NEEDS, _EDGE), 1 - _EDGE), tiers) for step in range(NEEDS + 1)]


def _start(need: float, tiers: int) -> tuple[float, ...]:
    odds = log(need / (1 - need))
    low = CHEAPEST[0] - CHEAPEST[1] * odds
    high = max(low, TOP[0] - TOP[1] * odds)
    return tuple(high - (high - low) * (tiers - 1 - place) / max(tiers - 1, 1) for place in range(tiers))
