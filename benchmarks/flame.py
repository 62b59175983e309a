"""Where the time of a routed call goes, as a flame graph.

    python -m benchmarks.flame FILE.svg [--row TEXT] [--seconds N] [--title TEXT]

The call is one of `benchmarks.count`: its answer is there at once. A timer that counts CPU time looks at what is
running, a thousand times a second or as often as the system lets it. Each box is a function, as wide as its share of
the time, on top of the one that called it; boxes of less than half a percent are left out. Tierline's are in colour.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from collections import Counter
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.count import ROWS, WARM, make, ways

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from benchmarks.count import Row

EVERY: Final = 0.001
"""Seconds of CPU time between two looks."""
SECONDS: Final = 20.0
WIDTH: Final = 1200
HEIGHT: Final = 17
LEAST: Final = 0.005
"""Share of the time from which on a box is drawn."""
LETTER: Final = 6.2
"""Width of a letter of a box, about."""
_COLOURS: Final = {"tierline": "#e8804d", "anthropic": "#a9b8c9", "httpx2": "#c3ccd6", "": "#dde2e8"}

Stack = tuple[str, ...]


def stack_of(frame: FrameType | None) -> Stack:
    """Outermost first: `package.module function`, from the function on that makes the calls."""
    names: list[str] = []
    while frame is not None and frame.f_code is not make.__code__:
        names.append(f"{frame.f_globals.get('__name__', '')} {frame.f_code.co_name}")
        frame = frame.f_back
    return tuple(reversed(names)) if frame is not None else ()


async def sample(row: Row, seconds: float) -> Counter[Stack]:
    """How often which stack was met in so many seconds of routed calls."""
    seen: Counter[Stack] = Counter()
    _, (client, model, bind) = ways(row)
    await make(row, client, model, bind, WARM)

    def look(_signal: int, frame: FrameType | None) -> None:
        if stack := stack_of(frame):
            seen[stack] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
    try:
        ends = time.process_time() + seconds
        while time.process_time() < ends:
            await make(row, client, model, bind, 10)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return seen


def boxes(seen: Counter[Stack]) -> Iterator[tuple[int, float, float, str]]:
    """Depth, where it begins, its share of all, and the name, of each box that is wide enough."""
    whole = sum(seen.values())

    def within(stacks: Counter[Stack], depth: int, left: float) -> Iterator[tuple[int, float, float, str]]:
        inner: dict[str, Counter[Stack]] = {}
        for stack, number in stacks.items():
            if len(stack) > depth:
                inner.setdefault(stack[depth], Counter())[stack] += number
        for name in sorted(inner):
            share = sum(inner[name].values()) / whole
            if share >= LEAST:
                yield depth, left, share, name
                yield from within(inner[name], depth + 1, left)
            left += share

    yield from within(seen, 0, 0.0)


def drawn(seen: Counter[Stack], title: str) -> str:
    """The graph as SVG."""
    found = list(boxes(seen))
    height = (max(depth for depth, *_ in found) + 1) * HEIGHT + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="4" y="14" font-size="12">{escape(title)}</text>',
    ]
    for depth, left, share, name in found:
        module, _, function = name.partition(" ")
        x, width, y = left * WIDTH, share * WIDTH, height - (depth + 1) * HEIGHT
        colour = _COLOURS.get(module.partition(".")[0], _COLOURS[""])
        told = f"{module.partition('.')[2] or module}.{function}"[: max(0, int((width - 4) / LETTER))]
        parts.append(
            f'<g><title>{escape(name)}: {share:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
            f'height="{HEIGHT - 1}" fill="{colour}" stroke="#fff" stroke-width=".5"/>'
            f'<text x="{x + 2:.1f}" y="{y + 12}" font-size="10">{escape(told) if len(told) > 2 else ""}</text></g>'
        )
    return "\n".join([*parts, "</svg>", ""])


def own_share(seen: Counter[Stack]) -> float:
    """The share of the time that is spent in Tierline's own functions, and in what of Python's they call."""
    own = 0
    for stack, number in seen.items():
        packages: list[Any] = [name.partition(" ")[0].partition(".")[0] for name in stack]
        of = next((package for package in reversed(packages) if package in _COLOURS), "")
        own += number if of == "tierline" else 0
    return own / sum(seen.values())


def main() -> None:
    """Sample, and draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flame", description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--row", default=ROWS[0].name, metavar="TEXT", help="the row of benchmarks.count")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of CPU time")
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    row = next((row for row in ROWS if options.row in row.name), None)
    if row is None:
        parser.error(f"no row has {options.row!r} in its name: {'; '.join(row.name for row in ROWS)}")
    seen = asyncio.run(sample(row, options.seconds))
    share = own_share(seen)
    title = f"{options.title or row.name}: {share:.0%} of the time is Tierline's ({sum(seen.values()):,} samples)"
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text(drawn(seen, title))
    print(title)


if __name__ == "__main__":
    main()
