"""What may go wrong with a request, to be scripted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from tierline.testing._problem import Problem

Kind = Literal[
    "ok", "error", "reset", "hang", "html", "truncated", "missing_usage", "usage", "error_event", "end", "unknown",
    "pings", "drip",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """What one request meets instead of a good answer. Make one with the methods below.

    `after` counts events of a stream (`message_start` is the first). For a request that is not streamed, a fault
    with `after` strikes in the middle of the JSON; `after=None` strikes before the headers.
    """

    kind: Kind
    code: int = 0
    error_type: str | None = None
    message: str = ""
    error_code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    after: int | None = None
    fields: tuple[tuple[str, Any], ...] = ()
    every: float = 0.0
    resets_in: float | None = None

    def saying(self, **headers: str) -> Fault:
        """The same with more headers: `Fault.overloaded().saying(x_should_retry="false", retry_after_ms="50")`."""
        more = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return replace(self, headers=(*self.headers, *more))

    @classmethod
    def overloaded(cls) -> Fault:
        """529 `overloaded_error`."""
        return cls("error", 529, message="Overloaded")

    @classmethod
    def rate_limit(
        cls,
        retry_after: float | None = 1,
        message: str = "This request would exceed a rate limit",
        *,
        resets_in: float | None = None,
    ) -> Fault:
        """429 `rate_limit_error`, with `retry-after` in seconds unless it is None.

        Its `anthropic-ratelimit-*-reset` are in `resets_in` seconds, or when the model's minute is over.
        """
        headers = () if retry_after is None else (("retry-after", f"{retry_after:g}"),)
        return cls("error", 429, message=message, headers=headers, resets_in=resets_in)

    @classmethod
    def exhausted(cls, resets_in: float = 7) -> Fault:
        """A good answer whose rate limit headers say that nothing remains, until so many seconds later."""
        return cls("ok", resets_in=resets_in)

    @classmethod
    def spend_limit(cls, *, own: bool = False) -> Fault:
        """A spend limit that is reached: 429 without `retry-after`, or 400 where the customer set it (`own=True`)."""
        if own:
            return cls("error", 400, message="You have reached your specified API usage limits.")
        return cls(
            "error",
            429,
            message="Your organization has reached its spend limit.",
            error_code="enforced_spend_limit_reached",
        )

    @classmethod
    def error(cls, code: int = 500, message: str = "Internal server error") -> Fault:
        """Any status, with the error type that belongs to it."""
        return cls("error", code, message=message)

    @classmethod
    def status(
        cls, code: int, error_type: str, message: str = "", *, headers: tuple[tuple[str, str], ...] = ()
    ) -> Fault:
        """Any status with any error type, message and extra headers."""
        return cls("error", code, error_type, message or error_type, headers=headers)

    @classmethod
    def reset(cls) -> Fault:
        """The connection is reset before the headers. Without a socket: ConnectionResetError in the app."""
        return cls("reset")

    @classmethod
    def reset_after(cls, events: int = 3) -> Fault:
        """The connection is reset after so many events of the stream; 0: after the headers."""
        return cls("reset", after=events)

    @classmethod
    def hang(cls, after: int | None = None) -> Fault:
        """Nothing more comes until the client leaves."""
        return cls("hang", after=after)

    @classmethod
    def pings(cls, every: float = 0.05, after: int = 1) -> Fault:
        """A stream that goes on with `ping` events only, one every so many seconds, until the client leaves."""
        return cls("pings", after=after, every=every)

    @classmethod
    def drip(cls, every: float = 0.01) -> Fault:
        """A good answer that comes a byte at a time, one every so many seconds."""
        return cls("drip", every=every)

    @classmethod
    def truncated_json(cls) -> Fault:
        """200 with half of the JSON; in a stream, an event that is cut in its middle ends it. Billed in full."""
        return cls("truncated")

    @classmethod
    def html(cls) -> Fault:
        """200 with a page of HTML, as a proxy on the way might send. Not billed."""
        return cls("html")

    @classmethod
    def missing_usage(cls) -> Fault:
        """A good answer without `usage`. Billed in full."""
        return cls("missing_usage")

    @classmethod
    def usage(cls, **fields: Any) -> Fault:
        """A good answer whose `usage` lies: `Fault.usage(output_tokens=-5)`. Billed as if it did not."""
        return cls("usage", fields=tuple(fields.items()))

    @classmethod
    def error_event(cls, after: int = 2, code: int = 529, message: str = "Overloaded") -> Fault:
        """An `error` event in a stream that began with 200; a request that is not streamed gets the status."""
        return cls("error_event", code, message=message, after=after)

    @classmethod
    def clean_eof(cls, after: int = 3) -> Fault:
        """The answer ends early, as if it were whole."""
        return cls("end", after=after)

    @classmethod
    def unknown_event(cls) -> Fault:
        """A good stream with an event of a type that nobody knows yet."""
        return cls("unknown")

    def problem(self) -> Problem:
        """The error that this fault answers with."""
        return Problem(self.code, self.message, type=self.error_type, code=self.error_code, headers=self.headers)


OK: Final = Fault("ok")
"""Lets one request of a script pass."""
