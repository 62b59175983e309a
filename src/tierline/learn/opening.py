"""A Router's learning, and where its outcomes are kept: with its balances, over the same connection."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from tierline.errors import ConfigurationError
from tierline.learn.learning import Learning, Model
from tierline.learn.memory import MemoryOutcomes
from tierline.learn.model import OutcomeModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.learn.outcomes import OutcomeStore

_DAY: Final = 86_400.0


def open_learning(
    model: Model | None,
    tiers: tuple[str, ...],
    connection: object,
    *,
    secret: bytes | None,
    handle_ttl: float,
    now: Callable[[], float],
    away: Callable[[], bool],
) -> Learning:
    """What a Router learns with: see `Learning`. ConfigurationError for what cannot work."""
    if model is None:
        model = OutcomeModel(tiers, clock=now)
    elif isinstance(model, type) or not isinstance(model, Model):
        raise ConfigurationError(f"Router(outcomes=…) takes an OutcomeModel(…), got {model!r:.80}")
    if isinstance(handle_ttl, bool) or not isinstance(handle_ttl, (int, float)) or not 0 < handle_ttl < inf:
        raise ConfigurationError(f"Router(handle_ttl={handle_ttl!r:.40}): that is a number of seconds above 0")
    if tuple(model.tiers) != tiers:
        raise ConfigurationError(
            f"Router(outcomes=…) is a model of the tiers {tuple(model.tiers)}, and the ladder has {tiers}: "
            f"write OutcomeModel(tiers={tiers})"
        )
    # Clocks of processes differ by less than a day.
    store = open_outcomes(connection, remember=handle_ttl + _DAY, clock=now)
    return Learning(model, store, secret=secret, handle_ttl=handle_ttl, now=now, away=away)


def open_outcomes(connection: object, *, remember: float, clock: Callable[[], float]) -> OutcomeStore:
    """The store of outcomes over a connection: a `SQLiteStore` or a `RedisStore`; for all else this process's memory.

    `remember` is for how many seconds ids stay taken, `clock` gives seconds since the epoch. Nothing is asked yet.
    """
    if connection is not None:
        from tierline.store.redis import RedisStore  # noqa: PLC0415  (only for who has one)
        from tierline.store.sqlite import SQLiteStore  # noqa: PLC0415  (only for who has one)

        if isinstance(connection, SQLiteStore):
            from tierline.learn.sqlite import SQLiteOutcomes  # noqa: PLC0415

            return SQLiteOutcomes(connection, remember=remember, clock=clock)
        if isinstance(connection, RedisStore):
            from tierline.learn.redis import RedisOutcomes  # noqa: PLC0415

            return RedisOutcomes(connection, remember=remember)
    return MemoryOutcomes(remember=remember, clock=clock)
