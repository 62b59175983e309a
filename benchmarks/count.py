"""How many machine instructions Tierline adds to a call: a figure that repeats, where times do not.

    python -m benchmarks.count [--record WHY] [--row TEXT] [--calls N]

Each row is a way to call Claude, run in one process under `valgrind --tool=callgrind`, with answers that are there at
once: no socket, no other process. Counted are `N` calls of the plain SDK and `N` routed ones, after a warm-up. The
difference is what Tierline adds. With the same Python, the same packages and the same machine it comes out alike to a
few tenths of a percent.

`counts.json` has the figures of releases and of changes that were worth one. A row that is more than two percent above
its last figure there makes this end with 1. `--record` adds the figures to it. They depend on how Python was built, and
on the SDK: only figures of the same build and SDK are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2
from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from benchmarks.bench import PINNED
from benchmarks.calls import create, prompt, raw_events
from benchmarks.upstream import STREAM_EVENTS, answer_to
from tierline import Budget, Router
from tierline.classify import ClaudeClassifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

HISTORY: Final = Path(__file__).with_name("counts.json")
MOST_GROWTH: Final = 0.02
WARM: Final = 60
"""Calls before any is counted: Python's own interpreter learns from the first ones."""
CALLS: Final = 100
_SUMMARY: Final = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)
_SMALL: Final = create(prompt(1_000))


@dataclass(frozen=True)
class Row:
    """One kind of call. What is counted is divided by `parts`, such as the events of a stream."""

    name: str
    call: Callable[[AsyncAnthropic, str], Awaitable[object]] = _SMALL
    classifier: bool = True
    spans: bool = False
    parts: int = 1
    calls: int = CALLS


ROWS: Final = (
    Row("create, cached verdict"),
    Row("create, rules first", classifier=False),
    Row("create, cached verdict, spans", spans=True),
    Row("create, 500 KB, cached verdict", create(prompt(500_000)), calls=20),
    Row("stream, an event", raw_events(prompt(1_000)), parts=STREAM_EVENTS, calls=3),
)


@dataclass(frozen=True)
class Figure:
    """Instructions a call: of the plain SDK, and what Tierline adds."""

    plain: int
    added: int


# What is counted


class Canned(httpx2.AsyncBaseTransport):
    """Answers at once, as the upstream of the other benchmarks does."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer to a body."""
        head, _, body = answer_to(await request.aread()).partition(b"\r\n\r\n")
        lines = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
        headers = [(name, value) for name, value in lines if name != b"transfer-encoding"]
        if len(headers) < len(lines):
            return httpx2.Response(200, headers=headers, stream=_Chunks(body))
        return httpx2.Response(200, headers=headers, stream=httpx2.ByteStream(body))


class _Chunks(httpx2.AsyncByteStream):
    """A chunked body, each chunk by itself."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        at, body = 0, self._body
        while size := int(body[at : (end := body.index(b"\r\n", at))], 16):
            at = end + 4 + size
            yield body[end + 2 : at - 2]


class _Dropped(SpanProcessor):
    """Takes spans as a batch does, with no thread that would be counted at random."""


def ways(row: Row) -> list[tuple[AsyncAnthropic, str, Callable[[], AbstractAsyncContextManager[Any]]]]:
    """The plain client and the routed one, each with the model to name and what surrounds a call."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(_Dropped())
    http = DefaultAsyncHttpxClient(transport=Canned())

    def client() -> AsyncAnthropic:
        option: Any = {"tracer_provider": provider} if row.spans else None
        return AsyncAnthropic(api_key="none", base_url="http://api", http_client=http, open_telemetry=option)

    router = Router(
        client(),
        budgets=[Budget("$1000000/day"), Budget("$1000000/hour", per="tenant")],
        classifier=ClaudeClassifier() if row.classifier else None,
        tracer_provider=provider if row.spans else None,
    )
    bind = lambda: router.bind(tenant="acme", route="/answer")  # noqa: E731
    return [(client(), PINNED, nullcontext), (router.claude, "auto", bind)]


async def make(
    row: Row, client: AsyncAnthropic, model: str, bind: Callable[[], AbstractAsyncContextManager[Any]], calls: int
) -> None:
    """So many calls."""
    for _ in range(calls):
        async with bind():
            await row.call(client, model)


def count(row: Row, calls: int, dump: Callable[[], None]) -> None:
    """Warm up, then make `calls` in each way, and none in between: `dump` ends what was counted until now."""

    async def all_of_it() -> None:
        for client, model, bind in ways(row):
            await make(row, client, model, bind, max(2, WARM // row.parts))
            gc.collect()
            gc.freeze()
            dump()
            dump()
            await make(row, client, model, bind, calls)
            dump()

    asyncio.run(all_of_it())


# How it is counted


def counted(row: Row, calls: int = 0) -> Figure:
    """The figure of one row, in a process of its own under callgrind."""
    calls = calls or row.calls
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out",
            sys.executable, "-m", "benchmarks.count", "--inside", row.name, "--calls", str(calls),
        ]  # fmt: skip
        # Names are hashed alike each time, and the switch between threads is not a matter of the clock.
        environment = {**os.environ, "PYTHONHASHSEED": "0", "TIERLINE_MODE": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{row.name}: not counted:\n{done.stderr[-2_000:]}")
        dumps = [_instructions(Path(folder, f"out.{number}")) for number in range(1, 7)]
    # Of each way: the warm-up, a dump of nothing (asking for it costs something too), the calls.
    plain, routed = dumps[2] - dumps[1], dumps[5] - dumps[4]
    each = calls * row.parts
    return Figure(round(plain / each), round((routed - plain) / each))


def _instructions(dump: Path) -> int:
    found = _SUMMARY.search(dump.read_text())
    if found is None:
        raise SystemExit("callgrind wrote no summary: is this a release that this tool does not know?")
    return int(found[1])


def _control(*words: str) -> None:
    subprocess.run(["callgrind_control", *words, str(os.getpid())], check=True, capture_output=True)


def inside(row: Row, calls: int) -> None:
    """What runs under callgrind: counting begins when all is imported."""
    _control("--instr=on")
    count(row, calls, lambda: _control("--dump"))


# What is said


def machine() -> dict[str, str]:
    """What figures are comparable on: those of another build or SDK are others."""
    return {
        "python": f"{platform.python_version()} {platform.python_compiler()} {platform.machine()}",
        "anthropic": version("anthropic"),
    }


def last_of(history: list[dict[str, Any]], here: Mapping[str, str]) -> Mapping[str, int]:
    """The latest figures of this build, by row."""
    known: dict[str, int] = {}
    for entry in history:
        if all(entry[name] == value for name, value in here.items()):
            known |= entry["added"]
    return known


def grown(figures: Mapping[str, Figure], before: Mapping[str, int]) -> list[str]:
    """The rows that cost more than two percent more than before."""
    return [
        f"{name}: {figure.added:,} instructions a call, {figure.added / before[name] - 1:+.1%}"
        for name, figure in figures.items()
        if name in before and figure.added > before[name] * (1 + MOST_GROWTH)
    ]


def table(figures: Mapping[str, Figure], before: Mapping[str, int]) -> str:
    """What was counted, beside what it was."""
    lines = [f"{'instructions a call':32}{'plain SDK':>12}{'Tierline adds':>15}{'ratio':>8}{'was':>12}"]
    for name, figure in figures.items():
        was = f"{before[name]:,}" if name in before else "-"
        ratio = 1 + figure.added / figure.plain
        lines.append(f"{name:32}{figure.plain:>12,}{figure.added:>15,}{ratio:>8.3f}{was:>12}")
    return "\n".join(lines)


def main() -> int:
    """Count, compare, and with `--record` remember. 1 where a row has grown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.count", description=__doc__.partition("\n")[0])
    parser.add_argument("--record", metavar="WHY", help="add the figures to counts.json, with what they are of")
    parser.add_argument("--row", default="", metavar="TEXT", help="only the rows with TEXT in their name")
    parser.add_argument("--calls", type=int, default=0, help="how many are counted; by default as each row has it")
    parser.add_argument("--inside", metavar="ROW", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(next(row for row in ROWS if row.name == options.inside), options.calls)
        return 0
    rows = [row for row in ROWS if options.row in row.name]
    if not rows:
        parser.error(f"no row has {options.row!r} in its name: {'; '.join(row.name for row in ROWS)}")
    if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
        parser.error("this needs valgrind, which is in the packages of most systems")
    here, history = machine(), json.loads(HISTORY.read_text())
    before = last_of(history, here)
    figures = {row.name: counted(row, options.calls) for row in rows}
    print(table(figures, before))
    if not before:
        print(f"nothing to compare with: counts.json has no figures of {', '.join(here.values())}")
    if options.record:
        entry = {"date": datetime.now(UTC).date().isoformat(), "of": options.record, **here}
        kept = {name: figure.added for name, figure in figures.items()}
        plain = {name: figure.plain for name, figure in figures.items()}
        history.append({**entry, "added": kept, "plain": plain})
        HISTORY.write_text(json.dumps(history, indent=2) + "\n")
        return 0
    more = grown(figures, before)
    for line in more:
        print(f"grown: {line}")
    return 1 if more else 0


if __name__ == "__main__":
    sys.exit(main())
