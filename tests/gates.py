"""A FakeClaude whose answers wait until a test lets them go: by what they answer, in any order."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

from tierline.classify.question import parse_question
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

VERDICT = "verdict"
"""The gate of questions; that of an answer has the name of its model, that of the rest of a stream ends in `REST`."""
REST = " rest"


class GatedClaude(FakeClaude):
    """Works out an answer, and sends it when its gate is open. All are, unless a test holds them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._held: set[str] = set()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, str]] = []
        self._lock = threading.Lock()

    def hold(self, *names: str) -> None:
        """Let nothing through there from now on."""
        with self._lock:
            self._held.update(names)

    def open(self, *names: str) -> None:
        """Let all through there. From any thread."""
        with self._lock:
            self._held.difference_update(names)
            for loop, event, name in self._waiting:
                if name in names:
                    loop.call_soon_threadsafe(event.set)

    def waiting(self, name: str) -> int:
        """How many answers wait at a gate."""
        with self._lock:
            return sum(gate == name for _, _, gate in self._waiting)

    async def waits(self, name: str) -> None:
        """Wait until an answer waits at a gate."""
        await self.until(lambda _: self.waiting(name))

    async def _pass(self, name: str) -> None:
        entry = (asyncio.get_running_loop(), asyncio.Event(), name)
        with self._lock:
            if name not in self._held:
                return
            self._waiting.append(entry)
        self._book.wake()
        try:
            await entry[1].wait()
        finally:
            with self._lock:
                self._waiting.remove(entry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        sent = 0

        async def heard() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        async def told(message: Message) -> None:
            nonlocal sent
            said = json.loads(body or b"{}")
            name = VERDICT if parse_question(said) is not None else str(said.get("model"))
            if message["type"] == "http.response.start":
                await self._pass(name)
            else:
                sent += 1
                if sent == 2:
                    await self._pass(name + REST)
            await send(message)

        await super().__call__(scope, heard, told)
