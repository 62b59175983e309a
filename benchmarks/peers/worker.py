"""A process in the environment of a peer: runs blocks of calls as it is told to, and says what CPU time they took.

    python -m benchmarks.peers.worker COLUMNS --url URL --folder DIR [--redis URL]

Each line on stdin is a request in JSON, and each line on stdout its answer. What libraries print goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import uvloop

from benchmarks.calls import prompt
from benchmarks.peers.column import Column, World
from benchmarks.peers.rows import ROWS, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

WARMING: Final = 2
"""Calls before the first block, for what is set up on first use."""
LONGEST: Final = 60.0
"""Seconds after which a block hangs."""


async def block(column: Column, row: Row, calls: int) -> dict[str, float]:
    """Microseconds a call of so many: of CPU, of all threads of this process; of processes beside it; on the clock."""
    text, left, call = prompt(row.size), calls, column.calls[row.kind]

    async def lane() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call(text)

    gc.collect()  # nobody pays for another's garbage
    with column.around():
        beside, cpu, clock = column.beside(), time.process_time(), time.perf_counter()
        if row.concurrency == 1:
            await lane()
        else:
            await asyncio.gather(*(lane() for _ in range(row.concurrency)))
        clock = time.perf_counter() - clock
        await column.flush()
        cpu, beside = time.process_time() - cpu, column.beside() - beside
    return {name: t / calls * 1e6 for name, t in (("cpu", cpu), ("beside", beside), ("clock", clock))}


async def check(column: Column, row: Row) -> dict[str, Any]:
    """Warm up, and see that the calls do what is to be measured; and what CPU seconds the last one took."""
    with column.around():
        for _ in range(WARMING):
            beside, began = column.beside(), time.process_time()
            came = await column.calls[row.kind](prompt(row.size))
            await column.flush()
            seconds = time.process_time() - began + column.beside() - beside
        return {"seconds": seconds, "did": column.check(row.kind, came)}


async def answer(request: dict[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """What one request asks for."""
    if request["do"] == "tell":
        return {"columns": [{"name": c.name, "kinds": list(c.calls), "also": c.also} for c in columns]}
    column, row = columns[request["column"]], ROWS[request["row"]]
    async with asyncio.timeout(LONGEST):
        if request["do"] == "check":
            return await check(column, row)
        if request["first"]:
            gc.collect()
            gc.freeze()  # what lives on is not walked again with each block
        return await block(column, row, request["calls"])


async def serve(name: str, world: World, out: int) -> None:
    """Answer until stdin ends."""
    module = importlib.import_module(f"benchmarks.peers.columns.{name}")
    async with module.opened(world) as columns:
        loop, lines = asyncio.get_running_loop(), asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            try:
                said = await answer(json.loads(line), columns)
            except Exception as error:  # noqa: BLE001  (whatever a peer fails with is told)
                said = {"error": f"{type(error).__name__}: {error}"[:400]}
            os.write(out, json.dumps(said).encode() + b"\n")


def main() -> None:
    """Run in the environment of the peer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("columns")
    parser.add_argument("--url", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--redis")
    options = parser.parse_args()
    out = os.dup(1)
    os.dup2(2, 1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.columns, World(options.url, options.redis, options.folder), out))


if __name__ == "__main__":
    main()
