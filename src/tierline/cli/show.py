"""Measures as tables for people and as JSON for machines."""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, Any

from rich.table import Table

from tierline.values import LABELS, NANO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from tierline.evaluation.intervals import Interval
    from tierline.evaluation.measures import Figure, Measures


def amount(value: float, unit: str) -> str:
    """A value as people read it in its unit: `83.1%`, `$1.20`, `0.412`; a dash where there is none."""
    if not isfinite(value):
        return "-"
    if unit == "share":
        return f"{value:.1%}"
    if unit.startswith("nano-USD"):
        sign, dollars = "-" if value < 0 else "", abs(value) / NANO
        return f"{sign}${dollars:,.4f}" if dollars < 1 else f"{sign}${dollars:,.2f}"
    return f"{value:.3f}"


def bounds(found: Interval, unit: str) -> str:
    """The 95% interval; a dash where there is none."""
    if not (isfinite(found.low) or isfinite(found.high)):
        return "-"
    return f"{amount(found.low, unit)} to {amount(found.high, unit)}"


def show(console: Console, title: str, found: Measures) -> None:
    """Print a table of figures, the confusion matrix and the warnings."""
    table = Table(title=f"{title}: {found.rows:,} rows", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("95% interval", justify="right")
    table.add_column("")
    for name, interval, unit, note in found.figures:
        per = "a thousand" if unit.endswith("per 1000") else ""
        table.add_row(name, amount(interval.value, unit), bounds(interval, unit), "; ".join(filter(None, (per, note))))
    console.print(table)
    if found.confusion:
        console.print(_confusion(found.confusion))
    if found.by_tier:
        total = sum(found.by_tier.values())
        console.print("tiers: " + ", ".join(f"{name} {n:,} ({n / total:.0%})" for name, n in found.by_tier.items()))
    for warning in found.warnings:
        console.print("[bold yellow]warning:[/] ", end="")
        console.print(warning, markup=False, soft_wrap=True)


def _confusion(counts: Mapping[tuple[str, str | None], int]) -> Table:
    table = Table(title="rows by label", title_justify="left")
    table.add_column("right ↓   given →")
    given = [*LABELS, None]
    for label in given:
        table.add_column(label or "no opinion", justify="right")
    for right in LABELS:
        table.add_row(right, *(f"{counts.get((right, label), 0):,}" for label in given))
    return table


def as_json(sections: Mapping[str, Measures], **more: Any) -> str:
    """The same as one JSON object: money in nano-USD, no number where there is none."""
    return json.dumps(more | {name: _section(found) for name, found in sections.items()}, indent=2, ensure_ascii=False)


def _section(found: Measures) -> dict[str, Any]:
    confusion: dict[str, dict[str, int]] = {}
    for (right, given), rows in sorted(found.confusion.items(), key=str):
        confusion.setdefault(right, {})[given or "no opinion"] = rows
    return {
        "rows": found.rows,
        "figures": {each.name: _figure(each) for each in found.figures},
        "confusion": confusion,
        "by_tier": dict(found.by_tier),
        "warnings": list(found.warnings),
        "worst": list(found.wrong),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    numbers = {name: value if isfinite(value) else None for name, value in figure.found._asdict().items()}
    return numbers | {"unit": figure.unit} | ({"note": figure.note} if figure.note else {})
