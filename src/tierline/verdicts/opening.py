"""The second level of a Router's verdict cache: where its balances are, over the same connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierline.errors import ConfigurationError
from tierline.verdicts.shared import SharedVerdicts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.learn.learning import Learning
    from tierline.verdicts.store import VerdictStore


def open_shared(
    connection: object,
    learning: Learning,
    *,
    wanted: object,
    model: str,
    ttl: float,
    now: Callable[[], float],
    away: Callable[[], bool],
    on_look: Callable[[str], None],
) -> SharedVerdicts | None:
    """The verdicts that a Router shares over its connection; None where there is nothing to share, or it is not wanted.

    ConfigurationError for a `wanted` that is neither True nor False.
    """
    if not isinstance(wanted, bool):
        raise ConfigurationError(f"Router(share_verdicts={wanted!r:.60}): write True or False")
    store = open_verdicts(connection, clock=now) if wanted else None
    if store is None:
        return None
    return SharedVerdicts(store, learning, model=model, ttl=ttl, now=now, away=away, on_look=on_look)


def open_verdicts(connection: object, *, clock: Callable[[], float]) -> VerdictStore | None:
    """The store of verdicts over a `SQLiteStore` or a `RedisStore`; None for all else. Nothing is asked yet."""
    if connection is None:
        return None
    from tierline.store.redis import RedisStore  # noqa: PLC0415  (only for who has one)
    from tierline.store.sqlite import SQLiteStore  # noqa: PLC0415  (only for who has one)

    if isinstance(connection, SQLiteStore):
        from tierline.verdicts.sqlite import SQLiteVerdicts  # noqa: PLC0415

        return SQLiteVerdicts(connection, clock=clock)
    if isinstance(connection, RedisStore):
        from tierline.verdicts.redis import RedisVerdicts  # noqa: PLC0415

        return RedisVerdicts(connection)
    return None
