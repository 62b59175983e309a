"""A process that writes decisions to a log, for tests that start several and kill some."""

from __future__ import annotations

import asyncio
import resource
import sys

from tierline.decisionlog import DecisionLog
from tierline.values import Decision


def decision(ident: str, **fields: object) -> Decision:
    """A decision with this id."""
    return Decision(ident, "haiku", "claude-haiku-5-5", "haiku", "simple", 0.9, "signal", settled=True, **fields)  # type: ignore[arg-type]


async def main(path: str, name: str, count: int, max_bytes: int, keep: int, most: int) -> None:
    if most:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    log = DecisionLog(path, text=True, max_bytes=max_bytes, keep=keep)
    print("ready", flush=True)  # noqa: T201
    for number in range(count) if count else iter(int, 1):
        log.write(decision(f"{name}-{number}"), at=number, outcome="ok", text="é" * (number % 700))
        await asyncio.sleep(0)
    await log.drain(60)
    print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    where, who, *numbers = sys.argv[1:]
    asyncio.run(main(where, who, *map(int, numbers)))
