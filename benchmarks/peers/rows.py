"""What is measured: kinds of calls, how large, how many at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["create", "stream", "request", "fastapi", "events", "served"]
"""`create` and `stream` call Claude; the others are those of `benchmarks.asgi`."""

PLAIN: Final = "plain SDK"
NOTHING: Final = "no-op"
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
    Row("create, 1 KB", "create", 0.2, calls=20),
    Row("create, 1 KB, 50 at a time", "create", 0.17, calls=50, concurrency=50),
    Row("create, 500 KB", "create", 0.14, calls=4, size=500_000),
    Row("create, 500 KB, 50 at a time", "create", 0.10, calls=50, size=500_000, concurrency=50),
    Row("stream of 1,000 events", "stream", 0.17, calls=2),
    Row("stream of 1,000 events, 50 at a time", "stream", 0.14, calls=50, concurrency=50),
    Row("an endpoint that does nothing", "request", 0.02, calls=400, base=NOTHING),
    Row("the same, FastAPI", "fastapi", 0.02, calls=200, base=NOTHING),
    Row("100 chunks of SSE", "events", 0.02, calls=20, base=NOTHING),
    Row("the same, through uvicorn", "served", 0.02, calls=4, base=NOTHING),
)
