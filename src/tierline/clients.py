"""The clients that a Router holds: an asynchronous and a synchronous one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from tierline.anthropic import Routes


class Slot:
    """One of the two, with its routed copy. Without one of the app's own it is made from the environment, on first use.

    Raises ConfigurationError for a client of the other kind.
    """

    def __init__(self, given: Any, *, blocking: bool) -> None:
        self.brought = given is not None
        """Whether it is the app's own."""
        self._blocking = blocking
        self._client = given
        self._routed: Any = None
        self._lock = threading.Lock()
        if given is not None:
            from tierline.anthropic import is_blocking  # noqa: PLC0415  (the SDK is there: its client is)

            if is_blocking(given) is not blocking:
                name, word = ("sync_client", "a synchronous") if blocking else ("client", "an asynchronous")
                other = "client" if blocking else "sync_client"
                raise ConfigurationError(
                    f"Router({name}=…) takes {word} client, got {type(given).__name__}: give it as Router({other}=…)"
                )

    def routed(self, router: Routes) -> Any:
        """The routed copy, from any thread."""
        with self._lock:
            if self._routed is None:
                # The seam needs the SDK, which takes a second to import: only who calls Claude pays for it.
                from tierline.anthropic import attach, default_client  # noqa: PLC0415

                if self._client is None:
                    self._client = default_client(blocking=self._blocking)
                self._routed = attach(self._client, router)
            return self._routed

    def plain(self, router: Routes) -> Any:
        """A copy that routes nothing and retries nothing, for what the Router itself sends."""
        from tierline.anthropic import detached  # noqa: PLC0415

        return detached(self.routed(router))

    def keyless(self, router: Routes) -> bool:
        """Whether the client has no key, and no way to one."""
        from tierline.anthropic import has_credentials  # noqa: PLC0415

        return not has_credentials(self.routed(router))

    def is_of(self, client: object) -> bool:
        """Whether a routed client is this one, and not one that the app attached or derived itself."""
        return client is self._routed

    def take(self) -> Any:
        """A client that was made here, to be closed; None where there is none."""
        with self._lock:
            if self.brought or self._client is None:
                return None
            client, self._client, self._routed = self._client, None, None
            return client
