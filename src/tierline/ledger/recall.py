"""What a process remembers of a store, so that a store that has lost its data can be given them back."""

from __future__ import annotations

import json
import os
import secrets
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.ledger.wire import Part, dumps, form, kept_of, parts_of, placed, text, whole_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tierline.ledger.base import Reservation

_MOST: Final = 20_000
"""Most spans of accounts, and most holds, that are remembered. Who has had more cannot give back all."""
_CHUNK: Final = 500
"""How many of them are given back at a time."""


class _Total(NamedTuple):
    kept: str
    """The account's line, as `Form.kept`."""
    end: str
    spent: int


class Recall:
    """The epoch of a store, who else used it, and the last that this process saw of each account.

    Safe across threads. A forked child begins with nothing: what its parent knows, the parent gives back.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self.reborn()

    def reborn(self) -> None:
        """Become a member of one's own."""
        self.pid = os.getpid()
        self.member = secrets.token_hex(8)
        self.epoch = ""
        self.seen = 0.0
        """The latest time of the store, under that epoch."""
        self.met = 0.0
        """When it was last asked who else is there."""
        self.holds: OrderedDict[str, Reservation] = OrderedDict()
        self.forget()

    def forget(self) -> None:
        """These are other data."""
        self.members: frozenset[str] = frozenset()
        """Who used the store too, when it was last heard of."""
        self.stale = True
        """Whether balances have to be read."""
        self.forget_totals()

    def forget_totals(self) -> None:
        """Balances are read anew."""
        with self._lock:
            self.cursor = "0"
            """How far they have been read."""
            self.whole = True
            self._totals: OrderedDict[tuple[str, str], _Total] = OrderedDict()

    def dropped(self, names: Sequence[str]) -> None:
        """These accounts are gone."""
        gone = set(names)
        with self._lock:
            for key in [key for key in self._totals if key[0] in gone]:
                del self._totals[key]

    # What is seen

    def account(self, name: str, fields: Mapping[str, str]) -> None:
        """An account as it is now."""
        for part in parts_of(fields):
            self._note(name, part, fields["l"])

    def charged(self, reservation: Reservation, spent: Sequence[Sequence[str]]) -> None:
        """What `settle` or `post` answered: name, start and what is spent there, for each slot that is left."""
        lines = reservation.lines
        for place, each in enumerate(spent):
            if not each:
                continue
            name, start, amount = each
            if len(spent) == len(lines) and name == form(lines[place][0]).name:
                line, span = lines[place]
            else:
                line, span = next(found for found in lines if form(found[0]).name == name)
            self._note(name, Part(start, span.end, 0, int(amount)), form(line).kept)

    def _note(self, name: str, part: Part, kept: str) -> None:
        key = (name, part.start)
        with self._lock:
            known = self._totals.get(key)
            # Answers overtake each other: the most that was seen is the latest, but for a late settlement.
            if known is None or part.spent > known.spent:
                self._totals[key] = _Total(kept, text(part.end), part.spent)
                if known is None:
                    self._bound()

    def _bound(self) -> None:
        while len(self._totals) > _MOST:
            _, dropped = self._totals.popitem(last=False)
            if float(dropped.end) > self.seen:
                self.whole = False

    def held(self, reservation: Reservation) -> None:
        """A hold of this process."""
        self.holds[reservation.id] = reservation
        while len(self.holds) > _MOST:
            self.holds.popitem(last=False)

    def ended(self, key: str) -> None:
        """It has ended."""
        self.holds.pop(key, None)

    # What is given back

    def chunks(self, limits: Mapping[tuple[str, str | None], int]) -> Iterator[str]:
        """All that this process knows, for `restore`, bounded at a time. The last chunk says that it is all."""
        with self._lock:
            totals = [
                self._total(name, start, total)
                for (name, start), total in self._totals.items()
                if float(total.end) > self.seen and total.spent
            ]
        holds = [self._hold(reservation) for reservation in tuple(self.holds.values())]
        set_limits = [[dumps(key), str(limit)] for key, limit in limits.items()]
        rest: dict[str, Any] = {"seen": self.seen, "met": self.met, "members": sorted(self.members | {self.member})}
        for first in range(0, max(len(totals), len(holds), 1), _CHUNK):
            last = first + _CHUNK >= max(len(totals), len(holds))
            yield dumps(
                rest
                | {
                    "totals": totals[first : first + _CHUNK],
                    "holds": holds[first : first + _CHUNK],
                    "limits": set_limits if last else [],
                    "whole": last and self.whole and not self.stale,
                }
            )

    def nothing(self) -> str:
        """The same, from one who gives nothing back."""
        return dumps(
            {"seen": self.seen, "met": 0, "members": [], "totals": [], "holds": [], "limits": [], "whole": False}
        )

    def _total(self, name: str, start: str, total: _Total) -> list[Any]:
        line = json.loads(total.kept)
        first_alert = line["alerts"][0] if line["alerts"] else ""
        head = [name, int(line["rolls"]), total.kept, first_alert, "", "", int(line["hard"])]
        return [[*head, start, total.end, []], str(total.spent)]

    def _hold(self, held: Reservation) -> list[Any]:
        record = whole_row(kept_of(held.origin, held.at), held.offer) | {
            "cost": str(held.cost),
            "used": [str(used) for used in held.used],
            "offer": held.skipped + 1,
        }
        lines = {form(line).name: json.loads(placed(line, span)) for line, span in held.lines}
        return [held.id, record | {"lines": [form(line).name for line, _ in held.lines]}, list(lines.values())]
