"""Many processes on one ledger, some of them killed: the storm, and what holds after it.

A process reserves, waits a little, settles, and writes down what it does before and after each step, so that also what
a dead one did is known to the last nano-USD: what it wrote that it would settle is settled unless the ledger still
holds it, and what the ledger still holds is its estate.

    python -m tests.processes.storm sqlite:///storm.db --worker NAME --log NOTES       (one of the processes)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.processes.stores import ledger_of
from tierline.budgets import Budget, Line
from tierline.ledger import Reservation
from tierline.values import Offer
from tierline.windows import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierline.ledger import Balance, Ledger

ROOT = Path(__file__).parents[2]
TENANTS = ("acme", "globex", "initech", "umbrella", "hooli")
CENT = 10_000_000


def budgets(total: int) -> tuple[Budget, Budget, Budget]:
    """Of all, by tenant and day, and by tenant and hour: tight when nearly `total` dollars are spent."""
    return (
        Budget(f"${total}", name="all"),
        Budget(f"${total * 0.23:.2f}/day", "tenant", "daily"),
        Budget(f"${total * 0.21:.2f}/60m rolling", "tenant", "hourly"),
    )


async def play(ledger: Ledger, name: str, calls: int, concurrency: int, total: int, note: Any) -> None:
    """One process: so many calls, so many at a time, all noted."""
    everything, daily, hourly = budgets(total)
    chance = random.Random(name)  # noqa: S311
    numbers = iter(range(calls))
    open_now: dict[str, Reservation] = {}

    async def call(number: int) -> None:
        key = f"{name}-{number}"
        tenant = chance.choice(TENANTS)
        dear = chance.randint(1, 4 * CENT)
        offers = [Offer("opus", "o", dear), Offer("sonnet", "s", dear // 3 + 1), Offer("haiku", "h", dear // 9 + 1)]
        lines = [everything.line("global"), daily.line(tenant), hourly.line(tenant)]
        started = time.perf_counter()
        held = await ledger.reserve(key, offers, lines, thresholds=False)
        reserved = time.perf_counter() - started
        if not isinstance(held, Reservation):
            assert held.needed is not None
            note("refused", key, room=held.limit - held.spent - held.held, needed=held.needed, s=reserved)
            return
        open_now[key] = held
        over = [
            line.budget for (line, _), used in zip(held.lines, held.used, strict=True) if used + held.cost > line.limit
        ]
        note("held", key, cost=held.cost, tenant=tenant, over=over, leased=held.leased, s=reserved)
        await asyncio.sleep(chance.random() * 0.02)
        cost = chance.randint(0, held.cost)
        note("settling", key, cost=cost)
        started = time.perf_counter()
        assert await ledger.settle(held, cost)
        del open_now[key]
        note("settled", key, s=time.perf_counter() - started)

    async def lane() -> None:
        for number in numbers:
            await call(number)

    async def renew() -> None:
        while True:
            await asyncio.sleep(ledger.lease / 3)
            await ledger.renew(tuple(open_now.values()))

    beat = asyncio.create_task(renew())
    await asyncio.gather(*(lane() for _ in range(concurrency)))
    beat.cancel()
    await asyncio.gather(beat, return_exceptions=True)
    await ledger.aclose()


def worker(url: str, name: str, log: str, calls: int, concurrency: int, total: int, lease: float) -> None:
    """The main function of a process. Its notes are complete lines, written at once: a kill cuts none."""
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def note(what: str, key: str, **more: Any) -> None:
        os.write(descriptor, (json.dumps({"what": what, "key": key, **more}) + "\n").encode())

    asyncio.run(play(ledger_of(url, lease=lease), name, calls, concurrency, total, note))


@dataclass
class Storm:
    """What the processes of a storm wrote down, and how they ended."""

    codes: list[int]
    killed: int
    seconds: float
    notes: list[dict[str, Any]] = field(default_factory=list)

    def of(self, what: str) -> Iterator[dict[str, Any]]:
        """The notes of one kind."""
        return (note for note in self.notes if note["what"] == what)


def rage(
    url: str, *, processes: int, concurrency: int, calls: int, kills: int, total: int, lease: float, seed: int
) -> Storm:
    """Let so many processes share `calls` calls and `total` dollars, and kill some of them at random moments."""
    chance = random.Random(seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{place}.jsonl" for place in range(processes)]
        started = time.monotonic()
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.processes.storm", url, "--worker", f"{seed}-{place}", "--log", str(log),
                 "--calls", str(calls // processes), "--concurrency", str(concurrency), "--total", str(total),
                 "--lease", str(lease)],
                cwd=ROOT,
            )
            for place, log in enumerate(logs)
        ]  # fmt: skip
        try:
            victims = chance.sample(range(processes), kills)
            for victim in victims:
                # Somewhere in the middle of its work: each call is noted once at least, and three times at most.
                until = chance.uniform(0.2, 0.6) * calls // processes
                while running[victim].poll() is None and _lines(logs[victim]) < until:
                    time.sleep(0.01)
                running[victim].send_signal(signal.SIGKILL)
            codes = [process.wait(300) for process in running]
        finally:
            for process in running:
                process.kill()
                process.wait()
        notes = [json.loads(line) for log in logs if log.exists() for line in log.read_text().splitlines()]
        return Storm(codes, codes.count(-signal.SIGKILL), time.monotonic() - started, notes)


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


async def reckon(url: str, storm: Storm, *, lease: float) -> dict[str, int]:
    """Hold the ledger against everybody's notes, as soon as the storm is over and again at rest; say what was seen.

    Before the leases of the dead have ended: afterwards, what they left cannot be told from what they settled.
    """
    passed = 0.0
    ledger = ledger_of(url, lease=lease, ahead=lambda: passed)
    held = {note["key"]: note for note in storm.of("held")}
    settling = {note["key"]: note["cost"] for note in storm.of("settling")}
    for note in storm.notes:
        if note["what"] == "held":
            assert not note["over"], f"admitted over {note['over']}"
        elif note["what"] == "refused":
            assert note["needed"] > note["room"], "refused although the worst case would have fitted"

    estate = {hold.id: hold for hold in await ledger.holds()}
    paid: Counter[str] = Counter()
    for key, cost in settling.items():
        if key not in estate:
            paid[held[key]["tenant"]] += cost
    before = {(each.budget, each.account): each for each in await ledger.balances()}
    assert not any(balance.estimated for balance in before.values()), "no lease ended during the storm"
    assert before["all", "global"].spent == sum(paid.values())
    for tenant in TENANTS:
        assert before["daily", tenant].spent == before["hourly", tenant].spent == paid[tenant]

    passed = max((hold.lapses_at for hold in estate.values()), default=0.0) - time.time() + 0.5 if estate else 0.0
    after = {(each.budget, each.account): each for each in await ledger.balances()}
    lapsed: Counter[tuple[str, str]] = Counter()
    for hold in estate.values():
        for account in hold.accounts:
            lapsed[account] += hold.cost
    for account, balance in after.items():
        assert balance.held == 0, "nothing is held at rest"
        assert balance.estimated == lapsed[account]
        assert balance.spent == before[account].spent + lapsed[account], "spent = settled + expired"
        assert balance.spent <= balance.limit, "overshoot"
    rest = await _fill(ledger, after["all", "global"])
    spent = sum(row.cost for row in await ledger.history(0))
    assert spent == after["all", "global"].spent + rest, "history has what the balances have"
    await ledger.aclose()
    return {
        "admitted": len(held),
        "refused": sum(1 for _ in storm.of("refused")),
        "settled": sum(paid.values()),
        "expired": sum(hold.cost for hold in estate.values()),
        "estate": len(estate),
    }


async def reckon_leased(url: str, storm: Storm, *, lease: float) -> dict[str, int]:
    """The same where processes lease slices: of the dead, nobody knows what they had told; their slices are spent."""
    ledger = ledger_of(url, lease=lease)
    settled = {note["key"]: note["cost"] for note in storm.of("settling")}
    for note in storm.of("refused"):
        assert note["needed"] > note["room"], "refused although the worst case would have fitted"
    really: Counter[str] = Counter()
    for note in storm.of("held"):
        assert not note["over"], f"admitted over {note['over']}"
        really[note["tenant"]] += settled.get(note["key"], note["cost"])  # what is in flight may yet cost all of it

    until = time.monotonic() + lease + 10
    while True:
        after = {(each.budget, each.account): each for each in await ledger.balances()}
        assert all(each.spent + each.held <= each.limit for each in after.values()), "overshoot"
        if not any(each.held for each in after.values()):
            break
        assert time.monotonic() < until, "something is still held"
        await asyncio.sleep(0.2)
    await asyncio.sleep(0 if not storm.killed else lease)  # slices of which nothing was in flight are held by nobody
    after = {(each.budget, each.account): each for each in await ledger.balances()}
    for tenant in TENANTS:
        for budget in ("daily", "hourly"):
            balance = after[budget, tenant]
            assert really[tenant] <= balance.spent <= balance.limit
            assert storm.killed or (balance.spent, balance.estimated) == (really[tenant], 0)
    everything = after["all", "global"]
    assert sum(really.values()) <= everything.spent <= everything.limit
    assert everything.spent - sum(really.values()) <= everything.estimated, "what is more is marked as an estimate"
    rest = await _fill(ledger, everything)
    assert sum(row.cost for row in await ledger.history(0)) == everything.spent + rest
    await ledger.aclose()
    return {
        "admitted": sum(1 for _ in storm.of("held")),
        "leased": sum(1 for note in storm.of("held") if note["leased"]),
        "refused": sum(1 for _ in storm.of("refused")),
        "settled": sum(really.values()),
        "estimated": everything.estimated,
    }


async def _fill(ledger: Ledger, everything: Balance) -> int:
    """What is left can be had to the last nano-USD, and no more than that. How much it was."""
    room = everything.limit - everything.spent
    lines = [Line(everything.budget, everything.account, everything.limit, Window("total"))]
    assert not isinstance(await ledger.reserve("too-much", [Offer("haiku", "h", room + 1)], lines), Reservation)
    if not room:
        return 0
    held = await ledger.reserve("the-rest", [Offer("haiku", "h", room)], lines)
    assert isinstance(held, Reservation), "refused although it fits"
    assert await ledger.settle(held, room)
    return room


def main() -> None:
    """Run one of the processes."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("url")
    read.add_argument("--worker", required=True)
    read.add_argument("--log", required=True)
    read.add_argument("--calls", type=int, default=10_000)
    read.add_argument("--concurrency", type=int, default=50)
    read.add_argument("--total", type=int, default=50)
    read.add_argument("--lease", type=float, default=10.0)
    said = read.parse_args()
    worker(said.url, said.worker, said.log, said.calls, said.concurrency, said.total, said.lease)


if __name__ == "__main__":
    main()
