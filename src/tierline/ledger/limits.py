"""Limits that operators have set, which stand over those of the app: the same for every ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tierline.budgets import Line

Limits: TypeAlias = dict[tuple[str, str | None], int]
"""By budget and account, in nano-USD; with None for an account: of those that have no limit of their own."""


def limit_of(limits: Limits, budget: str, account: str) -> int | None:
    """The limit that was set for an account; None where what the app says holds."""
    return limits.get((budget, account)) or limits.get((budget, None))


def limited(limits: Limits, line: Line) -> Line:
    """The line under the limit that was set for it, if one was."""
    limit = limit_of(limits, line.budget, line.account)
    return line if limit is None else line.limited(limit)
