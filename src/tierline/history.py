"""What all processes spent, hour by hour, as the store has it; and what is in flight."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from tierline.display import duration, moment, money, table
from tierline.errors import ConfigurationError
from tierline.ledger.base import Spent  # noqa: TC001  (FastAPI reads the annotations of what an endpoint returns)
from tierline.report import NO_ROUTE, NO_TENANT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tierline.ledger.base import Hold

Grouping = Literal["hour", "day", "account", "route", "tier"]
GROUPINGS: Final[tuple[Grouping, ...]] = get_args(Grouping)

MOST_SHOWN: Final = 20
"""Most rows of each kind that a table for people shows. The value itself has all."""
_HOURS_SHOWN: Final = 48
"""From so many hours on, a table for people is by day."""


@dataclass(frozen=True, slots=True)
class Total:
    """A sum of `Spent`: attempts of the app's calls, and nano-USD."""

    attempts: int = 0
    cost: int = 0
    own: int = 0
    """The part of `cost` that Tierline's own questions came to."""
    estimated: int = 0
    """The part of `cost` that nobody has measured."""

    def plus(self, row: Spent | Total) -> Total:
        """So much more."""
        return Total(
            self.attempts + row.attempts, self.cost + row.cost, self.own + row.own, self.estimated + row.estimated
        )


@dataclass(frozen=True, slots=True)
class History:
    """Spend from `since` to `until` (seconds since the epoch), over all processes. `str(history)` is a table.

    Spend is kept by whole hours: an hour counts that has any part in between. Hours and days are those of UTC. An
    attempt belongs to the hour in which it began, and to none before it has ended.
    """

    since: float
    until: float
    rows: tuple[Spent, ...]

    @property
    def total(self) -> Total:
        """All of it."""
        return _sum(self.rows)

    def by(self, what: Grouping) -> dict[str, Total]:
        """Sums by `hour` or `day`, in order, or by `account` (the tenant), `route` or `tier`, the dearest first.

        Keys are as they are shown: `2026-11-21 14:00`, `2026-11-21`, `(no tenant)`. ConfigurationError for a word
        that is none of these.
        """
        if what not in GROUPINGS:
            raise ConfigurationError(f"history.by({what!r:.40}): write one of {', '.join(GROUPINGS)}")
        found = _grouped(self.rows, partial(_key, what=what))
        return found if what in ("hour", "day") else _dearest_first(found)

    def __str__(self) -> str:
        time: Grouping = "hour" if self.until - self.since <= _HOURS_SHOWN * 3_600 else "day"
        groups: list[tuple[str, list[tuple[str, Total]]]] = []
        for what in (time, "account", "route", "tier"):
            totals = list(self.by(what).items())
            if what == time:
                # The latest are of more interest than the dearest.
                hidden, totals = totals[:-MOST_SHOWN], totals[-MOST_SHOWN:]
                shown = [_rest(hidden, "earlier"), *totals]
            else:
                shown = [*totals[:MOST_SHOWN], _rest(totals[MOST_SHOWN:], "more")]
            groups.append((what, [row for row in shown if row is not None]))
        groups.append(("total", [("", self.total)]))
        title = f"spent from {moment(self.since)} to {moment(self.until)}"
        if not self.rows:
            return f"{title}: nothing"
        return "\n".join([title, *_spend_table(groups)])


@dataclass(frozen=True, slots=True)
class InFlight:
    """A call that has been admitted and has not ended. Money in nano-USD, times in seconds.

    `accounts` are pairs of a budget and an account. `lease_left` is how long it lives on if nobody renews it: every
    process that is alive does.
    """

    id: str
    tier: str
    model: str
    cost: int
    age: float
    lease_left: float
    accounts: tuple[tuple[str, str], ...]
    tenant: str | None = None
    route: str | None = None


@dataclass(frozen=True, slots=True)
class Holds:
    """What is in flight over all processes, oldest first. `str(holds)` is a table."""

    rows: tuple[InFlight, ...]

    @classmethod
    def at(cls, now: float, holds: Iterable[Hold]) -> Holds:
        """The holds of a ledger, as they are at `now`."""
        return cls(
            tuple(
                InFlight(
                    hold.id, hold.tier, hold.model, hold.cost, max(0.0, now - hold.at), max(0.0, hold.lapses_at - now),
                    hold.accounts, hold.tenant, hold.route,
                )
                for hold in holds
            )
        )  # fmt: skip

    @property
    def cost(self) -> int:
        """What they hold, in nano-USD."""
        return sum(row.cost for row in self.rows)

    def on(self, budget: str, account: str) -> Holds:
        """Those that one account of a budget waits for."""
        return Holds(tuple(row for row in self.rows if (budget, account) in row.accounts))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[InFlight]:
        return iter(self.rows)

    def __str__(self) -> str:
        if not self.rows:
            return "nothing is in flight"
        shown = self.rows[:MOST_SHOWN]
        costs = money(row.cost for row in shown)
        lines = table(
            [
                ("id", "account", "route", "tier", "holds", "age", "lease left"),
                *(
                    (
                        row.id, row.tenant or NO_TENANT, row.route or NO_ROUTE, row.tier, cost, duration(row.age),
                        duration(row.lease_left),
                    )
                    for row, cost in zip(shown, costs, strict=True)
                ),
            ],
            right=(4, 5, 6),
        )  # fmt: skip
        more = len(self.rows) - len(shown)
        return "\n".join([*lines, *([f"and {more:,} more"] if more else [])])


def by_route_and_tier(rows: Sequence[Spent]) -> list[str]:
    """Lines of a table, the dearest first: where the money went."""
    sums = _dearest_first(_grouped(rows, lambda row: (row.route or NO_ROUTE, row.tier)))
    shown = list(sums.items())[:MOST_SHOWN]
    if len(sums) > len(shown):
        hidden = list(sums.values())[len(shown) :]
        shown.append(((f"({len(hidden):,} more)", ""), _sum(hidden)))
    shown.append((("total", ""), _sum(rows)))
    costs = money(total.cost for _, total in shown)
    own = money(total.own for _, total in shown)
    cells = zip(shown, costs, own, strict=True)
    return table(
        [
            ("route", "tier", "attempts", "cost", "overhead"),
            *((*names, f"{total.attempts:,}", cost, asked) for (names, total), cost, asked in cells),
        ],
        right=(2, 3, 4),
    )


def _key(row: Spent, *, what: Grouping) -> str:
    if what == "hour":
        return f"{datetime.fromtimestamp(row.hour, UTC):%Y-%m-%d %H:%M}"
    if what == "day":
        return f"{datetime.fromtimestamp(row.hour, UTC):%Y-%m-%d}"
    if what == "account":
        return row.tenant or NO_TENANT
    return row.route or NO_ROUTE if what == "route" else row.tier


def _sum(rows: Iterable[Spent | Total]) -> Total:
    total = Total()
    for row in rows:
        total = total.plus(row)
    return total


def _grouped(rows: Iterable[Spent], key: Callable[[Spent], Any]) -> dict[Any, Total]:
    found: dict[Any, Total] = {}
    for row in rows:
        name = key(row)
        found[name] = found.get(name, Total()).plus(row)
    return found


def _dearest_first(found: dict[Any, Total]) -> dict[Any, Total]:
    return dict(sorted(found.items(), key=lambda entry: -entry[1].cost))


def _rest(hidden: Sequence[tuple[str, Total]], word: str) -> tuple[str, Total] | None:
    """One row for those that are not shown."""
    return (f"({len(hidden):,} {word})", _sum(total for _, total in hidden)) if hidden else None


def _spend_table(groups: Sequence[tuple[str, Sequence[tuple[str, Total]]]]) -> list[str]:
    """Groups of rows under a head, each group under its name."""
    totals = [total for _, group in groups for _, total in group]
    columns = zip(
        money(total.cost for total in totals),
        money(total.own for total in totals),
        money(total.estimated for total in totals),
        strict=True,
    )
    rows = [("", "attempts", "cost", "overhead", "estimated")]
    for what, group in groups:
        if len(group) != 1 or group[0][0]:
            rows.append((what, "", "", "", ""))
        for name, total in group:
            rows.append((f"  {name}" if name else what, f"{total.attempts:,}", *next(columns)))
    return table(rows, right=(1, 2, 3, 4))
