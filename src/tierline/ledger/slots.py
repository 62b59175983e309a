"""What accounts have spent and hold in the spans of their windows, in the memory of a process."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tierline.budgets import Line
    from tierline.windows import Span

_FEW: Final = 64
_AT_A_TIME: Final = 8
"""Of how many accounts the end is looked at in one step: more than a call opens, so that they shrink."""

Name: TypeAlias = tuple[str, str, str]
"""A budget's name, the account, and the series of a window."""


class Slot:
    """What an account has spent and holds in one span, in nano-USD."""

    __slots__ = ("account", "end", "estimated", "held", "spent", "start", "told")

    def __init__(self, account: Account, span: Span) -> None:
        self.account = account
        self.start, self.end = span.start, span.end
        self.spent = self.held = self.estimated = self.told = 0


class Account:
    """One account of a budget: the line that it was last given, and its spans that count, oldest first.

    Nothing is alerted of while the `spent` of one span is below `alarm`. At `due` it is looked at whether they have
    all ended.
    """

    __slots__ = ("alarm", "due", "line", "slots")

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.due: float | None = None

    def take(self, line: Line, *, limited: bool) -> None:
        """What the app says of it now; `limited` where an operator may have said something else."""
        self.line = line
        self.alarm: float = inf
        if line.alerts:
            self.alarm = 0 if limited or line.window.rolls else line.alerts[0]

    def live(self, now: float) -> list[Slot]:
        """The slots that count. Those that have ended are dropped: holds keep theirs."""
        slots = self.slots
        while slots and slots[0].end <= now:
            del slots[0]
        return slots

    def slot(self, span: Span) -> Slot:
        """The slot of a span; a new one if there is none."""
        slots = self.slots
        for slot in reversed(slots):
            if slot.start == span.start:
                return slot
        slot = Slot(self, span)
        slots.append(slot)
        if len(slots) > 1 and slots[-2].start > slot.start:
            slots.sort(key=attrgetter("start"))
        return slot


class Accounts(dict[Name, Account]):
    """Accounts by name. Those whose spans have all ended are dropped, a few at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.endings: list[tuple[float, Name]] = []  # a heap: the next account to look at is first

    def expect(self, name: Name, account: Account) -> None:
        """Look at this account when its newest span has ended."""
        account.due = account.slots[-1].end
        if account.due != inf:
            heappush(self.endings, (account.due, name))

    def prune(self, now: float) -> None:
        """Look at some of those that are due."""
        for _ in range(_AT_A_TIME):
            if not self.endings or self.endings[0][0] > now:
                break
            due, name = heappop(self.endings)
            account = self.get(name)
            if account is None or account.due != due:
                continue  # what had this name was forgotten, and another may have it now
            if account.live(now):
                self.expect(name, account)
            else:
                del self[name]

    def forget(self, names: Iterable[Name]) -> None:
        """Drop accounts. Holds keep their slots, which count nowhere any more."""
        for name in names:
            account = self.pop(name, None)
            if account is not None:
                account.slots.clear()
        if len(self.endings) > 2 * len(self) + _FEW:
            # What was forgotten left its ending behind: an account for each request would fill a month of them.
            self.compact()

    def compact(self) -> None:
        """Leave no name behind of accounts that are gone."""
        self.endings = [(due, name) for name, account in self.items() if (due := account.due) not in (None, inf)]
        heapify(self.endings)
