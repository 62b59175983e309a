"""What may be charged and set: the same for every ledger, so that nothing else reaches a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierline.budgets import LONGEST_NAME, MOST_MONEY
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.values import Offer


def plain(name: str) -> str:
    """A name as stores keep it: no longer than that of an account, and without what is no character.

    A tenant or a model may be what somebody outside has sent: half a surrogate pair cannot be written anywhere.
    """
    name = name[:LONGEST_NAME]
    return name if name.isascii() else name.encode("utf-8", "replace").decode()


def check_seconds(of: str, **given: object) -> None:
    """ConfigurationError where one of the arguments of `of` is no number of seconds above 0."""
    for word, value in given.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise ConfigurationError(f"{of}({word}={value!r:.40}): that is a number of seconds above 0")


def checked_cost(cost: int) -> int:
    """The cost. ValueError where it is no whole number of nano-USD, at least 0."""
    if type(cost) is not int or cost < 0:
        raise ValueError(f"a cost is a whole number of nano-USD, at least 0, not {cost!r:.40}")
    return cost


def bounded_cost(cost: int) -> int:
    """The cost, for a store whose sums must fit 64 bits. ValueError also where it is more than $1,000,000,000."""
    if checked_cost(cost) > MOST_MONEY:
        raise ValueError(f"a cost is at most {MOST_MONEY} nano-USD, not {cost!r:.40}")
    return cost


def check_offers(offers: Sequence[Offer]) -> None:
    """ValueError where one of `offers` costs what cannot be a cost, or there is none."""
    if not offers:
        raise ValueError("there is nothing to reserve: no offer")
    for offer in offers:
        cost = offer.cost
        if cost is not None and (type(cost) is not int or cost < 0):
            checked_cost(cost)


def checked_limit(limit: int) -> int:
    """The limit. ValueError where it is no whole number of nano-USD above 0 and at most $1,000,000,000."""
    if type(limit) is not int or not 0 < limit <= MOST_MONEY:
        raise ValueError(f"a limit is a whole number of nano-USD, above 0 and at most {MOST_MONEY}, not {limit!r:.40}")
    return limit
