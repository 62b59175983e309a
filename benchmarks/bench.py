"""What a call costs with Tierline, in CPU time, beside the plain SDK in the same process.

One row is no CPU time: what passes on the clock until the first byte of a stream has reached the app.

    python -m benchmarks.bench [--quick] [--json FILE]

Every row is measured in rounds. A round runs one block of calls for each column, in shuffled order, and gives one
ratio to the plain SDK for each; shown are their medians, with a 95% bootstrap interval. So whatever slows the machine
down for longer than a round slows all columns down. The second plain column (A/A) shows what noise is left.

Processes differ from each other by far more (10%) than columns do: compare columns of one run only.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient
from rich.console import Console
from rich.table import Table

from benchmarks import pairs
from benchmarks.calls import create, first_byte, helper, prompt, raw_events
from benchmarks.ledgers import redis_running
from benchmarks.spans import Spans
from benchmarks.upstream import STREAM_EVENTS, running
from tierline import Budget, Router
from tierline.classify import ClaudeClassifier
from tierline.ledger import RedisLedger
from tierline.store.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

PLAIN: Final = "plain SDK"
PINNED: Final = "claude-haiku-5-5"
SECONDS: Final = 38.0
"""Seconds for each row."""
QUICK_SECONDS: Final = 2.5
FEWEST_ROUNDS: Final = 5
LONGEST_RUN: Final = 600.0
"""Seconds after which something hangs."""


@dataclass(frozen=True)
class Column:
    """One way to call Claude. `bind` surrounds each call, `flush` ends a block: exports belong to who caused them."""

    name: str
    client: AsyncAnthropic
    model: str = PINNED
    bind: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext
    flush: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Row:
    """One kind of call: `calls` of it make a block, `concurrency` of them at a time.

    With `clock` a call gives back the seconds that are to be shown; without, its CPU time is.
    """

    name: str
    call: Callable[[AsyncAnthropic, str], Awaitable[object]]
    calls: int
    concurrency: int = 1
    clock: bool = False


@dataclass
class Result:
    """Microseconds a call, of each round, by column."""

    row: Row
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def micros(self, column: str) -> float:
        """The median."""
        return statistics.median(self.rounds[column])

    def ratio(self, column: str) -> pairs.Interval:
        """The median ratio to the plain SDK, and its 95% interval."""
        return pairs.ratio(self.rounds[column], self.rounds[PLAIN])


# What is called


ROWS: Final = (
    Row("create, 1 KB", create(prompt(1_000)), calls=20),
    Row("create, 1 KB, 50 at a time", create(prompt(1_000)), calls=50, concurrency=50),
    Row("create, 500 KB", create(prompt(500_000)), calls=5),
    Row(f"stream, {STREAM_EVENTS:,} raw events", raw_events(prompt(1_000)), calls=1),
    Row(f"stream, {STREAM_EVENTS:,} events, helper", helper, calls=1),
    Row("stream, time to its first byte", first_byte, calls=3, clock=True),
)


# Who calls


def leased(url: str) -> RedisLedger:
    """A ledger of which this process holds slices, beside the one of the column before: in a namespace of its own."""
    return RedisLedger(RedisStore(url, namespace="leased"), slices=0.05)


def columns(url: str, stores: Mapping[str, str]) -> list[Column]:
    """All columns: one HTTP client class, one pool. `stores`: names and URLs of stores outside of this process.

    As a new user gets it, the Router makes the client: on aiohttp, which `plain SDK` is not.
    """
    http = DefaultAsyncHttpxClient()

    def client(spans: Spans | None = None) -> AsyncAnthropic:
        option: Any = {"tracer_provider": spans.provider} if spans is not None else None
        return AsyncAnthropic(api_key="none", base_url=url, http_client=http, open_telemetry=option)

    def routed(name: str, spans: Spans | None = None, *, own: bool = False, **options: Any) -> Column:
        router = Router(
            None if own else client(spans),
            budgets=[Budget("$1000000/day"), Budget("$1000000/hour", per="tenant")],
            tracer_provider=spans.provider if spans is not None else None,
            **options,
        )
        bind = lambda: router.bind(tenant="acme", route="/answer")  # noqa: E731
        return Column(name, router.claude, "auto", bind, spans.flush if spans is not None else lambda: None)

    sdk, tierline = Spans(), Spans()
    os.environ.update(ANTHROPIC_API_KEY="none", ANTHROPIC_BASE_URL=url)
    return [
        Column(PLAIN, client()),
        Column("plain SDK again (A/A)", client()),
        Column("SDK, with OTel", client(sdk), flush=sdk.flush),
        routed("Tierline", classifier=ClaudeClassifier()),
        routed("Tierline, as a new user gets it", own=True, classifier=ClaudeClassifier()),
        routed("Tierline, rules first", None),
        routed("Tierline, with OTel", tierline, classifier=ClaudeClassifier()),
        *(routed(f"Tierline, {name}", classifier=ClaudeClassifier(), store=store) for name, store in stores.items()),
        *(
            routed(f"Tierline, {name}, leased", classifier=ClaudeClassifier(), ledger=leased(store))
            for name, store in stores.items()
            if name == "Redis"
        ),
    ]


# How it is measured


async def block(row: Row, column: Column) -> float:
    """Microseconds a call of one block: of CPU, of all threads of this process, or those that its calls tell."""
    left, told = row.calls, 0.0

    async def worker() -> None:
        nonlocal left, told
        while left > 0:
            left -= 1
            async with column.bind():
                found = await row.call(column.client, column.model)
            told += found if row.clock and isinstance(found, float) else 0.0

    before = time.process_time()
    if row.concurrency == 1:
        await worker()
    else:
        await asyncio.gather(*(worker() for _ in range(row.concurrency)))
    column.flush()
    return (told if row.clock else time.process_time() - before) / row.calls * 1e6


async def check(row: Row, column: Column) -> None:
    """Warm up, and see that a routed call takes the way that is to be measured."""
    for _ in range(2):
        async with column.bind() as binding:
            await row.call(column.client, column.model)
    if binding is not None:
        decision = binding.decisions[-1]
        if not (decision.source == "cache" and decision.settled and decision.cost and not decision.estimated):
            raise SystemExit(f"{column.name}: not the way that is to be measured: {decision}")
    column.flush()


async def measure(row: Row, within: Sequence[Column], seconds: float) -> Result:
    """Rounds of one row for about `seconds`."""
    for column in within:
        await check(row, column)
        await block(row, column)
    gc.collect()
    gc.freeze()  # what lives on is not walked again with each round
    result = Result(row, {column.name: [] for column in within})
    order = list(within)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends or len(result.rounds[PLAIN]) < FEWEST_ROUNDS:
        random.shuffle(order)
        for column in order:
            gc.collect()  # nobody pays for another's garbage
            result.rounds[column.name].append(await block(row, column))
    return result


async def run(url: str, stores: Mapping[str, str], seconds: float, wanted: str) -> list[Result]:
    """All rows whose name has `wanted` in it."""
    within = columns(url, stores)
    async with asyncio.timeout(LONGEST_RUN):
        return [await measure(row, within, seconds) for row in ROWS if wanted in row.name]


# What is said


def table(results: Sequence[Result]) -> Table:
    """CPU (or time) a call, and the ratio to the plain SDK."""
    shown = Table(title="CPU µs a call (of a first byte: µs); ratio to the plain SDK [95%]", title_justify="left")
    shown.add_column("")
    names = list(results[0].rounds)
    for name in names:
        shown.add_column(name, justify="right")
    for result in results:
        cells = [f"{result.micros(PLAIN):,.0f}"]
        for name in names[1:]:
            middle, low, high = result.ratio(name)
            cells.append(f"{result.micros(name):,.0f}\n{middle:.3f}\n[{low:.3f}, {high:.3f}]".replace("[", r"\["))
        shown.add_row(f"{result.row.name}\n({len(result.rounds[PLAIN])} rounds of {result.row.calls})", *cells)
    return shown


def document(results: Sequence[Result], loop: str) -> dict[str, Any]:
    """The same for programs, with what it was measured on."""
    packages = ("anthropic", "opentelemetry-sdk", "httpx2", "tierline")
    return {
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()},
        "loop": loop,
        "versions": {name: _version(name) for name in packages},
        "rows": [
            {
                "row": result.row.name,
                "concurrency": result.row.concurrency,
                "rounds": len(result.rounds[PLAIN]),
                "calls_a_round": result.row.calls,
                "columns": {
                    name: {"us" if result.row.clock else "cpu_us": round(result.micros(name), 1)}
                    | dict(zip(("ratio", "low", "high"), (round(x, 4) for x in result.ratio(name)), strict=True))
                    for name in result.rounds
                },
            }
            for result in results
        ],
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "source"


def main() -> None:
    """Measure, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="half a minute instead of three and a half")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--row", default="", metavar="TEXT", help="only the rows with TEXT in their name")
    parser.add_argument("--seconds", type=float, help="for each row")
    parser.add_argument("--asyncio", action="store_true", help="asyncio's own loop, even if uvloop is installed")
    options = parser.parse_args()
    if not any(options.row in row.name for row in ROWS):
        parser.error(f"no row has {options.row!r} in its name: {', '.join(row.name for row in ROWS)}")
    factory = None
    if not options.asyncio:
        try:
            import uvloop  # noqa: PLC0415

            factory = uvloop.new_event_loop
        except ModuleNotFoundError:
            pass
    seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    with (
        running() as url,
        redis_running() as redis,
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=factory) as runner,
    ):
        stores = {"SQLite": f"sqlite:///{folder}/ledger.db"} | ({"Redis": redis} if redis else {})
        results = runner.run(run(url, stores, seconds, options.row))
    Console(width=150 if not sys.stdout.isatty() else None).print(table(results))
    if options.json is not None:
        options.json.write_text(json.dumps(document(results, "uvloop" if factory else "asyncio"), indent=2) + "\n")


if __name__ == "__main__":
    main()
