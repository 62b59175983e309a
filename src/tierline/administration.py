"""What operators ask a ledger, and tell it: over all processes that share its store."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from math import inf, isfinite
from typing import TYPE_CHECKING, Final

from tierline.budgets import DEFAULT_ACCOUNT, GLOBAL_ACCOUNT, RUN_SERIES, is_key, is_run_of, parse_money
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.explanation import Explained, Explanation
from tierline.history import History, Holds
from tierline.ledger.limits import limit_of
from tierline.values import Refusal, Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.admission import Rules
    from tierline.ledger.base import Balance, Ledger, Spent
    from tierline.ledger.limits import Limits

log: Final = logging.getLogger("tierline")

_HOUR: Final = 3_600


class Administration:
    """The operator's side of a ledger.

    `rules` says which budgets the app is known to have: none in a script that only opens the same store. `now` gives
    seconds since the epoch.
    """

    def __init__(self, ledger: Ledger, rules: Rules, now: Callable[[], float]) -> None:
        self._ledger = ledger
        self._rules = rules
        self._now = now

    async def history(
        self, since: datetime | timedelta | float, until: datetime | timedelta | float | None = None
    ) -> History:
        """Spend of the hours that have a part between `since` and `until`: see `Router.history`."""
        begin, end = self.moments(since, until)
        begin -= begin % _HOUR  # the hour that it falls into is one of them
        return History(begin, end, tuple(await self._ledger.history(begin, None if until is None else end)))

    def moments(
        self, since: datetime | timedelta | float, until: datetime | timedelta | float | None
    ) -> tuple[float, float]:
        """Both in seconds since the epoch; no `until` is now. ConfigurationError for what is no moment."""
        now = self._now()
        begin = _moment("since", since, now)
        end = now if until is None else _moment("until", until, now)
        if end < begin:
            raise ConfigurationError(f"history: until={until!r:.80} is before since={since!r:.80}")
        return begin, end

    async def balances(self, account: str | None) -> list[Balance]:
        """Every budget and account, or those with one name."""
        # Stores take no half characters, and none of them was ever charged to.
        return await self._ledger.balances(account) if account is None or is_key(account) else []

    async def holds(self) -> Holds:
        """What is in flight."""
        # The clock is read last: no call is younger than nothing.
        found = await self._ledger.holds()
        return Holds.at(self._now(), found)

    async def set_limit(self, budget: str, account: str | None, limit: str | None) -> None:
        """Let another limit hold: see `Router.set_limit`."""
        nano = None if limit is None else _limit(limit)
        if not is_key(budget):
            raise ConfigurationError(f"set_limit: a budget goes by its name, such as '$50/day', got {budget!r:.80}")
        if account is not None:
            _check_account("set_limit", account)
        if nano is not None:
            await self._check_known(budget, account)
        await self._ledger.set_limit(budget, account, nano)
        whose = "all accounts" if account is None else "one account"
        log.warning("budget %s: the limit of %s is %s now", budget, whose, limit or "what the app says")

    async def erase(self, account: str) -> None:
        """Drop all that the store keeps under a name: see `Router.erase`."""
        _check_account("erase", account)
        await self._ledger.erase(account)
        runs = {name for name, budget in self._rules.known().items() if budget.per == "run"}
        for balance in await self._ledger.balances():
            if (balance.budget in runs or balance.window == RUN_SERIES) and is_run_of(account, balance.account):
                await self._ledger.erase(balance.account)

    async def explain(self, refusal: Refusal | BudgetExceededError) -> Explanation:
        """Every number behind a refusal: see `Router.explain`."""
        if isinstance(refusal, BudgetExceededError):
            refusal = refusal.refusal
        if not isinstance(refusal, Refusal):
            raise ConfigurationError(
                f"explain takes a BudgetExceededError or its `refusal`, got {type(refusal).__name__}"
            )
        limits = await self._ledger.limits()
        balances: list[Balance] = []
        for account in dict.fromkeys(standing.account for standing in refusal.budgets):
            balances += await self._ledger.balances(account)
        holds = await self.holds()
        spender, history = await self._spender_of(refusal)
        budgets = tuple(self._explained(standing, limits, balances) for standing in refusal.budgets)
        in_flight = holds.on(refusal.budget, refusal.account)
        return Explanation(refusal, self._now(), budgets, in_flight, history, spender)

    def _explained(self, then: Standing, limits: Limits, balances: list[Balance]) -> Explained:
        override = limit_of(limits, then.budget, then.account)
        name = then.budget, then.account, then.window.series
        found = next((each for each in balances if (each.budget, each.account, each.window) == name), None)
        limit = override or self._declared(then) or (found.limit if found is not None else then.limit)
        if not then.window.renews:
            renews_at = None
        elif found is not None:
            renews_at = found.renews_at
        else:  # nothing counts; a window of the calendar still has an end
            end = inf if then.window.rolls else then.window.span(self._now()).end
            renews_at = None if end == inf else end
        now = Standing(
            then.budget,
            then.account,
            limit,
            found.spent if found is not None else 0,
            found.held if found is not None else 0,
            then.window,
            then.hard,
            renews_at,
        )
        return Explained(then, now, override is not None)

    def _declared(self, standing: Standing) -> int | None:
        """What the app says is the limit; None where that is not known here."""
        budget = self._rules.known().get(standing.budget)
        try:
            return None if budget is None or budget.per == "request" else budget.limit_of(standing.account).nano
        except Exception:  # noqa: BLE001  (a function of the app, which no account need to suit)
            return None

    async def _spender_of(self, refusal: Refusal) -> tuple[str, History | None]:
        """Whose spend is the account's, in words; and that of the window in which it was refused."""
        account = refusal.account
        then = next((s for s in refusal.budgets if (s.budget, s.account) == (refusal.budget, account)), None)
        budget = self._rules.known().get(refusal.budget)
        if then is None or (budget is not None and budget.per in ("request", "run")):
            return "", None
        if then.window.rolls:
            since, until = refusal.at - then.window.seconds, self._now()
        else:
            span = then.window.span(refusal.at)
            since, until = span.start, min(span.end, self._now())
        history = await self.history(since, max(since, until))
        if account == GLOBAL_ACCOUNT if budget is None else budget.per is None:
            return "all spend of this store", history
        per = None if budget is None or callable(budget.per) else budget.per
        kinds = ("tenant", "route") if per is None else (per,)
        for kind in kinds:
            rows = tuple(row for row in history.rows if _is_of(row, kind, account))
            if rows or len(kinds) == 1:
                return f"{kind} {account}", History(history.since, history.until, rows)
        return "", None

    async def _check_known(self, budget: str, account: str | None) -> None:
        """ConfigurationError for a budget that cannot be meant; a warning where that cannot be told."""
        mine = self._rules.known()
        if (found := mine.get(budget)) is not None:
            if found.per is None and account not in (None, GLOBAL_ACCOUNT):
                raise ConfigurationError(f"set_limit: budget {budget!r} has one account for all; leave the account out")
            return
        kept = {balance.budget for balance in await self._ledger.balances()}
        kept |= {name for name, _ in await self._ledger.limits()}
        if budget in kept:
            return
        names = ", ".join(repr(name) for name in sorted({*mine, *kept})) or "none"
        if mine:
            raise ConfigurationError(
                f"set_limit: no budget {budget!r:.80} is known here; known are: {names}. Give it a name of its own, "
                'Budget("$5/day", name="…"), and write that'
            )
        log.warning(
            "set_limit: nothing was charged to a budget %r yet, and this Router has none: is it written as in the app? "
            "The store knows: %s", budget, names,
        )  # fmt: skip


def _is_of(row: Spent, kind: str, account: str) -> bool:
    name = row.tenant if kind == "tenant" else row.route
    return (name or DEFAULT_ACCOUNT) == account


def _limit(limit: object) -> int:
    if isinstance(limit, str) and "/" in limit:
        raise ConfigurationError(
            f"set_limit: {limit!r:.80} names a window, and that does not change: write only the amount, such as '$10'"
        )
    try:
        return parse_money(limit)
    except ConfigurationError as error:
        raise ConfigurationError(f"set_limit: {error}; None takes back what was set") from None


def _check_account(where: str, account: object) -> None:
    if not is_key(account):
        raise ConfigurationError(f"{where}: an account is text, as `per` names it, got {account!r:.80}")


def _moment(name: str, given: object, now: float) -> float:
    """Seconds since the epoch of what a person wrote."""
    if isinstance(given, datetime):
        if given.utcoffset() is None:
            raise ConfigurationError(
                f"history: {name}={given!r} has no time zone; write for example datetime.now(UTC) - timedelta(days=1), "
                "or timedelta(days=1) for a day ago"
            )
        return max(0.0, given.timestamp())
    if isinstance(given, timedelta):
        if given < timedelta(0):
            raise ConfigurationError(f"history: {name}={given!r} is in the future: a timedelta says how long ago")
        return max(0.0, now - given.total_seconds())
    if isinstance(given, (int, float)) and not isinstance(given, bool) and isfinite(given):
        return max(0.0, float(given))
    raise ConfigurationError(
        f"history: {name}={given!r:.80} is no moment: write a datetime with a time zone, a timedelta (ago), "
        "or seconds since the epoch"
    )
