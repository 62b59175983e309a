"""What the pages on parts of one's own show does what it says."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.pages import DOCS, ROOT, blocks, names_of
from tierline import Budget
from tierline.classify import CascadeClassifier, FixedClassifier
from tierline.errors import BudgetExceededError, LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tierline import Router
    from tierline.testing import FakeClaude, LedgerConformance

LEDGER = names_of(DOCS / "writing-a-ledger.md")
"""The ledger of the page, and the suite below it, which is collected here as the page says."""
TestFileLedger: type[LedgerConformance] = LEDGER["TestFileLedger"]


async def test_calls_under_the_ledger_of_the_page(make_router: Callable[..., Router], tmp_path: Path) -> None:
    """A Router with it refuses what another one has spent, and both see the same balance."""
    file = tmp_path / "ledger"
    ask = {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": "Why?"}]}
    first, second = (
        make_router(ledger=LEDGER["FileLedger"](file), budgets=[Budget("$0.001", name="all")]) for _ in range(2)
    )
    refused = 0
    for _ in range(10):
        for router in (first, second):
            try:
                await router.claude.messages.create(**ask)
            except BudgetExceededError:
                refused += 1
    assert 0 < refused < 20
    assert await first.balances() == await second.balances()
    (balance,) = await first.balances()
    assert (balance.held, balance.spent) == (0, first.report().cost + second.report().cost)
    assert balance.spent <= balance.limit
    assert b"Why?" not in file.read_bytes()


def test_a_process_that_is_killed_loses_nothing_of_it(tmp_path: Path) -> None:
    """What it had settled is there afterwards, what it held lapses, and half a step is no step."""
    file = tmp_path / "ledger"
    code = "".join(block for language, block in blocks(DOCS / "writing-a-ledger.md") if language == "python")
    code += textwrap.dedent(f"""
        from tierline.testing._ledger.world import line, offer
        async def work():
            ledger = FileLedger(Path({str(file)!r}), lambda: 0.0)
            for n in range(1_000_000):
                held = await ledger.reserve(str(n), [offer(1)], [line(10**9, window="total")])
                print(n, flush=True)
                await ledger.settle(held, 1)
        asyncio.run(work())
    """)
    with subprocess.Popen(  # noqa: S603  (our own interpreter)
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    ) as worker:  # fmt: skip
        assert worker.stdout is not None
        told = [int(worker.stdout.readline()) for _ in range(20)][-1]
        worker.send_signal(signal.SIGKILL)
        told = max([told, *map(int, worker.stdout.read().split())])
    with file.open("ab") as torn:
        torn.write(b"\0\0\0\0\0\0\1\0half")
    ledger = LEDGER["FileLedger"](file, lambda: 31.0)
    (balance,) = LEDGER["asyncio"].run(ledger.balances())
    # Of the last one it may have been held, or settled, or asked for by a step that nobody was told of.
    assert balance.held == 0
    assert told <= balance.spent <= told + 2
    assert balance.estimated <= 2


async def test_the_ledger_of_the_page_says_that_it_is_away(tmp_path: Path) -> None:
    """Where somebody sits on its lock, or has deleted its file, it raises the error that a Router knows."""
    file = tmp_path / "ledger"
    ledger, other = LEDGER["FileLedger"](file), LEDGER["FileLedger"](file)
    with file.open("wb") as held:
        other._lock(held)
        with pytest.raises(LedgerUnavailableError, match="locked"):
            await ledger.ping()
    await ledger.ping()
    file.unlink()
    with pytest.raises(LedgerUnavailableError, match="lost steps"):
        await ledger.ping()


async def test_the_classifiers_of_the_page(make_router: Callable[..., Router], fake: FakeClaude, here: Path) -> None:
    """In a Router, one routes by what it knows and asks nobody; the other asks Claude, once for the same text."""
    page = names_of(DOCS / "writing-a-classifier.md")
    await asyncio.to_thread(page["test_two_orders_are_hard"])
    router = make_router(classifier=CascadeClassifier([page["OrderClassifier"](), FixedClassifier("moderate")]))

    async def tier_of(router: Router, text: str) -> tuple[str, str]:
        async with router.bind() as binding:
            ask = {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
            await router.claude.messages.create(**ask)
        return binding.decisions[-1].tier, "; ".join(binding.decisions[-1].reasons)

    assert (await tier_of(router, "Where is AB-12345?"))[0] == "haiku"
    assert (await tier_of(router, "Why is AB-12345 here, and AB-12344 not?"))[0] == "opus"
    assert (await tier_of(router, "Are you open?"))[0] == "sonnet"
    assert len(fake.requests) == 3
    fake.verdict = lambda text, labels: (labels["late" not in text], 0.9)
    router = make_router(classifier=page["ComplaintClassifier"]())
    for _ in range(2):
        assert (await tier_of(router, "It came late!"))[0] == "opus"
    assert len(fake.requests) == 3 + 1 + 2
    assert (await tier_of(router, "It came."))[0] == "sonnet"
