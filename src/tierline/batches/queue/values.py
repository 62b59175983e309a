"""What an app sees of a request that was deferred."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tierline.batches.values import BatchResult

Delivery = Literal["", "waiting", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Deferred:
    """A request that was deferred, as it is now. `deadline` is in seconds since the epoch.

    - `state`: `pending`, or `answered`, with a `result`, whose `place` says nothing
    - `delivery`: nothing where the answer is not to be delivered; else `waiting`, `delivered`, or `failed` after the
      last try
    """

    handle: str
    custom_id: str
    tenant: str | None
    state: Literal["pending", "answered"]
    deadline: float
    delivery: Delivery = ""
    result: BatchResult | None = None
