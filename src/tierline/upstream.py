"""What a call is sent with: the seam's side of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable

    from tierline.attempts import Reply
    from tierline.chat import Chat


class Holding(Protocol):
    """The beginning of an answer that nobody has read yet. What is taken of it goes to the app all the same."""

    async def more(self) -> bytes | None:
        """The next bytes, None at the end. Raises what reading them raises; the app then meets the same."""
        ...


class Asker(Protocol):
    """Who asks questions of Tierline's own."""

    @property
    def client(self) -> Any:
        """The routed client whose call this is."""
        ...

    async def ask(self, body: dict[str, Any], timeout: float) -> Any:
        """Ask a question of Tierline's own with that client. TimeoutError after `timeout` seconds."""
        ...


class Upstream(Asker, Protocol):
    """How attempts of one call are sent."""

    @property
    def chat(self) -> Chat | None:
        """What is told of the call in a trace; None where the client tells it."""
        ...

    @property
    def retries(self) -> int:
        """Most retries of one call."""
        ...

    @property
    def repeatable(self) -> bool:
        """Whether the call's request can be sent once more when it is over, by the same client and with its own key."""
        ...

    async def again(self, body: dict[str, Any], timeout: float) -> Any:
        """Send the call's request once more, with another body and for Tierline's own sake. TimeoutError as above."""
        ...

    def content(self, reply: Reply) -> bytes:
        """The bytes of an answer that has come back whole."""
        ...

    def message(self, document: bytes) -> Any:
        """An answer that has come whole, as the SDK's own type: a copy, for whoever is to judge it."""
        ...

    def hold(self, reply: Reply) -> Holding:
        """Hold back the beginning of an answer that the app has not begun to read, from now on."""
        ...

    async def count(self, body: dict[str, Any], timeout: float) -> Any:
        """Count the tokens of a prompt with that client. TimeoutError after `timeout` seconds."""
        ...

    @property
    def endpoint(self) -> Hashable:
        """Tells apart where the client sends, and with whose key: breakers and rate limits belong to that."""
        ...

    @property
    def patience(self) -> float:
        """Seconds that one attempt may take by the SDK's own settings; infinity where they set no limit."""
        ...

    async def send(self, body: dict[str, Any], number: int, left: float | None = None) -> Reply:
        """Send one attempt. `number` counts from 0. Raises only what is no failure of the API (cancellation).

        It ends, as a timeout, within `left` seconds where that is given.
        """
        ...

    def apart(self) -> Upstream:
        """The same request, to be sent once more while it is being sent here."""
        ...

    @property
    def recallable(self) -> bool:
        """Whether an attempt can be called off at any time: a thread that waits for the first byte cannot be."""
        ...

    def withheld(self, status: int, error: str, message: str, wait: float) -> Reply:
        """The SDK's own error of that kind, for an attempt that is not made.

        `status` is 0 for a connection error or a timeout; `wait` is after how many seconds to try again.
        """
        ...
