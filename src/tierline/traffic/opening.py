"""Where a Router's traffic is added up: with its balances, over the same connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierline.errors import ConfigurationError
from tierline.traffic.memory import MemoryTraffic
from tierline.traffic.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.traffic.store import TrafficStore


def check_traffic(wanted: object) -> bool:
    """What `Router(traffic=…)` says. ConfigurationError for neither True nor False."""
    if not isinstance(wanted, bool):
        raise ConfigurationError(f"Router(traffic={wanted!r:.60}): write True or False")
    return wanted


def open_reading(connection: object, tiers: Sequence[str], now: Callable[[], float]) -> Reading:
    """What a Router asks, over its connection. `tiers` are the names of its ladder."""
    return Reading(open_traffic(connection, clock=now), tiers, now)


def open_traffic(connection: object, *, clock: Callable[[], float]) -> TrafficStore:
    """The store over a connection: a `SQLiteStore` or a `RedisStore`; for all else this process's memory.

    `clock` gives seconds since the epoch. Nothing is asked yet.
    """
    if connection is not None:
        from tierline.store.redis import RedisStore  # noqa: PLC0415  (only for who has one)
        from tierline.store.sqlite import SQLiteStore  # noqa: PLC0415  (only for who has one)

        if isinstance(connection, SQLiteStore):
            from tierline.traffic.sqlite import SQLiteTraffic  # noqa: PLC0415

            return SQLiteTraffic(connection, clock=clock)
        if isinstance(connection, RedisStore):
            from tierline.traffic.redis import RedisTraffic  # noqa: PLC0415

            return RedisTraffic(connection, clock=clock)
    return MemoryTraffic(clock=clock)
