"""Accounts as they stood at one moment, the fullest or all: sorted, searched, and turned over by the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from tierline.budgets import GLOBAL_ACCOUNT
from tierline.dashboard.forecast import forecast
from tierline.dashboard.written import balance_row
from tierline.ledger.base import Balance, by_share
from tierline.ledger.limits import limit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from tierline.budgets import Budget
    from tierline.ledger.base import Fullest
    from tierline.ledger.limits import Limits

Sort = Literal["share", "spent", "name"]
SORTS: Final[tuple[Sort, ...]] = get_args(Sort)

USUAL: Final = ("", "", SORTS[0])
"""No search, all budgets, the fullest first."""

_KEYS: Final[Mapping[Sort, Callable[[Balance], Any]]] = {
    "share": by_share,
    "spent": lambda balance: (-balance.spent, balance.budget, balance.account),
    "name": lambda balance: (balance.account.casefold(), balance.budget, balance.window),
}


@dataclass(frozen=True, slots=True)
class Accounts:
    """Balances as they were at `at` (seconds since the epoch), the fullest first: of `total` accounts, all or some.

    `limits` are those that operators have set, `rates` what is spent in an hour (nano-USD) by budget and account, for
    windows without a beginning.
    """

    at: float
    balances: tuple[Balance, ...]
    total: int
    limits: Limits
    rates: Mapping[tuple[str, str], int] = field(default_factory=dict)
    _sorted: dict[Sort, tuple[Balance, ...]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        at: float,
        balances: Iterable[Balance],
        limits: Limits,
        rates: Mapping[tuple[str, str], int] | None = None,
    ) -> Accounts:
        """All balances of a ledger, in any order."""
        found = tuple(sorted(balances, key=by_share))
        return cls(at, found, len(found), limits, rates or {})

    def same(self, other: Accounts) -> bool:
        """Whether nothing but time has passed."""
        return (self.balances, self.total, self.limits) == (other.balances, other.total, other.limits)

    def suffice(self, search: str, budget: str, sort: Sort, offset: int, most: int) -> bool:
        """Whether `page` is the same as it would be of all accounts."""
        known = len(self.balances)
        return known == self.total or ((search, budget, sort) == USUAL and offset + most <= known)

    def page(
        self, search: str = "", budget: str = "", sort: Sort = "share", offset: int = 0, most: int = 50
    ) -> dict[str, Any]:
        """Those that have `search` in their name, of one budget or of all: how many, and the rows of one page."""
        found: Sequence[Balance] = self._in_order(sort)
        if not budget and not search:
            return {"total": self.total, "rows": self.rows(found[offset : offset + most])}
        if budget:
            found = [balance for balance in found if balance.budget == budget]
        if search := search.casefold():
            found = [balance for balance in found if search in balance.account.casefold()]
        return {"total": len(found), "rows": self.rows(found[offset : offset + most])}

    def rows(self, some: Iterable[Balance]) -> list[dict[str, Any]]:
        """What the page shows of each."""
        return [
            balance_row(
                balance,
                balance.share,
                forecast(balance, self.at, self.rates.get((balance.budget, balance.account))),
                overridden=limit_of(self.limits, balance.budget, balance.account) is not None,
            )
            for balance in some
        ]

    def _in_order(self, sort: Sort) -> tuple[Balance, ...]:
        if sort == "share":
            return self.balances
        if sort not in self._sorted:
            self._sorted[sort] = tuple(sorted(self.balances, key=_KEYS[sort]))
        return self._sorted[sort]


def with_untouched(found: Fullest, missing: Sequence[Balance]) -> tuple[tuple[Balance, ...], int]:
    """The fullest of all, and how many there are, together with those that a ledger does not know."""
    all_told = len(found.balances) == found.number
    most = found.number + len(missing) if all_told else len(found.balances)
    return tuple(nsmallest(most, [*found.balances, *missing], key=by_share)), found.number + len(missing)


def untouched(budgets: Iterable[Budget], there: Collection[str], limits: Limits, now: float) -> list[Balance]:
    """Budgets with one account for all of which nothing is spent yet: ledgers do not know them, people ask for them.

    `there` are names of budgets that have an account.
    """
    found = []
    for budget in budgets:
        if budget.per is None and budget.name not in there:
            try:
                limit = budget.limit_of(GLOBAL_ACCOUNT)
            except Exception:  # noqa: BLE001, S112  (a function of the app, which is asked when a call comes)
                continue
            window = limit.window
            renews_at = window.span(now).end if window.renews and not window.rolls else None
            nano = limit_of(limits, budget.name, GLOBAL_ACCOUNT) or limit.nano
            found.append(
                Balance(budget.name, GLOBAL_ACCOUNT, 0, 0, nano, renews_at, hard=budget.hard, window=window.series)
            )
    return found
