"""Every number behind a refusal: as it stood then, and as it stands now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierline.display import duration, moment, money, table
from tierline.history import by_route_and_tier
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierline.history import History, Holds
    from tierline.values import Refusal, Standing
    from tierline.windows import Window


@dataclass(frozen=True, slots=True)
class Explained:
    """One budget of a call that was refused: `then`, and `now`."""

    then: Standing
    now: Standing
    set: bool
    """Whether the limit that holds now was set at run time, by `router.set_limit`."""

    def refuses(self, needed: int | None) -> bool:
        """Whether this one had no room for `needed` (nano-USD; None: no bound)."""
        return self.then.hard and (needed is None or needed > self.then.remaining)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A refusal, for a person: `str(explanation)` shows it all. Money in nano-USD, times in seconds since the epoch.

    `holds` are what is in flight now on the account that refused. `history` is where its money went since its window
    began, and None where spend is not kept by that kind of account; `spender` says whose it is.
    """

    refusal: Refusal
    at: float
    budgets: tuple[Explained, ...]
    holds: Holds
    history: History | None
    spender: str = ""

    @property
    def fits_now(self) -> bool:
        """Whether such a call would be admitted now."""
        needed = self.refusal.needed
        return needed is not None and all(not each.now.hard or needed <= each.now.remaining for each in self.budgets)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        refusal = self.refusal
        yield f"refused by budget {refusal.budget!r}, account {refusal.account!r}"
        yield from table(self._summary(), indent="  ")
        yield ""
        if self.budgets:
            yield from self._of_each()
        if len(self.holds):
            yield f"in flight on this account now: {len(self.holds)}, which hold {usd(self.holds.cost)}"
            yield from (f"  {line}" for line in str(self.holds).splitlines())
        else:
            yield "in flight on this account now: nothing"
        yield ""
        if self.history is None:
            yield "spend by hour is not kept by this kind of account: no more is known of where the money went"
            return
        yield f"where the money went: {self.spender}, in the hours since {moment(self.history.since)}"
        yield from (f"  {line}" for line in by_route_and_tier(self.history.rows))

    def _summary(self) -> Iterator[tuple[str, str]]:
        refusal = self.refusal
        if refusal.at:
            yield "when", f"{moment(refusal.at)}, {duration(self.at - refusal.at)} ago"
        if refusal.needed is None:
            yield "needed", f"no bound: {refusal.unbounded}"
        else:
            yield "needed", f"{usd(refusal.needed)} at most, for {refusal.tier or 'the cheapest tier'}"
            yield "had room for", usd(max(0, refusal.limit - refusal.spent - refusal.held))
        if refusal.renews_in is None:
            yield "renews", "never"
        elif refusal.at:
            yield "renews", self._when(refusal.at + refusal.renews_in)
        if refusal.needed is None:
            yield "now", "refused again: a hard budget takes no call without a bound"
        else:
            yield "now", "such a call fits" if self.fits_now else "such a call would be refused again"

    def _of_each(self) -> Iterator[str]:
        yield "every budget of the call, as it stood then and stands now"
        yield from table(self._standings(), right=(3, 4, 5, 6, 7), indent="  ")
        yield ""
        yield from table([(each.then.budget, *self._said(each)) for each in self.budgets], indent="  ")
        yield ""

    def _standings(self) -> Iterator[tuple[str, ...]]:
        yield "budget", "account", "", "limit", "spent", "held", "room", "share", "renews"
        shown = [standing for each in self.budgets for standing in (each.then, each.now)]
        columns = zip(
            money(standing.limit for standing in shown),
            money(standing.spent for standing in shown),
            money(standing.held for standing in shown),
            money(standing.remaining for standing in shown),
            strict=True,
        )
        for place, (standing, amounts) in enumerate(zip(shown, columns, strict=True)):
            then = place % 2 == 0
            yield (
                standing.budget if then else "",
                standing.account if then else "",
                "then" if then else "now",
                *amounts,
                f"{standing.share:.1%}",
                "never" if standing.renews_at is None else self._when(standing.renews_at),
            )

    def _said(self, each: Explained) -> tuple[str, str]:
        """Its window, and what it made of the call."""
        then, needed = each.then, self.refusal.needed
        if not each.refuses(needed):
            said = "had room" if then.hard else "soft: never refuses"
        elif needed is None:
            said = "refused: hard, and the call has no bound"
        else:
            chosen = (then.budget, then.account) == (self.refusal.budget, self.refusal.account)
            said = f"{'refused' if chosen else 'had no room either'}: {usd(needed - then.remaining)} short"
        if each.now.limit != then.limit:
            said += f"; limit changed since, from {usd(then.limit)}"
        if each.set:
            said += "; limit set at run time"
        return in_words(then.window), said

    def _when(self, at: float) -> str:
        past = at <= self.at
        return f"{moment(at)}, {duration(abs(at - self.at))} {'ago' if past else 'from now'}"


def in_words(window: Window) -> str:
    """A window as a person says it."""
    if window.unit == "total":
        return "for all time"
    if window.unit == "run":
        return "for a whole run"
    if window.unit == "rolling":
        return f"the last {str(window).removeprefix('/').removesuffix(' rolling')} before each call"
    return f"each {window.unit} in {window.timezone}"
