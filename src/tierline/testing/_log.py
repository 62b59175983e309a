"""What the fake received, and what it would have billed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tierline.values import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class Received:
    """One request and how it ended. It is filled in while the request is answered.

    `usage` is what had been spent when it ended, and `billed` (nano-USD) what that costs: 0 for an error. A client
    that leaves in mid-stream pays the input and the output up to then. `ended` is `open` until the last byte is
    on its way. `headers` have lower-case names, and no key: `x-api-key` and `authorization` are redacted.
    """

    path: str
    headers: Mapping[str, str]
    body: Any = None
    """The decoded JSON; None for what is no JSON."""
    model: str | None = None
    streamed: bool = False
    status: int = 0
    """0 until the headers are sent, and for a connection that was reset before them."""
    error: str | None = None
    """The type of the error that was answered."""
    stop_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    billed: int = 0
    ended: Literal["open", "complete", "disconnected", "fault"] = "open"
    idempotency_key: str | None = None
    seconds: float = 0.0
    """From the request's arrival to its end, on the fake's clock."""
