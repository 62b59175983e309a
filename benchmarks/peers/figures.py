"""What came of a run: medians, ratios and their intervals, as a file that the page is written from."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.pairs import Interval, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.peers.conductor import Part


@dataclass(frozen=True)
class Cell:
    """One column in one row, in microseconds a call. `over`: ratios of all CPU, by what they are to."""

    cpu: float
    beside: float
    clock: float
    rounds: int
    over: Mapping[str, Interval]

    @property
    def all(self) -> float:
        """CPU of the process and of those that work for it."""
        return self.cpu + self.beside


@dataclass(frozen=True)
class Figures:
    """A whole run. Of each row: by worker and column, what was found, what calls did, and what was not to be had."""

    about: Mapping[str, Any]
    """Date, commit, machine, versions of each environment, seconds."""
    cells: Mapping[str, Mapping[str, Mapping[str, Cell]]]
    did: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    missing: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    startup: Mapping[str, Any] = field(default_factory=dict)

    def cell(self, row: str, worker: str, column: str) -> Cell | None:
        """One of them."""
        return self.cells.get(row, {}).get(worker, {}).get(column)


def cells_of(part: Part) -> dict[str, Cell]:
    """The medians of one worker's columns in one row, and their ratios to its base and whatever else they name."""
    found = {}
    measured = dict.fromkeys(name for each in part.rounds for name in each)
    for column in dict.fromkeys(name for name in (*part.also, *measured) if name in measured):
        bases = (part.row.base, *part.also.get(column, ()))
        mine = [each[column] for each in part.rounds if column in each]
        over = {base: over_base for base in bases if base != column and (over_base := _over(part.rounds, column, base))}
        medians = {what: statistics.median(each[what] for each in mine) for what in ("cpu", "beside", "clock")}
        found[column] = Cell(**medians, rounds=len(mine), over=over)
    return found


def _over(rounds: Sequence[Mapping[str, Mapping[str, float]]], column: str, base: str) -> Interval | None:
    """Of the rounds in which both were measured."""
    both = [each for each in rounds if column in each and base in each]
    if not both:
        return None
    return ratio(*([each[name]["cpu"] + each[name]["beside"] for each in both] for name in (column, base)))


def figures_of(parts: Sequence[Part], about: Mapping[str, Any], startup: Mapping[str, Any]) -> Figures:
    """All that a run found."""
    cells: dict[str, dict[str, dict[str, Cell]]] = {}
    did: dict[str, dict[str, str]] = {}
    missing: dict[str, dict[str, str]] = {}
    for part in parts:
        cells.setdefault(part.row.name, {})[part.worker] = cells_of(part)
        for column, said in part.did.items():
            did.setdefault(column, {}).setdefault(part.row.kind, said)
        for column, why in part.failed.items():
            missing.setdefault(column, {})[part.row.name] = why
    return Figures(about, cells, did, missing, startup)


def keep(figures: Figures, path: Path) -> None:
    """Write them down."""
    path.write_text(json.dumps(_short(asdict(figures)), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _short(value: Any) -> Any:
    """Figures to five digits: more of them are noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, (list, tuple)) else value


def kept(path: Path) -> Figures:
    """What was written there."""
    found = json.loads(path.read_text(encoding="utf-8"))
    cells = {
        row: {worker: {name: _cell(cell) for name, cell in columns.items()} for worker, columns in workers.items()}
        for row, workers in found.pop("cells").items()
    }
    return Figures(cells=cells, **found)


def _cell(found: dict[str, Any]) -> Cell:
    return Cell(**{**found, "over": {base: Interval(*each) for base, each in found["over"].items()}})
