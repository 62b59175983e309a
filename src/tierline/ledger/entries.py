"""What a ledger is told later: one entry for each thing, as a value and as a line of text.

Every entry is idempotent by its id, so that it does no harm to tell one twice. Entries carry ids, accounts, amounts and
spans: no prompts and no keys.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from tierline.ledger.base import Origin, Reservation
from tierline.ledger.lines import fields_of, line_of
from tierline.values import Offer
from tierline.windows import Span

if TYPE_CHECKING:
    from tierline.budgets import Line

Kind = Literal["settle", "post", "release", "forget"]


class Entry(NamedTuple):
    """One thing to tell a ledger.

    `key` is the id of the reservation; a later entry of the same key replaces it. `due` is from when on it may be told,
    in seconds since the epoch: what is spent by a call in flight waits for its settlement until its lease ends, and is
    then told as estimated. `lines` are the accounts to forget.
    """

    kind: Kind
    key: str
    reservation: Reservation | None = None
    cost: int = 0
    estimated: bool = False
    due: float = 0.0
    lines: tuple[Line, ...] = ()


def bare(held: Reservation) -> Reservation:
    """A reservation without what only sending needs: that may be a part of a prompt."""
    offer = held.offer
    return held._replace(offer=Offer(offer.tier, offer.model, offer.cost, offer.input_cost), used=())


def written(entry: Entry) -> str:
    """An entry as JSON: only what a ledger needs to book it."""
    held = entry.reservation
    body: dict[str, Any] = {"kind": entry.kind, "cost": entry.cost, "estimated": entry.estimated}
    if held is not None:
        offer = held.offer
        body |= {
            "held": held.cost,
            "at": held.at,
            "unasked": held.unasked,
            "attempts": held.attempts,
            "origin": held.origin,
            "offer": (offer.tier, offer.model, offer.cost, offer.input_cost),
            "lines": [(*fields_of(line), span) for line, span in held.lines],
        }
    elif entry.lines:
        body["lines"] = [fields_of(line) for line in entry.lines]
    return json.dumps(body, separators=(",", ":"))


def read(key: str, due: float, body: str) -> Entry:
    """The entry in a row. ValueError, LookupError or TypeError for one that nobody here has written."""
    try:
        return _read(key, due, body)
    except (ArithmeticError, RecursionError) as error:  # numbers beyond all floats, JSON without a bottom
        raise ValueError(type(error).__name__) from error


def _read(key: str, due: float, body: str) -> Entry:
    found = json.loads(body)
    if found["kind"] not in get_args(Kind):
        raise ValueError(found["kind"])
    entry = Entry(found["kind"], key, None, found["cost"], found["estimated"], due)
    if "held" not in found:
        return entry._replace(lines=tuple(line_of(fields) for fields in found.get("lines", ())))
    reservation = Reservation(
        key,
        Offer(*found["offer"]),
        found["held"],
        tuple((line_of(fields), Span(*span)) for *fields, span in found["lines"]),
        at=found["at"],
        origin=Origin(*found["origin"]),
        unasked=found["unasked"],
        attempts=found["attempts"],
    )
    return entry._replace(reservation=reservation)
