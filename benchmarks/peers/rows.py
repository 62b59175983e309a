"""What is measured: kinds of calls, how large, how many at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["create", "stream", "request", "events"]
"""`create` and `stream` call Claude; `request` and `events` call an ASGI app, which answers at once or with chunks."""

PLAIN: Final = "plain SDK"
NOTHING: Final = "no-op ASGI middleware"
SLOW: Final = 1.5
"""CPU seconds of a block, at most, by what one call took: slower columns make fewer calls in it, or none."""
SLOW_AT_ONCE: Final = 4.5
"""The same where calls are made at the same time, of which there cannot be fewer."""


@dataclass(frozen=True)
class Row:
    """One kind of call: `calls` of it make a block, `concurrency` of them at a time.

    `size` is that of the prompt, in characters; `share` of all the time that there is goes to this row.
    """

    name: str
    kind: Kind
    share: float
    calls: int
    size: int = 1_000
    concurrency: int = 1
    base: str = PLAIN
    """The column that others are held against."""

    def block(self, seconds: float) -> int:
        """How many calls make a block of a column of which one call takes so many seconds; 0 for none."""
        most = int((SLOW if self.concurrency == 1 else SLOW_AT_ONCE) / seconds)
        return 0 if most < self.concurrency else min(self.calls, most)


ROWS: Final = (
    Row("create, 1 KB", "create", 0.22, calls=20),
    Row("create, 1 KB, 50 at a time", "create", 0.17, calls=50, concurrency=50),
    Row("create, 500 KB", "create", 0.14, calls=4, size=500_000),
    Row("create, 500 KB, 50 at a time", "create", 0.10, calls=50, size=500_000, concurrency=50),
    Row("stream of 1,000 events", "stream", 0.17, calls=2),
    Row("stream of 1,000 events, 50 at a time", "stream", 0.14, calls=50, concurrency=50),
    Row("a request to an app that does nothing", "request", 0.03, calls=1000, base=NOTHING),
    Row("100 chunks of SSE through an app", "events", 0.03, calls=20, base=NOTHING),
)
