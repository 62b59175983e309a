"""How far a job is: as tables, as JSON, and as it goes."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tierline.cli.stores import plain_text
from tierline.display import money
from tierline.report import NO_TENANT
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierline.batches import BatchStatus, JobReport, JobShare, Preview
    from tierline.router import Router

MOST_SHOWN: Final = 50
"""Rows of a table. JSON has all."""
FAILED: Final = ("errored", "expired", "canceled", "refused", "invalid")
_LONGEST: Final = 40
"""Characters of a name; a longer one has several lines."""
_WIDEST: Final = 500
_EVERY: Final = 5.0
"""Seconds between two lines where nobody sees a bar."""


def as_json(status: BatchStatus, report: JobReport, **more: Any) -> str:
    """A job as one JSON object: money in nano-USD."""
    total = report.total
    return json.dumps(
        {
            "job": status.id, "state": status.state, "submitted": status.submitted, "processing": status.processing,
            "deferred": status.deferred, "succeeded": status.succeeded,
            **{name: getattr(status, name) for name in FAILED},
            **_money(total), "problems": list(status.problems),
            "by_tier": [{"tier": name, **_share(each)} for name, each in _tiers(report).items()],
            "by_account": [{"account": name, **_share(each)} for name, each in report.by_tenant().items()],
            "shares": [{"account": each.tenant, "tier": each.tier, **_share(each)} for each in report.shares],
            **more,
        },
        indent=2,
    )  # fmt: skip


def _money(each: JobShare) -> dict[str, int]:
    return {"cost": each.cost, "as_calls": each.plain, "on_top_tier": each.top, "saved": each.saved}


def _share(each: JobShare) -> dict[str, Any]:
    return {"requests": each.requests, "outcomes": dict(each.outcomes), **_money(each), "guesses": each.guesses}


def _tiers(report: JobReport) -> dict[str, JobShare]:
    """By tier; without what was sent to none."""
    return {name: each for name, each in report.by_tier().items() if name}


def show(console: Console, status: BatchStatus, report: JobReport) -> None:
    """A job, for a person."""
    total = report.total
    _say(console, f"job {plain_text(status.id)}: {status.state.replace('_', ' ')}")
    _say(console, f"{_many(status.submitted)}: {counted(status)}")
    if total.top:
        _say(
            console,
            f"cost {usd(total.cost)}; as calls {usd(total.plain)}, all on the top tier {usd(total.top)}: "
            f"saved {usd(total.saved)}",
        )
    if total.guesses:
        _say(console, f"of {_many(total.guesses)} the API did not say the cost: the most that it can be is counted")
    for problem in status.problems:
        _say(console, f"tried again: {plain_text(problem)}")
    if tiers := _tiers(report):
        _table(console, "tier", [(name, each) for name, each in tiers.items()])
    accounts = sorted(report.by_tenant().items(), key=lambda pair: (-pair[1].cost, pair[0] or ""))
    if len(accounts) > 1 or any(name for name, _ in accounts):
        _table(console, "account", [(name or NO_TENANT, each) for name, each in accounts])


def counted(status: BatchStatus) -> str:
    """Its requests by what became of them."""
    parts = [(status.succeeded, "succeeded"), *((getattr(status, name), name) for name in FAILED)]
    parts += [(status.processing - status.deferred, "under way"), (status.deferred, "waiting")]
    return ", ".join(f"{number:,} {name}" for number, name in parts if number) or "none"


def _table(console: Console, kind: str, rows: list[tuple[str, JobShare]]) -> None:
    shown = rows[:MOST_SHOWN]
    if len(rows) > MOST_SHOWN:
        rest = rows[MOST_SHOWN][1]
        for _, each in rows[MOST_SHOWN + 1 :]:
            rest = rest.plus(each)
        shown.append((f"({len(rows) - MOST_SHOWN:,} more)", rest))
    costs, savings = money(each.cost for _, each in shown), money(each.saved for _, each in shown)
    columns: dict[str, list[str]] = {
        "requests": [f"{each.requests:,}" for _, each in shown],
        "succeeded": [_number(each, "succeeded") for _, each in shown],
        "failed": [_number(each, *FAILED) for _, each in shown],
        "under way": [_number(each, "processing") for _, each in shown],
        "cost": costs if any(each.cost for _, each in shown) else [],
        "saved": savings if any(each.saved for _, each in shown) else [],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(kind, overflow="fold", max_width=_LONGEST)
    for name in filled:
        table.add_column(name, justify="right", no_wrap=True)
    for place, (name, _) in enumerate(shown):
        table.add_row(Text(plain_text(name)), *(cells[place] for cells in filled.values()))
    _print(console, table)


def _number(each: JobShare, *outcomes: str) -> str:
    number = sum(each.outcomes.get(name, 0) for name in outcomes)
    return f"{number:,}" if number else ""


def _print(console: Console, table: Table) -> None:
    """A table, wider than the terminal where that has no room for it: half of an amount is another amount."""
    needed = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    width, console.width = console.width, max(needed, console.width)
    console.print(table)
    console.width = width


def show_preview(console: Console, found: Preview, source: str) -> None:
    """What a job would be, for a person."""
    total = found.total
    bad = f", {found.invalid:,} bad" if found.invalid else ""
    _say(console, f"{source}: {_many(total.requests)}{bad}. A dry run: nothing was sent, nothing is held.")
    if found.by_tier:
        _show_tiers(console, found)
        _say(
            console, "Tiers are what rules, routes and local classifiers say: Claude, who may be asked later, was not."
        )
        _say(console, "Answers are taken to be as long as is usual: --expected-output says how long, in tokens.")
    if total.unbounded:
        _say(console, f"{_many(total.unbounded)} can cost without bound: a hard budget refuses them.")
    for room in found.rooms[:MOST_SHOWN]:
        if room.short:
            _say(
                console,
                f"budget {plain_text(room.budget)} of {plain_text(room.account)} has {usd(max(0, room.left))} left, "
                f"and {usd(room.needed)} would be held: some are refused, or wait with --when-full defer.",
            )


def _show_tiers(console: Console, found: Preview) -> None:
    total = found.total
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("tier", overflow="fold")
    for name in ("requests", "expected", "at most", "as calls", "top tier"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [*found.by_tier.items(), *([("total", total)] if len(found.by_tier) > 1 else [])]
    columns = [money(getattr(each, name) for _, each in rows) for name in ("expected", "worst", "plain", "top")]
    for place, (name, each) in enumerate(rows):
        if name == "total" and place == len(found.by_tier):
            table.add_section()
        table.add_row(Text(plain_text(name)), f"{each.requests:,}", *(column[place] for column in columns))
    _print(console, table)
    if total.top:
        saved = total.top - total.expected
        _say(
            console,
            f"expected saving {usd(saved)} ({saved / total.top:.0%}): {usd(total.top - total.plain)} by tiers, "
            f"{usd(total.plain - total.expected)} by batches",
        )


def preview_json(found: Preview) -> str:
    """The same as one JSON object: money in nano-USD."""

    def told(each: Any) -> dict[str, int]:
        return {
            "requests": each.requests, "expected": each.expected, "at_most": each.worst, "as_calls": each.plain,
            "on_top_tier": each.top, "unbounded": each.unbounded,
        }  # fmt: skip

    rooms = [{"budget": e.budget, "account": e.account, "needed": e.needed, "left": e.left} for e in found.rooms]
    tiers = [{"tier": name, **told(each)} for name, each in found.by_tier.items()]
    return json.dumps(
        {"dry_run": True, "invalid": found.invalid, "total": told(found.total), "by_tier": tiers, "budgets": rooms},
        indent=2,
    )


class Shown:
    """Says how far a job is: a bar where somebody sees one, else a line now and then; nothing without a console."""

    def __init__(self, console: Console | None, progress: Progress | None) -> None:
        self._console, self._progress = console, progress
        self._tasks: dict[str, Any] = {}
        self._last, self._said = float("-inf"), ""

    def at(self, what: str, done: int, of: int, report: JobReport | None) -> None:
        """`done` of all are there."""
        told = _told(report)
        if self._progress is not None:
            if what not in self._tasks:
                for task in self._tasks.values():
                    self._progress.update(task, visible=False)
                self._tasks[what] = self._progress.add_task(what, total=of or None, told="")
            self._progress.update(self._tasks[what], completed=done, total=of or None, told=told)
            return
        now = time.monotonic()
        share = f"{done / of:.0%}" if of else "-"
        line = f"{what} {share}{f': {told}' if told else ''}"
        if self._console is not None and now - self._last >= _EVERY and line != self._said:
            self._last, self._said = now, line
            self._console.file.write(line + "\n")
            self._console.file.flush()


def _told(report: JobReport | None) -> str:
    if report is None:
        return ""
    total, tiers = report.total, _tiers(report)
    number = sum(each.requests for each in tiers.values())
    done = total.requests - total.outcomes.get("processing", 0)
    parts = [f"{done:,} of {total.requests:,}", usd(total.cost)] if total.cost else [f"{total.requests:,} taken in"]
    parts += [f"{plain_text(name)} {each.requests / number:.0%}" for name, each in list(tiers.items())[:4]]
    return "  ".join(parts)


@contextmanager
def showing(*, silent: bool) -> Iterator[Shown]:
    """On stderr, for a block. `silent`: no line where there is no bar."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Shown(None if silent else console, None)
        return
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"), BarColumn(bar_width=None), TaskProgressColumn(),
        TextColumn("{task.fields[told]}"), TimeRemainingColumn(compact=True),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        yield Shown(console, progress)


def _many(number: int) -> str:
    return f"{number:,} request{'' if number == 1 else 's'}"


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)


async def told_of(router: Router[Any], job: str, *, work: bool) -> tuple[BatchStatus, JobReport]:
    """How a job is now."""
    return await router.batches.status(job, work=work), await router.batches.report(job)
