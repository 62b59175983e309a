"""docs/performance.md, written from the figures of a run and `page.md`. No figure on it is written by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.peers.aims import AIMS, OURS
from benchmarks.peers.environments import NAMES
from benchmarks.peers.rows import NOTHING, PLAIN, ROWS
from benchmarks.peers.startup import added_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from benchmarks.pairs import Interval
    from benchmarks.peers.figures import Cell, Figures

TEMPLATE: Final = Path(__file__).with_name("page.md")
SECTIONS: Final = Path(__file__).parents[1] / "sections"
"""Sections that other benchmarks write, taken as they are: `{section NAME}` is `NAME.md`, or nothing."""
SUBJECTS: Final = {
    "sdk": "FastAPI and the SDK",
    "tierline": "Tierline",
    "pydantic_ai": "pydantic-ai",
    "litellm": "LiteLLM SDK",
    "litellm's proxy": "LiteLLM with its proxy",
}
_CALLS: Final = [row for row in ROWS if row.base == PLAIN]
_APP: Final = [row for row in ROWS if row.base == NOTHING]
_FEWEST: Final = 5
"""Rounds below which an interval says nothing."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its first column to the left and the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def columns(figures: Figures) -> Iterator[tuple[str, str]]:
    """Each worker and column that calls Claude, once, in the order of the environments; the plain SDK of the first."""
    shown = set()
    for worker in NAMES:
        for row in _CALLS:
            for column in figures.cells.get(row.name, {}).get(worker, {}):
                if (column.startswith("plain SDK") and worker != OURS) or column in shown:
                    continue
                shown.add(column)
                yield worker, column


def _ratio(found: Interval | None, rounds: int) -> str:
    if found is None:
        return "1"
    digits = 2 if found.value < 10 else 1
    middle = f"**{found.value:.{digits}f}**"
    return middle if rounds < _FEWEST else f"{middle} {found.low:.{digits}f} to {found.high:.{digits}f}"


def _micros(cell: Cell) -> str:
    beside = f" + {cell.beside:,.0f}" if cell.beside else ""
    return f"{cell.cpu:,.0f}{beside}"


def _request(cell: Cell) -> str:
    return f"{cell.cpu:,.0f} · {_ratio(cell.over.get(NOTHING), cell.rounds)}"


def _cells(figures: Figures, show: Callable[[Cell], str]) -> str:
    rows = []
    for worker, column in columns(figures):
        found = [figures.cell(row.name, worker, column) for row in _CALLS]
        rows.append([column, *("-" if cell is None else show(cell) for cell in found)])
    return table(["", *(row.name for row in _CALLS)], rows)


def ratios(figures: Figures) -> str:
    """CPU over that of the plain SDK in the same process, by column and row."""
    return _cells(figures, lambda cell: _ratio(cell.over.get(PLAIN), cell.rounds))


def micros(figures: Figures) -> str:
    """CPU microseconds a call, by column and row."""
    return _cells(figures, _micros)


def aims(figures: Figures) -> str:
    """What was aimed at, and what came of it."""
    rows = []
    for aim in AIMS:
        found = aim.figure(figures)
        if found is None:
            rows.append([aim.what, aim.said(), "not measured", ""])
            continue
        digits = 2 if abs(found.value) < 10 else 0
        reached = f"{found.value:.{digits}f}{aim.unit}"
        if found.low != found.high:
            reached += f" ({found.low:.{digits}f} to {found.high:.{digits}f})"
        rows.append([aim.what, aim.said(), reached, "met" if aim.is_met(found) else "**missed**"])
    return table(["", "aim", "reached", ""], rows)


def app(figures: Figures) -> str:
    """The ASGI side: microseconds a request, and ratios to a middleware that does nothing."""
    names = dict.fromkeys(name for row in _APP for name in figures.cells.get(row.name, {}).get("server", {}))
    rows = []
    for name in names:
        cells = [figures.cell(row.name, "server", name) for row in _APP]
        rows.append([name, *("-" if cell is None else _request(cell) for cell in cells)])
    return table(["", *(f"{row.name}: µs · ratio" for row in _APP)], rows) if rows else "Not measured."


def startup(figures: Figures) -> str:
    """Imports, first calls, memory and size."""
    found = figures.startup
    if not found:
        return "Not measured."
    rows = []
    for subject, name in SUBJECTS.items():
        again, first = found["again"].get(subject), found["first"].get(subject)
        times: list[str] = ["-"] * 4
        if again is not None and first is not None:
            times = [
                f"{again['import cpu'][0] * 1e3:,.0f}", f"{first['import cpu'] * 1e3:,.0f}",
                f"{again['call cpu'][0] * 1e3:,.0f}", f"{again['memory'][0] / 1e6:,.0f}",
            ]  # fmt: skip
        size = found["installed"].get(subject)
        rows.append([name, *times, "-" if size is None else f"{size:,.1f}"])
    head = ["", "import, ms", "first import ever, ms", "client and first call, ms", "memory, MB", "installed, MB"]
    return table(head, rows)


def told(figures: Figures) -> str:
    """What the calls of each column were seen to do."""
    lines = []
    for column, kinds in figures.did.items():
        lines.append(f"- {column}: " + "; ".join(f"{kind}: {said}" for kind, said in kinds.items()))
    return "\n".join(lines)


def absent(figures: Figures) -> str:
    """What was not to be had, and why."""
    lines = [
        f"- {column}, {row}: {why}" for column, rows in figures.missing.items() for row, why in rows.items()
    ]  # fmt: skip
    return "\n".join(["Not measured:", "", *lines]) if lines else "Every column was measured in every row."


def versions(figures: Figures) -> str:
    """What was measured, by environment."""
    told_of: dict[str, list[str]] = figures.about["versions"]
    return "; ".join(f"{name.replace('_', '-')}: {', '.join(each)}" for name, each in told_of.items())


def about(figures: Figures) -> dict[str, str]:
    """The facts of the run in words."""
    found: dict[str, Any] = dict(figures.about)
    plain = [cells[PLAIN].cpu for cells in figures.cells.get(ROWS[0].name, {}).values() if PLAIN in cells]
    words = {
        name: str(found[name]) for name in ("date", "commit", "python", "system", "cpu", "cores", "minutes", "how")
    }
    again = figures.startup.get("again", {})
    memory = f"{added_memory(again):.1f}" if {"sdk", "tierline"} <= set(again) else "-"
    return words | {
        "processes": str(len(plain)),
        "plain low": f"{min(plain, default=0):,.0f}",
        "plain high": f"{max(plain, default=0):,.0f}",
        "load": f"{found['load']:.1f}",
        "memory": memory,
        "starts": str(figures.startup.get("rounds", 0)),
    }


PARTS: Final[dict[str, Callable[[Figures], str]]] = {
    "aims": aims, "ratios": ratios, "micros": micros, "app": app, "startup": startup, "did": told, "absent": absent,
    "versions": versions,
}  # fmt: skip


def page(figures: Figures, template: str, sections: Path = SECTIONS) -> str:
    """The whole page. KeyError for a name in braces that nothing is known of."""
    words = about(figures)

    def put(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("section "):
            path = sections / f"{name.removeprefix('section ')}.md"
            return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        return words[name] if name in words else PARTS[name](figures)

    written = re.sub(r"\{([a-z ]+)\}", put, template)
    return re.sub(r"\n{3,}", "\n\n", written).strip() + "\n"
