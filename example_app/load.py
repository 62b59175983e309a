"""Load on the desk: `python -m example_app.load --users 8 --requests 400`. Many users, tenants and routes at once.

Some read their stream to its end, some leave in the middle of it, some give up waiting. At the end it shows what was
answered by which tier, for how much, how fast, what was refused and what failed, and whether the ledger has what the
API billed, to the nano-dollar. Ctrl-C ends it early, and shows what came so far.

Without --url it starts a desk of its own, with several workers on one SQLite file and a stand-in for the API: nothing
costs anything, and the bill is known. With --url it calls a desk that runs; who bills there is not asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from example_app.offline import stand_in
from example_app.people import KEYS
from tierline import Router
from tierline.testing import FakeClaude
from tierline.values import usd

PROMPTS = Path(__file__).with_name("prompts.jsonl")
ROUTES = ("/answer", "/classify", "/contracts", "/summary", "/order", "/agent", "/quick", "/chat", "/chat")
LEAVES = 0.25
"""The share of chats that are left in the middle."""
GIVES_UP = 0.05
"""The share of all others whose user waits no longer than a moment."""
MOMENT = 0.02
SHOWN_ERRORS = 8


@dataclass
class Seen:
    """What came of all requests so far. Times in seconds."""

    tiers: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    left: int = 0

    @property
    def asked(self) -> int:
        """Requests that have ended, in whatever way."""
        return self.statuses.total() + self.left + self.errors.total()


def percentile(seconds: Sequence[float], share: float) -> float:
    """The nearest rank: the least of them that so large a share is not above. 0.0 where there are none."""
    ordered = sorted(seconds)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0.0


class User:
    """Somebody who asks one thing after the other, each for the tenant of its prompt."""

    def __init__(self, http: httpx.AsyncClient, seen: Seen, seed: int, *, patient: bool) -> None:
        self._http, self._seen, self._patient = http, seen, patient
        self._rng = random.Random(seed)  # noqa: S311  (which prompt is next is no secret)
        self._prompts = [json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines()]
        self._keys = {tenant: key for key, tenant in KEYS.items()}

    async def ask(self) -> None:
        """One request, and what became of it."""
        prompt, route = self._rng.choice(self._prompts), self._rng.choice(ROUTES)
        headers = {"authorization": f"Bearer {self._keys[prompt['tenant']]}"}
        body = {"text": prompt["text"], "history": prompt.get("history", [])}
        self._seen.routes[route] += 1
        began = time.perf_counter()
        try:
            if route == "/chat":
                await self._chat(headers, body, leaves=not self._patient and self._rng.random() < LEAVES)
            else:
                hurried = not self._patient and self._rng.random() < GIVES_UP
                timeout = httpx.Timeout(None, read=MOMENT if hurried else None)
                response = await self._http.post(route, headers=headers, json=body, timeout=timeout)
                self._note(response.status_code, response.json() if response.is_success else {})
        except httpx.ReadTimeout:
            self._seen.left += 1
            return
        except asyncio.CancelledError:
            self._seen.left += 1
            raise
        except (httpx.HTTPError, ValueError) as error:
            self._seen.errors[f"{route}: {type(error).__name__}"] += 1
            return
        self._seen.seconds.append(time.perf_counter() - began)

    async def _chat(self, headers: dict[str, str], body: dict[str, Any], *, leaves: bool) -> None:
        async with self._http.stream("POST", "/chat", headers=headers, json=body, timeout=None) as response:
            last = ""
            async for line in response.aiter_lines():
                if leaves and line.startswith("data: "):
                    self._seen.left += 1
                    return
                last = line.removeprefix("data: ") or last
            ended = json.loads(last) if response.is_success and last else {}
            # A refusal after the stream has begun is its last event.
            self._note(ended.get("status", response.status_code), {"why": ended} if "tier" in ended else {})

    def _note(self, status: int, answer: dict[str, Any]) -> None:
        self._seen.statuses[str(status)] += 1
        for why in [step["why"] for step in answer.get("steps", ())] or [answer.get("why")]:
            if why is not None:
                self._seen.tiers[why["tier"]] += 1


async def drive(url: str, asked: argparse.Namespace) -> Seen:
    """Let them ask until it is enough, or Ctrl-C: what came until then."""
    users, requests = asked.users, asked.requests
    seen, ended = Seen(), asyncio.Event()
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError, RuntimeError, ValueError):  # a signal is the main thread's
        loop.add_signal_handler(signal.SIGINT, ended.set)
    begun = 0
    limits = httpx.Limits(max_connections=users, max_keepalive_connections=users)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=None) as http:  # noqa: S113  (users wait)

        async def one(number: int) -> None:
            nonlocal begun
            user = User(http, seen, asked.seed * 1_000 + number, patient=asked.patient)
            while not ended.is_set() and (requests is None or begun < requests):
                begun += 1
                await user.ask()

        tasks = [asyncio.create_task(one(number)) for number in range(users)]
        waiting = asyncio.create_task(ended.wait())
        all_done = asyncio.ensure_future(asyncio.gather(*tasks))
        both: list[asyncio.Future[Any]] = [waiting, all_done]
        await asyncio.wait(both, timeout=asked.seconds, return_when=asyncio.FIRST_COMPLETED)
        ended.set()
        # Whoever still waits leaves, as users do: what had begun is charged all the same.
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        waiting.cancel()
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.remove_signal_handler(signal.SIGINT)
    return seen


@asynccontextmanager
async def desk(fake: FakeClaude, api: str, directory: Path, workers: int) -> AsyncIterator[tuple[str, str]]:
    """A desk of its own, up: its URL and its store. Afterwards it is down, and has settled what was open."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = f"sqlite:///{directory / 'load.db'}"
    environment = {**os.environ, "ANTHROPIC_API_KEY": fake.api_key, "ANTHROPIC_BASE_URL": api, "TIERLINE_STORE": store}
    words = ["--factory", "example_app.main:build", "--port", str(port), "--workers", str(workers)]
    log = directory / "desk.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "uvicorn", *words, "--log-level", "warning", "--timeout-graceful-shutdown", "20",
            env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url) as http:
            while True:
                if process.returncode is not None:
                    sys.exit(f"the desk did not come up:\n{log.read_text('utf-8')}")
                with suppress(httpx.HTTPError):
                    if (await http.get("/ready")).is_success:
                        break
                await asyncio.sleep(0.1)
        yield url, store
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def ledger_of(store: str) -> tuple[int, int]:
    """What was charged to everybody in all, and what is still held, in nano-USD."""
    router: Router[Any] = Router(store=store)
    try:
        rows = [row for row in await router.balances() if row.account == "global"]
        return sum(row.spent for row in rows), sum(row.held for row in rows)
    finally:
        await router.aclose()


def show(console: Console, seen: Seen, took: float) -> None:
    """What came, as a table."""
    table = Table(box=None, pad_edge=False, show_header=False)
    told = ", ".join(f"{status} {count}" for status, count in sorted(seen.statuses.items()))
    refused = seen.statuses["402"] + seen.statuses["429"]
    rows = (
        ("requests", f"{seen.asked} in {took:.1f} s, {seen.asked / max(took, 1e-9):.1f} a second"),
        ("answered", told or "none"),
        ("refused", f"{refused} by a budget"),
        ("left", f"{seen.left} by their user"),
        ("calls by tier", ", ".join(f"{tier} {count}" for tier, count in seen.tiers.most_common()) or "none"),
        ("by route", ", ".join(f"{route} {count}" for route, count in seen.routes.most_common())),
        (
            "time",
            f"{percentile(seen.seconds, 0.5):.3f} s p50, {percentile(seen.seconds, 0.95):.3f} s p95, as users wait",
        ),
        ("errors", ", ".join(f"{what} {n}" for what, n in seen.errors.most_common(SHOWN_ERRORS)) or "none"),
    )
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


async def run(asked: argparse.Namespace, console: Console) -> bool:
    """Load a desk, show what came, and say whether it is well: no errors, and the ledger has what was billed."""
    if asked.url:
        began = time.perf_counter()
        seen = await drive(asked.url, asked)
        show(console, seen, time.perf_counter() - began)
        return not seen.errors
    fake = stand_in(chunk_delay=asked.chunk_delay)
    with tempfile.TemporaryDirectory() as name:
        async with fake.serve() as api:
            async with desk(fake, api, Path(name), asked.workers) as (url, store):
                console.print(f"A desk of {asked.workers} workers is up at {url}. Ctrl-C ends it early.")
                began = time.perf_counter()
                seen = await drive(url, asked)
                took = time.perf_counter() - began
            await fake.idle()
            show(console, seen, took)
            spent, held = await ledger_of(store)
            broken = seen.errors.total() + sum(n for status, n in seen.statuses.items() if status >= "500")
            return told(console, spent, held, fake.billed, left=seen.left) and not broken


def told(console: Console, spent: int, held: int, billed: int, *, left: int) -> bool:
    """Compare the ledger with the bill. What nobody could report is charged as estimated: more than was billed."""
    console.print(f"ledger         {usd(spent)} charged, {usd(held)} held; billed {usd(billed)}")
    if held:
        console.print("[bold red]Something is held, and nothing is in flight.[/]")
    elif spent == billed:
        console.print("[green]The ledger has what was billed, to the nano-dollar.[/]")
    elif spent > billed and left:
        console.print(
            f"The ledger has {usd(spent - billed)} more: calls that were left before the API told what they used are "
            "charged as estimated."
        )
    else:
        console.print(f"[bold red]The ledger is off by {usd(spent - billed)}, which nothing explains.[/]")
    return not held and (spent == billed or (spent > billed and left > 0))


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 1 where something failed, or the ledger has less than was billed."""
    parser = argparse.ArgumentParser("python -m example_app.load", description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, default=8, help="who ask at the same time")
    parser.add_argument("--requests", type=int, help="end after so many; 400 where --seconds is not given either")
    parser.add_argument("--seconds", type=float, help="end after so long")
    parser.add_argument("--workers", type=int, default=2, help="of the desk that is started")
    parser.add_argument("--url", help="a desk that runs, such as http://localhost:8000")
    parser.add_argument("--seed", type=int, default=1, help="the same seed asks the same")
    parser.add_argument("--patient", action="store_true", help="nobody leaves: the ledger is then the bill exactly")
    parser.add_argument("--chunk-delay", type=float, default=0.002, help="seconds between the events of a stream")
    asked = parser.parse_args(arguments)
    if asked.requests is None and asked.seconds is None:
        asked.requests = 400
    if any(each is not None and each <= 0 for each in (asked.users, asked.workers, asked.requests, asked.seconds)):
        parser.error("--users, --workers, --requests and --seconds are above 0")
    sys.exit(not asyncio.run(run(asked, Console(highlight=False, soft_wrap=True))))


if __name__ == "__main__":
    main()
