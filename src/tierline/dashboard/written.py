"""What the page is sent, as JSON.

Money is text of an integer in nano-USD: numbers of JavaScript are exact to nine million dollars only. Names come from
outside and are data: they stand in JSON alone, with all that is not ASCII escaped, and cut off where nobody reads on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierline.dashboard.forecast import Forecast
    from tierline.ledger.base import Balance
    from tierline.traffic.base import Counts

LONGEST: Final = 2_000
"""Most characters of a text. Tenants, routes and models may be called anything."""
_MONEY: Final = ("cost", "saved", "classifier_cost", "grading_cost")


def json_of(value: object) -> bytes:
    """JSON in ASCII. Half of a surrogate pair, which is no text, is an escape like any other."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def cut(text: str) -> str:
    """A text that is not too long to show."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def counts(of: Counts) -> dict[str, Any]:
    """What calls did."""
    return {
        "calls": of.calls,
        "cost": str(of.cost),
        "own": str(of.own),
        "estimated": str(of.estimated),
        "top": str(of.top),
        "lookups": of.lookups,
        "hits": of.hits,
        "downgrades": of.downgrades,
        "escalations": of.escalations,
        "fallbacks": of.fallbacks,
        "refusals": of.refusals,
        "failures": of.failures,
        "batched": of.batched,
    }


def named(sums: Mapping[str, Counts]) -> list[dict[str, Any]]:
    """Sums by name, in their order."""
    return [{"name": cut(name), **counts(of)} for name, of in sums.items()]


def balance_row(balance: Balance, share: float, ahead: Forecast, *, overridden: bool) -> dict[str, Any]:
    """One account of one budget."""
    return {
        "budget": balance.budget,
        "account": balance.account,
        "hard": balance.hard,
        "window": balance.window,
        "limit": str(balance.limit),
        "spent": str(balance.spent),
        "held": str(balance.held),
        "estimated": str(balance.estimated),
        "share": round(share, 6),
        "renews_at": balance.renews_at,
        "burn": None if ahead.burn is None else str(ahead.burn),
        "forecast": None if ahead.end is None else str(ahead.end),
        "runs_out_at": ahead.runs_out_at,
        "overridden": overridden,
    }


def decision_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a decision, with its money as text. Of a prompt nothing, even where somebody had it written."""
    row = {key: _shown(value) for key, value in record.items() if key != "text"}
    for key in _MONEY:
        row[key] = _money(record.get(key))
    row["attempts"] = [
        {**_shown(attempt), "cost": _money(attempt.get("cost"))} for attempt in record.get("attempts") or ()
    ]
    return row


def _money(nano: object) -> str | None:
    return str(nano) if isinstance(nano, int) else None


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, dict):
        return {cut(str(key)): _shown(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(each) for each in value]
    return value
