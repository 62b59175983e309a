"""Telling a ledger what stands in a journal."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tierline.errors import LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tierline.ledger.base import Ledger
    from tierline.ledger.journal import Journal, Kept

log: Final = logging.getLogger("tierline")

_MOST_TAKEN: Final = 128
"""How many entries are taken from the journal in one step."""
_AT_ONCE: Final = 8
"""How many of them are told at a time: a ledger that is just back has much to do."""


async def deliver(journal: Journal, ledger: Ledger, clock: Callable[[], float]) -> AsyncIterator[int]:
    """Tell `ledger` all that may be told, and say after each step how much that was.

    LedgerUnavailableError where it goes away: what it was not told stays in the journal. What it rejects as a mistake
    is set aside, for that must not hold up the others.
    """
    known = 0
    while kept := await journal.due(clock(), _MOST_TAKEN):
        told: list[int] = []
        try:
            for begin in range(0, len(kept), _AT_ONCE):
                some = kept[begin : begin + _AT_ONCE]
                for last in (False, True):  # accounts are forgotten after they were charged
                    telling = [_tell(journal, ledger, each) for each in some if (each.entry.kind == "forget") is last]
                    for answer in await asyncio.gather(*telling, return_exceptions=True):
                        if isinstance(answer, BaseException):
                            raise answer
                        told += answer
        finally:
            await journal.drop(told)
        yield len(told)
        if kept[0].number == known:
            break  # the file cannot be written now, and would say the same again and again
        known = kept[0].number


async def _tell(journal: Journal, ledger: Ledger, kept: Kept) -> list[int]:
    """Tell the ledger an entry. Its number; nothing where it can never be told."""
    entry = kept.entry
    held = entry.reservation
    try:
        if entry.kind == "release":
            await ledger.release(entry.key)
        elif entry.kind == "forget":
            await ledger.forget(entry.lines)
        elif held is not None and entry.kind == "settle":
            await ledger.settle(held, entry.cost, estimated=entry.estimated)
        elif held is not None:
            await ledger.post(held, entry.cost, estimated=entry.estimated)
    except LedgerUnavailableError:
        raise
    except Exception as error:  # noqa: BLE001
        log.error("an entry of the journal cannot be told: %s %s", type(error).__name__, entry.key)  # noqa: TRY400
        await journal.set_aside(kept.number)
        return []
    return [kept.number]
