"""A Router for `--app`, whose process can be ended in the midst of a job: at a step of its store, not at a moment."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.processes.stores import ledger_of
from tierline import Budget, Router, policy
from tierline.classify import FixedClassifier

LEASE = 1.0


def router() -> Router[Any]:
    """By the environment: its store, and the signal that its process gets after so many pages were taken in."""
    found: Router[Any] = Router(
        ledger=ledger_of(os.environ["TEST_STORE"], LEASE),
        budgets=[Budget(os.environ.get("TEST_BUDGET", "$10/day"), name="day")],
        classifier=FixedClassifier("simple"),
        policy=policy(ceiling="sonnet"),
    )
    found.batches._unsure = 0.2  # whoever is killed here was in the midst of anything
    if said := os.environ.get("TEST_SIGNAL"):
        name, _, pages = said.partition(" ")
        _signalled(found.batches._store, getattr(signal, name), int(pages))
    return found


def _signalled(store: Any, number: signal.Signals, pages: int) -> None:
    add, left = store.add, [pages]

    async def counted(*args: Any) -> bool:
        done: bool = await add(*args)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)
        return done

    store.add = counted
