"""What is aimed at, and whether a run reached it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.pairs import Interval
from benchmarks.peers.rows import NOTHING, PLAIN, ROWS
from benchmarks.peers.startup import added_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.peers.figures import Figures

ONE, AT_50, LARGE, _, STREAM, _, REQUEST, _, _, SERVED = (row.name for row in ROWS)
OURS: Final = "tierline"
RULED: Final = "LiteLLM Router, rules and budget"
CACHED: Final = "Tierline"
TRACED: Final = "Tierline, with OTel"
ALL: Final = "Tierline, everything on"
NEW: Final = "Tierline, as a new user gets it"


class Aim(NamedTuple):
    """A bound, and where the figure for it comes from: None where it was not measured."""

    what: str
    bound: float
    figure: Callable[[Figures], Interval | None]
    least: bool = False
    """The bound is from below."""
    unit: str = ""

    def said(self) -> str:
        """The bound in words."""
        return f"{'≥' if self.least else '≤'} {self.bound:g}{self.unit}"

    def is_met(self, found: Interval) -> bool:
        """By the median."""
        return found.value >= self.bound if self.least else found.value <= self.bound


def over(row: str, column: str, base: str = PLAIN, worker: str = OURS) -> Callable[[Figures], Interval | None]:
    """The ratio of a column to a base in the same process."""

    def figure(found: Figures) -> Interval | None:
        cell = found.cell(row, worker, column)
        return None if cell is None else cell.over.get(base)

    return figure


def times_less(found: Figures) -> Interval | None:
    """How many times the CPU that Tierline adds to a call LiteLLM's Router adds, each over the SDK beside it."""
    cells = [found.cell(ONE, *place) for place in ((OURS, CACHED), ("litellm", RULED))]
    bases = [found.cell(ONE, worker, PLAIN) for worker in (OURS, "litellm")]
    if not all(cells) or not all(bases):
        return None
    (ours, theirs), (base, other) = ([cell.over[PLAIN] for cell in cells if cell], [cell.cpu for cell in bases if cell])
    added = [max((each - 1) * base, 1e-9) for each in ours]
    against = [(each - 1) * other for each in theirs]
    return Interval(against[0] / added[0], against[1] / added[2], against[2] / added[1])


def import_ms(found: Figures) -> Interval | None:
    """Milliseconds of CPU that `import tierline` adds to an app, in a fresh process with bytecode."""
    seconds = found.startup.get("again", {}).get("tierline", {}).get("import cpu")
    return None if seconds is None else Interval(*(each * 1e3 for each in seconds))


def memory_mb(found: Figures) -> Interval | None:
    """Megabytes that it adds to the memory of an app."""
    again = found.startup.get("again", {})
    if not {"sdk", "tierline"} <= set(again):
        return None
    return Interval(*[added_memory(again)] * 3)


AIMS: Final = (
    Aim("cached verdict, memory ledger, two budgets, over the SDK on the same client", 1.06, over(ONE, CACHED)),
    Aim("the same, 50 at a time", 1.06, over(AT_50, CACHED)),
    Aim("the same with OpenTelemetry, over the SDK with its own span", 1.12,
        over(ONE, TRACED, "plain SDK, its own span")),
    Aim("everything on: a local decision on a miss, budgets, spans in batches", 1.2, over(ONE, ALL)),
    Aim("as a new user gets it, over the SDK as a new user gets it", 0.85, over(ONE, NEW)),
    Aim("the same, a stream of 1,000 events", 0.8, over(STREAM, NEW)),
    Aim("a prompt of 500 KB", 1.05, over(LARGE, CACHED)),
    Aim("a stream of 1,000 events", 1.02, over(STREAM, CACHED)),
    Aim("Redis ledger, two budgets, a round trip for each reserve and settle", 1.45, over(ONE, "Tierline, Redis")),
    Aim("Redis ledger with leased allowances", 1.15, over(ONE, "Tierline, Redis, allowances")),
    Aim("SQLite ledger", 1.35, over(ONE, "Tierline, SQLite")),
    Aim("the middleware over a no-op ASGI middleware, an app that does nothing", 1.1,
        over(REQUEST, CACHED, NOTHING, "server")),
    Aim("100 chunks of SSE through it, served by uvicorn", 1.05, over(SERVED, CACHED, "none", "server")),
    Aim("CPU that LiteLLM's Router with rules and a budget adds to a call, over what Tierline adds", 50, times_less,
        least=True),
    Aim("`import tierline`, beside FastAPI and the SDK", 60, import_ms, unit=" ms"),
    Aim("memory that it adds to an app with the SDK", 8, memory_mb, unit=" MB"),
)  # fmt: skip
