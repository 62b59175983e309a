"""Budgets: how much may be spent, by whom, in which window.

    Budget   what the app writes: "$2/hour" for each tenant
    Line     one account of a budget, with the limit that holds for it: what a ledger works on

Everything here computes and nothing stores: balances are kept by `tierline.ledger`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, get_args

from tierline.errors import ConfigurationError
from tierline.values import NANO
from tierline.windows import RUN_KEPT, UTC_NAME, Window, check_timezone, parse_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tierline.values import Offer

Scope: TypeAlias = MutableMapping[str, Any]
"""An ASGI scope."""

Per = Literal["tenant", "route", "request", "run"]

GLOBAL_ACCOUNT: Final = "global"
"""The one account of a budget without `per`."""
DEFAULT_ACCOUNT: Final = "default"
"""The account of all who cannot be told apart: nobody is unmetered for want of a name."""

_RUN: Final = Window("run", seconds=RUN_KEPT)
RUN_SERIES: Final = _RUN.series
"""What stores call the window of totals for runs."""

LONGEST_NAME: Final = 200
"""Most characters of a budget's name and of an account: both become keys of stores and labels of metrics."""
MOST_MONEY: Final = 1_000_000_000 * NANO
"""$1,000,000,000 in nano-USD. Sums of such limits stay inside a 64-bit integer of a store."""
MOST_ALERTS: Final = 30
"""Most shares of `Budget(alert_at=…)`: ledgers keep those that were told as bits of an integer."""

_MONEY: Final = re.compile(r"\$(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?P<fraction>\.[0-9]+)?")
_SLASH: Final = re.compile(r"\s*/\s*")
_NANO_DIGITS: Final = 9
_DOLLAR_DIGITS: Final = 15
_NEVER: Final = 1 << 200
"""A threshold that no balance reaches."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How much (`nano`-USD, above 0) in each window."""

    nano: int
    window: Window


@dataclass(frozen=True, slots=True)
class Line:
    """One account of one budget, and the limit (nano-USD) that holds for it.

    `downgrade_from` and `cheapest_from` are the thresholds in nano-USD: the least (spent + held) that is at or
    above the share. A threshold that is None is out of reach. `alarm_from` is the lower one. `alerts` are the least
    amounts spent at or above the shares of `alert_at`, rising.
    """

    budget: str
    account: str
    limit: int
    window: Window
    hard: bool = True
    downgrade_at: float | None = None
    cheapest_at: float | None = None
    alert_at: tuple[float, ...] = ()
    downgrade_from: int = field(init=False, repr=False, compare=False)
    cheapest_from: int = field(init=False, repr=False, compare=False)
    alarm_from: int = field(init=False, repr=False, compare=False)
    alerts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        downgrade, cheapest = _threshold(self.limit, self.downgrade_at), _threshold(self.limit, self.cheapest_at)
        object.__setattr__(self, "downgrade_from", downgrade)
        object.__setattr__(self, "cheapest_from", cheapest)
        object.__setattr__(self, "alarm_from", min(downgrade, cheapest))
        object.__setattr__(self, "alerts", tuple(_threshold(self.limit, share) for share in self.alert_at))

    @property
    def softened(self) -> Line:
        """The same account, of a budget that only records."""
        return _softened(self)

    def limited(self, limit: int) -> Line:
        """The same account under another limit (nano-USD, above 0)."""
        return self if limit == self.limit else _limited(self, limit)


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit over a window, for each account.

    - `amount`: `"$5/day"`, with /minute, /hour, /day, /month; `"$5/24h rolling"`, with m, h or d, for the time before
      each call; or nothing for a total. Or a function that is given the account and returns such a text (plans): it is
      asked at every call, so it should be quick
    - `per`: whose limit it is: `"tenant"`, `"route"`, `"request"`, `"run"`, or a function of the ASGI scope that
      returns the account. None: one account for all. Who has no account shares the account `default`. Runs are each
      tenant's own, and a request (or job) that names none is a run of its own; a total for runs counts each charge for
      seven days
    - `name`: by which reports and errors call it; made of the above if it is empty
    - `hard`: refuses what does not fit. A soft budget records and warns, and never refuses
    - `downgrade_at`, `cheapest_at`: shares of the limit, above 0 and at most 1. From the first on, the tier that was
      asked for is left out; from the second on, only the cheapest legal one stays. None: never
    - `timezone`: in which days begin: `"Europe/Berlin"`. UTC if it is not given
    - `alert_at`: shares of the limit, rising, at which `Router(on_budget=…)` is called, once in each window: when so
      much is spent. 1.0 is also reached where a call is refused for want of room

    A rolling window moves on in 60 steps: what is spent counts for its length, and for at most a sixtieth of it more.

    ConfigurationError where that cannot work.
    """

    amount: str | Callable[[str], str]
    per: Per | Callable[[Scope], str | None] | None = None
    name: str = ""
    hard: bool = True
    downgrade_at: float | None = 0.7
    cheapest_at: float | None = 0.9
    timezone: str = UTC_NAME
    alert_at: tuple[float, ...] = (0.8, 1.0)
    _fixed: Callable[[str], Line] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not callable(self.per) and self.per is not None and self.per not in get_args(Per):
            raise ConfigurationError(
                f'Budget({self.amount!r}, per={self.per!r}): `per` is "tenant", "route", "request", "run", '
                "a function of the ASGI scope, or None"
            )
        check_timezone(self.timezone)
        limit = None if callable(self.amount) else self.limit_of("")
        name = self.name or _default_name(self)
        if not is_key(name):
            raise ConfigurationError(
                f"Budget(name={name!r:.80}): a name is text of at most {LONGEST_NAME} printable characters"
            )
        object.__setattr__(self, "name", name)
        self._check_thresholds()
        if limit is not None:
            # Accounts come from outside: the cache is bounded.
            object.__setattr__(self, "_fixed", lru_cache(maxsize=4096)(lambda account: self._line(account, limit)))

    def account_of(
        self, scope: Scope | None, *, tenant: str | None, route: str | None, request: str, run: str | None = None
    ) -> str:
        """Whose limit this call counts on: `request` is the id of the request, the others are None where unknown.

        What belongs to no run is a run of its own.

        ConfigurationError where a function of the app returned something that is no text.
        """
        account: str | None
        if self.per is None:
            return GLOBAL_ACCOUNT
        if callable(self.per):
            account = None if scope is None else self.per(scope)
        else:
            whole = request if run is None else run_account(tenant, run)
            account = {"tenant": tenant, "route": route, "request": request, "run": whole}[self.per]
        if account is None or account == "":
            return DEFAULT_ACCOUNT
        if not is_key(account):
            raise ConfigurationError(
                f"budget {self.name!r}: `per` gave {account!r:.80} as the account; it must be None or text "
                f"of at most {LONGEST_NAME} printable characters"
            )
        return account

    def limit_of(self, account: str) -> Limit:
        """The limit that holds for `account`. ConfigurationError where the app's function returned nonsense."""
        if not callable(self.amount):
            return self._parsed(self.amount)
        amount: object = self.amount(account)
        try:
            return self._parsed(amount)
        except ConfigurationError as error:
            raise ConfigurationError(f"budget {self.name!r}, account {account!r:.80}: {error}") from error

    @property
    def told(self) -> bool:
        """Whether the line of a call follows from its route and its tenant alone, and asks no function of the app's."""
        return self.per in (None, "tenant", "route") and self._fixed is not None

    def _parsed(self, amount: object) -> Limit:
        limit = parse_limit(amount, self.timezone)
        # Runs come and go: a total for each of them, kept for ever, would fill any store.
        return Limit(limit.nano, _RUN) if self.per == "run" and limit.window.unit == "total" else limit

    def line(self, account: str) -> Line:
        """The line of `account`. Errors as for `limit_of`."""
        return self._line(account, self.limit_of(account)) if self._fixed is None else self._fixed(account)

    def _line(self, account: str, limit: Limit) -> Line:
        return Line(
            self.name, account, limit.nano, limit.window, self.hard, self.downgrade_at, self.cheapest_at, self.alert_at
        )

    def _check_thresholds(self) -> None:
        shares: tuple[tuple[str, object], ...] = (
            ("downgrade_at", self.downgrade_at),
            ("cheapest_at", self.cheapest_at),
        )
        for word, value in shares:
            if value is not None and not _is_share(value):
                raise ConfigurationError(
                    f"budget {self.name!r}: {word}={value!r} must be a share above 0 and at most 1, or None"
                )
        if self.downgrade_at is not None and self.cheapest_at is not None and self.downgrade_at > self.cheapest_at:
            raise ConfigurationError(
                f"budget {self.name!r}: downgrade_at={self.downgrade_at} is above cheapest_at={self.cheapest_at}; "
                "the first step comes first"
            )
        alerts: Any = self.alert_at
        if isinstance(alerts, list):  # as people write it: but a budget is hashable
            alerts = tuple(alerts)
            object.__setattr__(self, "alert_at", alerts)
        if not (
            isinstance(alerts, tuple)
            and len(alerts) <= MOST_ALERTS
            and all(map(_is_share, alerts))
            and all(lower < higher for lower, higher in pairwise(alerts))
        ):
            raise ConfigurationError(
                f"budget {self.name!r}: alert_at={alerts!r:.80} must be shares above 0 and at most 1, each higher than "
                f"the one before it, such as (0.5, 0.8, 1.0), and at most {MOST_ALERTS} of them"
            )


def parse_money(text: object) -> int:
    """Nano-USD of an amount such as "$5", "$0.50" or "$1,000".

    At most nine decimals, above 0 and at most $1,000,000,000. ConfigurationError for all else.
    """
    match = _MONEY.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ConfigurationError(f'{text!r:.80} is not an amount of money; write for example "$5" or "$0.50"')
    fraction = match["fraction"] or ""
    if len(fraction) > 1 + _NANO_DIGITS:
        raise ConfigurationError(f'{text!r:.80} has more than nine decimals; write for example "$0.000000001"')
    # A number too long to be money is not worth computing with.
    digits = match["whole"].replace(",", "")
    nano = int(Decimal(digits + fraction) * NANO) if len(digits) <= _DOLLAR_DIGITS else MOST_MONEY + 1
    if not 0 < nano <= MOST_MONEY:
        raise ConfigurationError(f'{text!r:.80} must be above $0 and at most $1,000,000,000; write for example "$5"')
    return nano


@lru_cache(maxsize=1024)
def _limit(text: str, timezone: str) -> Limit:
    money, slash, window = (part.strip() for part in text.partition("/"))
    try:
        nano = parse_money(money)
        return Limit(nano, parse_window(window, timezone) if slash else Window("total"))
    except ConfigurationError as error:
        raise ConfigurationError(f"{text!r:.80}: {error}") from None


def parse_limit(text: object, timezone: str = UTC_NAME) -> Limit:
    """The limit in "$5/day", "$5/24h rolling" or "$5"; spaces may stand around the slash.

    `timezone` is that of the calendar. ConfigurationError for all else.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f'{text!r:.80} is not a limit; write for example "$5/day", or "$5" for a total')
    return _limit(text, timezone)


def check_budgets(budgets: Iterable[Budget], apart: Iterable[Budget] = ()) -> None:
    """ConfigurationError where two of these budgets have one name: their balances would be one.

    One of those `apart` may not even be one of the others.
    """
    seen: dict[str, Budget] = {}
    kept = {budget.name for budget in apart}
    for budget in budgets:
        if seen.setdefault(budget.name, budget) != budget or budget.name in kept:
            raise ConfigurationError(f'two budgets are called {budget.name!r}; give one of them another name, name="…"')


class Fit(NamedTuple):
    """Which of several offers a call may have: the one after `skipped` others, for the sake of budget `tight`.

    Thresholds left out the first `left_out`. Where none has room, `skipped` is their number.
    """

    skipped: int
    left_out: int
    tight: str


def first_fit(offers: Sequence[Offer], lines: Sequence[Line], used: Sequence[int], *, thresholds: bool) -> Fit:
    """The first offer that every hard line has room for. Pure: a ledger calls it inside of its atomic step.

    `used` has for each line its spent + held before this call, in nano-USD. `thresholds` says whether lines may
    leave out the dearer offers before they are full.
    """
    room: int | None = None
    narrowest, alarm = "", False
    for line, amount in zip(lines, used, strict=True):
        if amount >= line.alarm_from:
            alarm = True
        if line.hard and (room is None or line.limit - amount < room):
            room, narrowest = line.limit - amount, line.budget
    first, tight = within_thresholds(len(offers), zip(lines, used, strict=True)) if alarm and thresholds else (0, "")
    for skipped in range(first, len(offers)):
        cost = offers[skipped].cost
        if room is None or (cost is not None and cost <= room):
            return Fit(skipped, first, tight)
        tight = narrowest
    return Fit(len(offers), first, tight)


def within_thresholds(n_offers: int, used: Iterable[tuple[Line, int]]) -> tuple[int, str]:
    """The first of `n_offers` offers that the thresholds leave in, and the budget that left out those before it.

    Offers are ordered from the tier that was asked for down to the cheapest legal one. `used` has for each line
    its spent + held before this call, in nano-USD. At `downgrade_at` of any line the first offer is left out, at
    `cheapest_at` all but the last. One always stays. The name is empty where nothing is left out.
    """
    last = n_offers - 1
    start, tight = 0, ""
    if last < 1:
        return start, tight
    for line, amount in used:
        if amount >= line.cheapest_from and start < last:
            start, tight = last, line.budget
        elif amount >= line.downgrade_from and not start:
            start, tight = 1, line.budget
    return start, tight


@lru_cache(maxsize=4096)
def _softened(line: Line) -> Line:
    return replace(line, hard=False)


@lru_cache(maxsize=4096)
def _limited(line: Line, limit: int) -> Line:
    return replace(line, limit=limit)


@lru_cache(maxsize=1024)
def _threshold(limit: int, share: float | None) -> int:
    # The share as it was written: 0.7 is seven tenths, and not the float below it.
    return _NEVER if share is None else ceil(limit * Fraction(repr(float(share))))


def _default_name(budget: Budget) -> str:
    amount = _name_of(budget.amount) if callable(budget.amount) else _SLASH.sub("/", " ".join(budget.amount.split()))
    if budget.per is None:
        return amount
    return f"{amount} per {_name_of(budget.per) if callable(budget.per) else budget.per}"


def _name_of(function: Callable[..., object]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _is_share(value: object) -> bool:
    # NaN fails here too: it compares with nothing.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1


def run_account(tenant: str | None, run: str) -> str:
    """The account of a run: `nightly`, and of a tenant `acme/nightly`. No two tenants' runs have the same one."""
    return _escaped(run) if not tenant else f"{_escaped(tenant)}/{run}"


def is_run_of(tenant: str, account: str) -> bool:
    """Whether an account is that of a run of this tenant."""
    return account.startswith(f"{_escaped(tenant)}/")


def _escaped(name: str) -> str:
    """A name without a slash, as in a JSON pointer: two names are never written alike."""
    return name.replace("~", "~0").replace("/", "~1")


def is_key(text: object) -> bool:
    """Whether this can be the name of a budget or an account."""
    return isinstance(text, str) and 0 < len(text) <= LONGEST_NAME and text.isprintable()
