"""How what Tierline adds to a call grows with the request: long texts, long conversations, many tools.

    python -m benchmarks.large [--rounds N] [--write FILE]

Against answers that are there at once, so that the work of this process is all there is. Each round makes one call of
the plain SDK and one routed one, in either order; shown are medians of CPU time. Beside it: what of it is reading the
request (`read_call`), and a decision by the local classifier on a text that it has not seen, which is cut to a bounded
part of it first.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient

from benchmarks.bench import PINNED
from benchmarks.calls import prompt
from benchmarks.count import Canned
from tierline import Budget, Router
from tierline.call import cut, read_call
from tierline.classify import ClaudeClassifier, LocalClassifier

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS: Final = 40
_TIMES: Final = 9


@dataclass(frozen=True)
class Figure:
    """Microseconds of CPU."""

    name: str
    size: int
    """Bytes of the body."""
    plain: float
    added: float
    reading: float
    deciding: float


def shapes() -> dict[str, dict[str, Any]]:
    """What is asked, by name."""

    def said(*texts: str) -> list[dict[str, Any]]:
        return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]

    def tool(number: int) -> dict[str, Any]:
        fields = {f"field_{at}": {"type": "string", "description": prompt(80)} for at in range(8)}
        schema = {"type": "object", "properties": fields}
        return {"name": f"tool_{number}", "description": prompt(500), "input_schema": schema}

    sizes = {"1 KB": 1_000, "10 KB": 10_000, "100 KB": 100_000, "500 KB": 500_000, "1 MB": 1_000_000}
    found: dict[str, dict[str, Any]] = {f"{name}, one text": {"messages": said(prompt(n))} for name, n in sizes.items()}
    found |= {f"1 MB, {n} messages": {"messages": said(*[prompt(1_000_000 // n)] * n)} for n in (51, 501)}
    found["1 MB, no ASCII"] = {"messages": said("Почему небо голубое? " * 25_000)}
    found |= {
        f"{n} tools": {"messages": said(prompt(1_000)), "tools": [tool(at) for at in range(n)]} for n in (10, 100)
    }
    return found


def of(work: Callable[[], object]) -> float:
    """The least CPU time of it, in microseconds: nothing makes it faster than it is."""
    took = []
    for _ in range(_TIMES):
        before = time.thread_time()
        work()
        took.append(time.thread_time() - before)
    return min(took) * 1e6


async def measured(name: str, shape: dict[str, Any], rounds: int) -> Figure:
    """One row."""
    http = DefaultAsyncHttpxClient(transport=Canned())
    client = AsyncAnthropic(api_key="none", base_url="http://api", http_client=http, open_telemetry=None)
    router = Router(
        client,
        budgets=[Budget("$1000000/day"), Budget("$1000000/hour", per="tenant")],
        classifier=ClaudeClassifier(),
    )
    ways = [(client, PINNED), (router.claude, "auto")]
    took: list[list[float]] = [[], []]
    async with router.bind(tenant="acme", route="/answer"):
        for number in range(rounds + 3):
            for way in random.sample((0, 1), 2):
                call, model = ways[way]
                before = time.process_time()
                await call.messages.create(model=model, max_tokens=800, **shape)
                if number >= 3:
                    took[way].append(time.process_time() - before)
            gc.collect()
    await router.aclose()
    body = {"model": "auto", "max_tokens": 800, **shape}
    local = LocalClassifier()
    local.prepare()
    text = shape["messages"][-1]["content"]
    numbers = iter(range(_TIMES))
    return Figure(
        name=name,
        size=len(json.dumps(body, ensure_ascii=False).encode()),
        plain=statistics.median(took[0]) * 1e6,
        added=statistics.median(mine - plain for plain, mine in zip(*took, strict=True)) * 1e6,
        reading=of(lambda: read_call("create", body)),
        deciding=of(lambda: local.opinion(cut(f"{next(numbers)} {text}"))),
    )


def table(figures: list[Figure]) -> str:
    """The figures, as Markdown."""
    lines = [
        "| request | bytes | plain SDK | Tierline adds | ratio | of it: reading the request | a local decision |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {f.name} | {f.size:,} | {f.plain:,.0f} | {f.added:,.0f} | {1 + f.added / f.plain:.2f} "
        f"| {f.reading:,.0f} | {f.deciding:,.0f} |"
        for f in figures
    ]
    return "\n".join(lines)


_SECTION: Final = """## Large requests

Microseconds of CPU of one call, against answers that are there at once ({date}; `python -m benchmarks.large`). What
must be read is read once: the length of every text, for the worst case of a budget, and nothing of it is copied. What
is only classified is bounded: at most 4,000 characters of the latest turn, its start and its end, of which local
weights look at 3,000. A body is sent with another `model` beside its other fields, and the fields themselves are
shared.

{table}
"""


def main() -> None:
    """All rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the section of the docs there")
    options = parser.parse_args()
    figures = [asyncio.run(measured(name, shape, options.rounds)) for name, shape in shapes().items()]
    print(table(figures))
    if options.write is not None:
        options.write.write_text(_SECTION.format(date=f"{datetime.now(UTC):%Y-%m-%d}", table=table(figures)))


if __name__ == "__main__":
    main()
