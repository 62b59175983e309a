"""A job as it goes: taken in, waited for, gone on with where it was cut off."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import typer

from tierline.cli.batch_showing import told_of
from tierline.cli.stores import plain_text
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.batches import BatchStatus, JobReport
    from tierline.batches.values import Lane, WhenFull
    from tierline.cli.batch_reading import Requests
    from tierline.cli.batch_showing import Shown
    from tierline.router import Router

_TICK: Final = 0.5
"""Seconds between two looks; longer where one takes long, so that looking takes no more than a third of the time."""
_MOST_TOLD: Final = 50
"""Lines about bad lines."""


class Asked(NamedTuple):
    """What a job is to be."""

    name: str
    source: str
    when_full: WhenFull
    lane: Lane
    wait: bool


class Complaints:
    """Says on stderr what is wrong with lines, as far as anybody reads that."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self.number = 0

    def __call__(self, place: int, name: str | None, why: str) -> None:
        """A request that is none, or has no room."""
        self.number += 1
        if self.number > _MOST_TOLD:
            return
        if not why.startswith("line"):
            why = f"line {self._requests.line_of(place)}: {why}"
        about = f" ({plain_text(name)})" if name else ""
        typer.echo(f"{plain_text(why)}{about}", err=True)
        if self.number == _MOST_TOLD:
            typer.echo("what else is wrong with lines is in the results, and not said here", err=True)


async def begun(router: Router[Any], asked: Asked) -> BatchStatus | None:
    """The job as it is before, None where there is none. Waits for one who submits to it, or was killed in doing so.

    ConfigurationError where that one lives.
    """
    patience = time.monotonic() + router.ledger.lease + 5
    told = False
    while asked.name in await router.batches.jobs():
        found = await router.batches.status(asked.name, work=False)
        if found.state != "submitting":
            return found
        if time.monotonic() > patience:
            raise ConfigurationError(f"job {asked.name!r:.80} is being submitted by another process: wait for that one")
        if not told:
            typer.echo(
                f"another process submits to job {plain_text(asked.name)}, or was killed while it did: waiting up to "
                f"{router.ledger.lease:.0f} s for it",
                err=True,
            )
        told = True
        await asyncio.sleep(_TICK)
    return None


async def run(
    router: Router[Any], requests: Requests, asked: Asked, shown: Shown, tell: Callable[[int, str | None, str], None]
) -> tuple[BatchStatus, JobReport]:
    """Submit, wait if that is asked for, and say how it is then."""
    batches = router.batches
    submitting = batches.submit(
        requests, job=asked.name, when_full=asked.when_full, lane=asked.lane, source=asked.source, told=tell
    )
    await _watched(router, asked.name, submitting, shown, lambda _: ("reading", requests.read, requests.size))
    if asked.wait:
        await waited(router, asked.name, shown)
    return await told_of(router, asked.name, work=False)


async def waited(router: Router[Any], job: str, shown: Shown) -> None:
    """Wait for the end of a job."""

    def done(report: JobReport | None) -> tuple[str, int, int]:
        total = report.total if report is not None else None
        number = total.requests if total is not None else 0
        return "answers", number - (total.outcomes.get("processing", 0) if total is not None else 0), number

    await _watched(router, job, router.batches.wait(job), shown, done)


async def _watched(
    router: Router[Any], job: str, doing: Any, shown: Shown, how_far: Callable[[JobReport | None], tuple[str, int, int]]
) -> None:
    """Await something, and say meanwhile how far it is."""
    task = asyncio.ensure_future(doing)
    report: JobReport | None = None
    try:
        while not task.done():
            began = time.monotonic()
            if job in await router.batches.jobs():
                report = await router.batches.report(job)
            shown.at(*how_far(report), report)
            await asyncio.wait({task}, timeout=max(_TICK, 3 * (time.monotonic() - began)))
        await task
        shown.at(*how_far(report), report)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
