"""`tierline report`: what all processes of an app spent, and what their calls did, from its store."""

from __future__ import annotations

import asyncio
import csv
import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tierline.cli.loading import AppName, Factory
from tierline.cli.operating import reached
from tierline.cli.stores import Store, moment_of, plain_text
from tierline.display import moment, money
from tierline.errors import ConfigurationError
from tierline.history import Total
from tierline.traffic.base import NAMES, Counts, total_of
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import IO

    from tierline.history import History
    from tierline.traffic.base import Traffic

By = Literal["tier", "route", "account", "job", "hour", "day"]
MOST_SHOWN: Final = 50
"""Rows of a table. JSON and CSV have all."""
_MOST: Final = 1_000
_LONGEST: Final = 60
"""Characters of a name; a longer one has several lines."""
_WIDEST: Final = 500
_HEADS: Final = (
    "attempts", "cost", "share", "overhead", "estimated", "calls", "saved", "cache hits", "downgrades", "escalations",
    "fallbacks", "refusals", "failures", "batched",
)  # fmt: skip
"""Columns that have something in them are shown."""
_BOOKED: Final = tuple(each.name for each in fields(Total))
_COUNTED: Final = tuple(name for name in NAMES if name not in _BOOKED)


@dataclass(frozen=True)
class Row:
    """One row: money by the ledger (None for jobs, which it does not know), and counts, where they were recorded."""

    name: str
    money: Total | None
    counts: Counts | None

    @property
    def cost(self) -> int:
        """Nano-USD."""
        return self.money.cost if self.money is not None else self.counts.cost if self.counts is not None else 0


@dataclass(frozen=True)
class Reported:
    """What is told: `money` is the ledger's, `counts` are None where no process recorded any."""

    by: By
    since: float
    until: float
    rows: tuple[Row, ...]
    money: Total
    counts: Counts | None


def report(
    store: Store = "",
    app: AppName = "",
    factory: Factory = False,
    by: Annotated[By, typer.Option(help="What rows are: a job is a run, as router.bind(run=…) names it.")] = "tier",
    since: Annotated[str, typer.Option(help="24h, 7d, 2026-11-01, 2026-11-01T08:00 (UTC).")] = "24h",
    until: Annotated[str, typer.Option(help="The same; by default now.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="JSON; money in nano-USD.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV; money in nano-USD.")] = False,
) -> None:
    """Show what was spent and what calls did, over all processes, from the app's store. Needs no key."""
    if as_json and as_csv:
        raise ConfigurationError("--json or --csv: leave one of them out")
    now = datetime.now(UTC)
    begin = moment_of("--since", since, now)
    end = moment_of("--until", until, now) if until else None
    if begin > (end or now):
        raise ConfigurationError(f"--since {since} is after {f'--until {until}' if until else 'now'}")
    found = asyncio.run(_asked(store, app, by, begin, end, factory=factory))
    console = Console()
    if as_json:
        console.file.write(_json(found) + "\n")
    elif as_csv:
        _write_csv(found, console.file)
    else:
        _show(found, console)


async def _asked(store: str, app: str, by: By, since: datetime, until: datetime | None, *, factory: bool) -> Reported:
    async with reached(store, app, factory=factory) as router:
        # Traffic by name has whole days where it is long: the ledger is asked for the same.
        traffic = await router.traffic(since, until, most=0 if by in ("tier", "hour", "day") else _MOST)
        history = await router.history(traffic.since, None if until is None else traffic.until)
    return reported(by, history, traffic)


def reported(by: By, history: History, traffic: Traffic) -> Reported:
    """Both side by side. What the ledger has comes first: names beyond those that traffic tells are without counts."""
    recorded = bool(traffic.total)
    counts = _counts(by, traffic)
    booked: Mapping[str, Total] = {} if by == "job" else history.by(by)
    rows = [Row(name, total, counts.pop(name, None)) for name, total in booked.items()]
    # What cost nothing is in no ledger, such as calls that were refused.
    rows += [Row(name, None if by == "job" else Total(), each) for name, each in counts.items()]
    return Reported(by, traffic.since, traffic.until, tuple(rows), history.total, traffic.total if recorded else None)


def _counts(by: By, traffic: Traffic) -> dict[str, Counts]:
    if by in ("hour", "day"):
        pattern = "%Y-%m-%d %H:%M" if by == "hour" else "%Y-%m-%d"
        found: dict[str, Counts] = {}
        for hour, tiers in traffic.hours:
            name = f"{datetime.fromtimestamp(hour, UTC):{pattern}}"
            found[name] = found.get(name, Counts()).plus(total_of(tiers.values()))
        return found
    kinds = {"tier": traffic.by_tier, "route": traffic.by_route, "account": traffic.by_account, "job": traffic.by_job}
    return dict(kinds[by])


def _cells(row: Row) -> dict[str, int | None]:
    """All that is known of a row; None for what is not."""
    if row.money is not None:
        booked: dict[str, int | None] = dict(asdict(row.money))
    else:
        booked = dict.fromkeys(_BOOKED)
        if row.counts is not None:
            booked |= {name: getattr(row.counts, name) for name in _BOOKED if name in NAMES}
    return booked | {name: None if row.counts is None else getattr(row.counts, name) for name in _COUNTED}


def _json(found: Reported) -> str:
    total = Row("total", found.money, found.counts)
    return json.dumps(
        {
            "since": found.since,
            "until": found.until,
            "by": found.by,
            "recorded": found.counts is not None,
            "rows": [{found.by: row.name, **_cells(row)} for row in found.rows],
            "total": _cells(total),
        },
        indent=2,
    )


def _write_csv(found: Reported, file: IO[str]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([found.by, *_BOOKED, *_COUNTED])
    for row in found.rows:
        cells = _cells(row)
        name = plain_text(row.name)
        # What begins like a formula is one to a spreadsheet, and a tenant may be called anything.
        writer.writerow([f"'{name}" if name[:1] in "=+-@" else name, *("" if v is None else v for v in cells.values())])


def _show(found: Reported, console: Console) -> None:
    title = f"by {found.by}, from {moment(found.since)} to {moment(found.until)}"
    if not found.rows:
        console.print(f"{title}: nothing was spent, and no call was recorded", markup=False, highlight=False)
        return
    shown, hidden = _parted(found)
    rows = [*shown, *hidden, Row("total", found.money, found.counts)]
    costs = money(row.cost for row in rows)
    savings = money(row.counts.saved if row.counts is not None else 0 for row in rows)
    cells = [list(_shown(row, cost, saved, found)) for row, cost, saved in zip(rows, costs, savings, strict=True)]
    columns = [(head, column) for head, column in zip(_HEADS, zip(*cells, strict=True), strict=False) if any(column)]
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(found.by, overflow="fold", max_width=_LONGEST)
    for head, _ in columns:
        table.add_column(head, justify="right")
    for place, row in enumerate(rows):
        if row is rows[-1]:
            table.add_section()
        table.add_row(Text(plain_text(row.name)), *(column[place] for _, column in columns))
    # Half of an amount is another amount: where there is no room for all, lines are longer than the terminal.
    needed = Measurement.get(console, console.options.update(max_width=_WIDEST), table).maximum
    console.width = max(needed, console.width)
    console.print(table)
    for note in _notes(found):
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _parted(found: Reported) -> tuple[list[Row], list[Row]]:
    """The rows that are shown, and the rest as one; of hours and days the latest are."""
    if len(found.rows) <= MOST_SHOWN:
        return list(found.rows), []
    late = found.by in ("hour", "day")
    shown = found.rows[-MOST_SHOWN:] if late else found.rows[:MOST_SHOWN]
    rest = found.rows[:-MOST_SHOWN] if late else found.rows[MOST_SHOWN:]
    booked = Total()
    for row in rest:
        booked = booked.plus(row.money or Total(cost=row.cost))
    counts = [row.counts for row in rest if row.counts is not None]
    name = f"({len(rest):,} {'earlier' if late else 'more'})"
    return list(shown), [Row(name, booked, total_of(counts) if counts else None)]


def _shown(row: Row, cost: str, saved: str, found: Reported) -> Iterator[str]:
    cells = _cells(row)
    attempts, own, guess = cells["attempts"], cells["own"], cells["estimated"]
    yield "" if attempts is None else f"{attempts:,}"
    yield cost
    whole = found.money.cost
    yield f"{row.cost / whole:.0%}" if whole else ""
    yield usd(own) if own else ""
    yield usd(guess) if guess else ""
    counts = row.counts
    if found.counts is None:
        return
    if counts is None:
        yield from [""] * 9
        return
    yield f"{counts.calls:,}"
    yield saved
    yield f"{counts.hits / counts.lookups:.0%}" if counts.lookups else ""
    moved = (counts.downgrades, counts.escalations, counts.fallbacks, counts.refusals, counts.failures)
    for number in (*moved, counts.batched):
        yield f"{number:,}" if number else ""


def _notes(found: Reported) -> Iterator[str]:
    if found.counts is None:
        yield "Money is the ledger's. Calls and savings were not recorded: give the app Router(traffic=True)."
        return
    if found.by == "job":
        yield "A job has all that its calls cost, as their decisions tell it; the ledger knows no jobs."
    yield "Money is the ledger's; calls and all that follows are what was recorded with Router(traffic=True)."
    if (missing := found.money.cost - found.counts.cost) > 0:
        yield (
            f"{usd(missing)} of the money are of calls that nobody recorded: without traffic=True, or of processes "
            "that were killed, whose holds lapsed."
        )
