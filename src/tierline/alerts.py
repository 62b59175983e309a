"""The app's own hook for budgets that fill up: called off the way of calls, and never into them."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from tierline.blocking import running_loop
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tierline.attempts import Background
    from tierline.blocking import Portal
    from tierline.ledger.base import Alert, Ledger

    Hook: TypeAlias = Callable[[Alert], Awaitable[object] | object]

log: Final = logging.getLogger("tierline")

AT_ONCE: Final = 4
"""How many hooks of one event loop run at a time; the others wait for their turn."""
LONGEST: Final = 30.0
"""Seconds after which a hook is given up."""


def hand_alerts(ledger: Ledger, hook: Hook | None, background: Background, portal: Portal) -> None:
    """Call `hook` with every alert of `ledger`. ConfigurationError where it is no function."""
    if hook is not None:
        ledger.watch(Alerts(hook, background, portal))


class Alerts:
    """A listener for ledgers that hands alerts to a hook of the app's, as work in the background.

    A coroutine function runs on the loop of the call that brought the alert about, any other in a worker thread. Both
    in an empty context: they belong to no request, whichever of them it was. What a hook raises is logged.
    """

    def __init__(self, hook: Hook, background: Background, portal: Portal) -> None:
        if not callable(hook):
            raise ConfigurationError(f"on_budget must be a function of an Alert, got {type(hook).__name__}")
        self._hook = hook
        self._name = getattr(hook, "__qualname__", type(hook).__qualname__)
        call: Any = getattr(hook, "__call__", None)  # noqa: B004  (an object may be asynchronous too)
        self._asynchronous = iscoroutinefunction(hook) or iscoroutinefunction(call)
        self._background = background
        self._portal = portal
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    def __call__(self, alert: Alert) -> None:
        """Called by the ledger, in the thread of any call: neither waits nor raises."""
        try:
            Context().run(self._start, alert)
        except Exception as error:  # noqa: BLE001  (a call is under way, and must not fail for this)
            self._failed(error)

    def _start(self, alert: Alert) -> None:
        if running_loop() is not None:
            self._background.start(self._run(alert))
        else:  # a ledger may tell of it in a thread of its own
            self._background.start_on(self._portal.loop(), partial(self._run, alert))

    async def _run(self, alert: Alert) -> None:
        loop = asyncio.get_running_loop()
        turns = self._turns.setdefault(loop, asyncio.Semaphore(AT_ONCE))
        try:
            async with turns, asyncio.timeout(LONGEST):
                if self._asynchronous:
                    done = self._hook(alert)
                else:
                    from anyio import CapacityLimiter, to_thread  # noqa: PLC0415  (only for who has such a hook)

                    # Taking turns bounds the threads already; the default limiter is the app's.
                    done = await to_thread.run_sync(
                        self._hook, alert, abandon_on_cancel=True, limiter=CapacityLimiter(1)
                    )
                if isawaitable(done):
                    await done
        except Exception as error:  # noqa: BLE001  (it is the app's, and nobody waits for it)
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        # Not its message: that of a webhook may have a key in its URL.
        log.error("the on_budget hook %s failed: %s", self._name, type(error).__name__)
