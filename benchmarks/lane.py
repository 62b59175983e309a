"""How soon a job is done under the API's rate limits: the concurrent lane, beside a semaphore over the SDK.

    python -m benchmarks.lane [--quick] [--json FILE]

Each way sends the same requests to a FakeClaude of its own that enforces limits by the minute, as the API does: buckets
that fill at an even rate, 429 with `retry-after` where one is empty. All run at the same time, each in a process of its
own, so that what slows the machine down slows all of them down; the limits do, for nearly all of the time. A semaphore
is how it is done by hand: `asyncio.Semaphore(n)`, `gather`, and the SDK's own retries. Above stands the least that the
limits allow: what is more than the first minute has at once, at the even rate, without the time of an answer.

- failed: requests that have no answer after all retries
- 429s: answers of the API, each of which is a request for nothing
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from anthropic import APIError, AsyncAnthropic
from rich.console import Console
from rich.table import Table

from tierline import Ladder, Router
from tierline.batches import BatchRequest
from tierline.classify import FixedClassifier
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

MODEL: Final = "claude-haiku-4-5"
LATENCY: Final = 4.0
ROUNDS: Final = 2
_RATE_LIMITED: Final = 429


class Scene(NamedTuple):
    """What is asked, and under which limits."""

    name: str
    limits: Mapping[str, int]
    number: int
    length: tuple[int, int]
    """Characters of a prompt: from, to."""


SCENES: Final = (
    Scene("requests", {"requests": 120, "input-tokens": 2_000_000, "output-tokens": 400_000}, 210, (200, 2_000)),
    Scene("tokens of input", {"requests": 4_000, "input-tokens": 100_000, "output-tokens": 400_000}, 210, (200, 7_000)),
)
WARM: Final = Scene("nothing", {"requests": 4_000}, 5, (200, 300))


class Run(NamedTuple):
    """One way through one scene."""

    seconds: float
    limited: int
    failed: int


def requests_of(scene: Scene) -> list[dict[str, Any]]:
    """The same for every way."""
    dice = random.Random(7)
    return [
        {
            "model": MODEL,
            "max_tokens": 100,
            "messages": [{"role": "user", "content": f"{n} " + "word " * (dice.randint(*scene.length) // 5)}],
        }
        for n in range(scene.number)
    ]


async def semaphore(url: str, key: str, said: list[dict[str, Any]], most: int, retries: int = 2) -> tuple[float, int]:
    """By hand. Seconds that it took, and how many failed."""
    gate = asyncio.Semaphore(most)

    async with AsyncAnthropic(api_key=key, base_url=url, max_retries=retries) as client:

        async def one(params: dict[str, Any]) -> bool:
            async with gate:
                try:
                    await client.messages.create(**params)
                except APIError:
                    return False
                return True

        began = time.perf_counter()
        found = await asyncio.gather(*map(one, said))
        return time.perf_counter() - began, found.count(False)


async def lane(url: str, key: str, said: list[dict[str, Any]]) -> tuple[float, int]:
    """`router.batches.submit(lane="concurrent")`, with a store on the disk, in an app that has started. The same."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncAnthropic(api_key=key, base_url=url) as client:
            router = Router(
                client,
                ladder=Ladder.of(haiku=MODEL, opus="claude-opus-4-8"),
                classifier=FixedClassifier("simple"),
                store=f"sqlite:///{folder}/a.db",
            )
            given = (BatchRequest(str(n), {**each, "model": "auto"}) for n, each in enumerate(said))
            async with router.lifespan():
                began = time.perf_counter()
                job = await router.batches.submit(given, lane="concurrent")
                seconds = time.perf_counter() - began
                status = await router.batches.status(job)
    return seconds, len(said) - status.succeeded


WAYS: Final[dict[str, Callable[[str, str, list[dict[str, Any]]], Awaitable[int]]]] = {
    "Semaphore(5)": lambda url, key, said: semaphore(url, key, said, 5),
    "Semaphore(50)": lambda url, key, said: semaphore(url, key, said, 50),
    "Semaphore(50), max_retries=20": lambda url, key, said: semaphore(url, key, said, 50, 20),
    "concurrent lane": lane,
}


async def apart(scene: Scene, way: str) -> Run:
    """One way through one scene, in a process of its own."""
    command = (sys.executable, "-m", "benchmarks.lane", "--one", scene.name, way)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return Run(*json.loads(said))


async def one(name: str, way: str) -> Run:
    """The same in this process, when all is imported."""
    await measured(WARM, way)
    return await measured(next(scene for scene in SCENES if scene.name == name), way)


async def measured(scene: Scene, way: str) -> Run:
    """One way through one scene, with a fake of its own."""
    fake = FakeClaude(limits=scene.limits, latency=LATENCY, keep=100_000)
    async with fake.serve() as url:
        seconds, failed = await WAYS[way](url, fake.api_key, requests_of(scene))
    return Run(seconds, sum(each.status == _RATE_LIMITED for each in fake.requests), failed)


def least(scene: Scene) -> float:
    """Seconds that the limits allow at least."""
    tokens = sum(len(each["messages"][0]["content"]) // 4 for each in requests_of(scene))
    asked = {"requests": scene.number, "input-tokens": tokens}
    return max((asked[kind] - scene.limits[kind]) * 60 / scene.limits[kind] for kind in asked)


async def main(rounds: int, file: str) -> None:
    """Measure and show everything."""
    runs: dict[tuple[str, str], list[Run]] = {(scene.name, way): [] for scene in SCENES for way in WAYS}
    for _ in range(rounds):
        found = await asyncio.gather(*(apart(scene, way) for scene in SCENES for way in WAYS))
        for each, run in zip(runs.values(), found, strict=True):
            each.append(run)
    console = Console(width=100)
    for scene in SCENES:
        shown = Table(
            title=f"{scene.number} requests of {LATENCY:g} s, limited by {scene.name}: at least {least(scene):.0f} s",
            title_justify="left",
        )
        for name in ("", "seconds", "ratio", "429s", "failed"):
            shown.add_column(name, justify="left" if not name else "right")
        ours = median([run.seconds for run in runs[scene.name, "concurrent lane"]])
        for way in WAYS:
            mine = runs[scene.name, way]
            seconds = median([run.seconds for run in mine])
            shown.add_row(
                way,
                f"{seconds:.0f}",
                f"{seconds / ours:.2f}",
                f"{median([run.limited for run in mine]):.0f}",
                f"{median([run.failed for run in mine]):.0f}",
            )
        console.print(shown)
    if file:
        said = {" | ".join(key): [run._asdict() for run in each] for key, each in runs.items()}
        await asyncio.to_thread(Path(file).write_text, json.dumps(said, indent=1))


def median(numbers: list[float] | list[int]) -> float:
    """Of a few runs."""
    return float(sorted(numbers)[len(numbers) // 2])


if __name__ == "__main__":
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--quick", action="store_true", help="one round")
    read.add_argument("--json", default="", help="write the figures to this file")
    read.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = read.parse_args()
    if given.one:
        json.dump(asyncio.run(one(*given.one)), sys.stdout)
    else:
        asyncio.run(main(1 if given.quick else ROUNDS, given.json))
