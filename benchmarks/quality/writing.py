"""Figures as Markdown. What is worse than random is marked, wherever it stands."""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from benchmarks.quality.data import SETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.quality.scores import Score

MARK: Final = " ⚠"
"""Beside each figure that is worse than random: a defect."""


def commit() -> str:
    """The commit that is measured, in short."""
    where = Path(__file__).parent
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True, cwd=where
    )
    return done.stdout.strip() or "unknown"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its first column to the left and the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def apgr(score: Score) -> str:
    """An APGR with its interval, and the mark."""
    found = score.apgr
    return f"{_short(found.value)} [{_short(found.low)}, {_short(found.high)}]{MARK if score.defect else ''}"


def _short(value: float) -> str:
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


def peers_section(found: Mapping[str, Any]) -> str:
    """The table of peers, and one of the time that a decision takes."""
    scores: Mapping[str, Mapping[str, Score]] = found["scores"]
    sizes = next(iter(scores.values()))
    header = ["router", *(f"{title} ({sizes[title].rows:,})" for title in SETS), "macro", "cost at 95%, Claude 3"]
    rows = []
    for name, by_set in scores.items():
        macro = fmean(score.apgr.value for score in by_set.values())
        cost = by_set["Claude 3 tiers"].cost_at_95
        rows.append([
            name, *(apgr(by_set[title]) for title in SETS), _short(macro), "-" if cost is None else _short(cost),
        ])  # fmt: skip
    times = [[name, f"{median:,.0f}", f"{p95:,.0f}"] for name, (median, p95) in found["times"].items()]
    return "\n\n".join([
        table(header, rows),
        "Microseconds of a decision, over prompts of all five sets:",
        table(["router", "median", "p95"], times),
    ])  # fmt: skip
