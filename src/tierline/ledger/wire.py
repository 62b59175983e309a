"""How a ledger's values are written for the scripts in `lua/`, and read from what they answer.

Money goes as decimal text, for a number of Lua is exact up to 2^53 only; times as text that gives the same float again.
"""

from __future__ import annotations

import json
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.budgets import Line
from tierline.ledger.base import Alert, Balance, Hold, Spent
from tierline.ledger.checks import plain
from tierline.ledger.limits import limit_of
from tierline.windows import Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tierline.ledger.base import Origin
    from tierline.ledger.limits import Limits
    from tierline.values import Offer
    from tierline.windows import Span


def dumps(value: object) -> str:
    """JSON without blanks, in ASCII."""
    return json.dumps(value, separators=(",", ":"))


def text(seconds: float) -> str:
    """A time, or a length of time."""
    return "inf" if seconds == inf else f"{seconds:.17g}"


class Form(NamedTuple):
    """A line as scripts are given it: what stays the same from call to call."""

    name: str
    """Budget, account and series of the window, as JSON."""
    kept: str
    """What is kept of it with the account, as JSON."""
    head: str
    """The beginning of the array that a script is given, without its bracket."""


@lru_cache(maxsize=4096)
def form(line: Line, limit: int = 0) -> Form:
    """The form of a line; `limit` is that of the app, where another one was set over it."""
    name = dumps([line.budget, line.account, line.window.series])
    alerts = [str(amount) for amount in line.alerts]
    kept = dumps(
        {
            "budget": line.budget,
            "account": line.account,
            "series": line.window.series,
            "limit": str(limit or line.limit),
            "hard": line.hard,
            "rolls": line.window.rolls,
            "alerts": alerts,
            "shares": [repr(share) for share in line.alert_at],
            "whole": bool(line.alert_at) and line.alert_at[-1] == 1,
        }
    )
    head = [
        name,
        int(line.window.rolls),
        kept,
        alerts[0] if alerts else "",
        "" if line.downgrade_at is None else str(line.downgrade_from),
        "" if line.cheapest_at is None else str(line.cheapest_from),
        int(line.hard),
    ]
    return Form(name, kept, dumps(head)[1:-1])


def placed(line: Line, span: Span, limit: int = 0) -> str:
    """A line with its span, for `post` and `restore`; `limit` as for `form`."""
    return f'[{form(line, limit).head},"{text(span.start)}","{text(span.end)}",[]]'


def asked(lines: Iterable[tuple[Line, Line, Span]], costs: Sequence[int | None]) -> str:
    """Lines for `reserve`: as the app has them, under the limits that were set, and their spans.

    With each goes how much it may have used so that an offer fits.
    """
    parts = []
    for own, line, span in lines:
        room = ""
        if line.hard:
            limit = line.limit
            room = ",".join('""' if cost is None or cost > limit else f'"{limit - cost}"' for cost in costs)
        parts.append(f'[{form(line, own.limit).head},"{text(span.start)}","{text(span.end)}",[{room}]]')
    return f"[{','.join(parts)}]"


def kept_of(origin: Origin, at: float | None = None) -> dict[str, Any]:
    """What is kept of a hold, beside what the script knows."""
    tenant, route = origin.tenant and plain(origin.tenant), origin.route and plain(origin.route)
    return {
        "row": dumps([tenant, route])[:-1] + ",",
        "nobody": dumps([None, route])[:-1] + ",",
        "own": origin.own,
        "tenant": tenant,
        "route": route,
    } | ({} if at is None else {"at": text(at)})


def whole_row(kept: dict[str, Any], offer: Offer) -> dict[str, Any]:
    """The same, with the tier in its rows: for a hold that was made elsewhere."""
    name, model = plain(offer.tier), plain(offer.model)
    tier = f"{dumps(name)}]"
    return kept | {"row": kept["row"] + tier, "nobody": kept["nobody"] + tier, "tier": name, "model": model}


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """A hash."""
    return dict(zip(flat[::2], flat[1::2], strict=True)) if flat else {}


def read_limits(flat: Sequence[str]) -> Limits:
    """The limits that were set."""
    found: Limits = {}
    for field, limit in pairs(flat).items():
        budget, account = json.loads(field)
        found[budget, account] = int(limit)
    return found


class Part(NamedTuple):
    """What an account has used and spent in one of its spans."""

    start: str
    end: float
    used: int
    spent: int


_LINES: Final = 16_384
"""Lines that are remembered as they were read."""


@lru_cache(maxsize=_LINES)
def _line_of(kept: str) -> Mapping[str, Any]:
    """What is kept of a line. It hardly changes, and whoever looks at all accounts looks again."""
    line: dict[str, Any] = json.loads(kept)
    return line


def parts_of(fields: Mapping[str, str]) -> list[Part]:
    """The spans of an account, oldest first."""
    ends = [(field[1:], float(end)) for field, end in fields.items() if field[0] == "@"]
    if not _line_of(fields["l"])["rolls"]:
        # Only one span counts at a time: its parts are the totals.
        used, spent = int(fields["U"]), int(fields["S"])
        found = [Part(start, end, used, spent) for start, end in ends]
    else:
        found = [
            Part(start, end, int(fields.get(f"u{start}", "0")), int(fields.get(f"s{start}", "0")))
            for start, end in ends
        ]
    return found if len(found) < 2 else sorted(found, key=lambda part: float(part.start))  # noqa: PLR2004


def read_balance(row: Sequence[Any]) -> tuple[int, Balance]:
    """An account as operators see it, with its generation: the later it came to be, the higher that is."""
    generation, (budget, account, series), used, spent, estimated, limit, hard, end = row
    renews_at = None if end is None else float(end)
    return generation, Balance(budget, account, spent, used - spent, limit, renews_at, estimated, hard, series)


def read_hold(key: str, left: float, now: float, record: str) -> Hold | None:
    """A hold as operators see it: of a slice, what is in flight; None where that is nothing."""
    kept = json.loads(record)
    cost, idle = int(kept["cost"]), int(kept.get("idle", "0"))
    if idle == cost > 0:
        return None
    names = [json.loads(slot[0]) for slot in kept["slots"]]
    return Hold(
        key,
        kept["tier"],
        kept["model"],
        cost - idle,
        float(kept["at"]),
        now + left,
        tuple((budget, account) for budget, account, _ in names),
        kept["tenant"] or None,
        kept["route"] or None,
    )


_COLUMNS: Final = {"a": 0, "c": 1, "o": 2, "e": 3}


def read_hour(hour: float, flat: Sequence[str]) -> list[Spent]:
    """Spend of one hour."""
    rows: dict[tuple[str | None, str | None, str], list[int]] = {}
    for field, amount in pairs(flat).items():
        tenant, route, tier = json.loads(field[1:])
        rows.setdefault((tenant, route, tier), [0, 0, 0, 0])[_COLUMNS[field[0]]] += int(amount)
    return [Spent(hour, *key, *row) for key, row in rows.items() if row[0] or row[1]]


def read_alerts(noted: Sequence[Sequence[Any]], limits: Limits) -> list[Alert]:
    """Alerts that a script has noted."""
    found = []
    for budget, account, share, spent, limit, renews, refused in noted:
        ends = float(renews)
        now_limit = limit_of(limits, budget, account) or int(limit)
        found.append(
            Alert(budget, account, float(share), int(spent), now_limit, None if ends == inf else ends, bool(refused))
        )
    return found


def realarmed(kept: str, limits: Limits) -> tuple[str, str]:
    """What is kept of a line, and its first alert, under the limits as they are now."""
    line = json.loads(kept)
    limit = limit_of(limits, line["budget"], line["account"]) or int(line["limit"])
    shares = tuple(map(float, line["shares"]))
    line["alerts"] = [str(amount) for amount in Line("", "", limit, Window("total"), alert_at=shares).alerts]
    return dumps(line), line["alerts"][0] if shares else ""
