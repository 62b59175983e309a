"""The fake's memory: waiting for what happens, and the minutes of the rate limits."""

from __future__ import annotations

import asyncio
import threading

from tierline.testing._book import Book
from tierline.testing._log import Received


async def test_waiting_from_another_thread() -> None:
    """Who waits is woken by what happens in any thread."""
    book = Book(10, lambda: 0.0)
    book.open(Received("/", {}))
    waiting = asyncio.create_task(book.idle())
    await asyncio.sleep(0)
    assert not waiting.done()
    worker = threading.Thread(target=book.close)
    worker.start()
    await waiting
    worker.join()
    assert book._waiting == set()


async def test_a_loop_that_is_closed_is_not_woken() -> None:
    """A waiter that was left behind does no harm."""
    book = Book(10, lambda: 0.0)

    def leave_one_behind() -> None:
        loop = asyncio.new_event_loop()
        book._waiting.add((loop, asyncio.Event()))
        loop.close()

    leave_one_behind()
    book.open(Received("/", {}))
    book.close()
    await book.idle()


def test_limits_renew_each_minute() -> None:
    """What is left counts down for each model, never under zero, and starts again after a minute."""
    now = [0.0]
    book = Book(10, lambda: now[0])

    def left(model: str, tokens: int) -> int:
        headers = dict(book.limit_headers(model, (tokens, 0), exhausted=False))
        return int(headers["anthropic-ratelimit-input-tokens-remaining"])

    assert left("a", 500_000) == 1_500_000
    assert left("a", 5_000_000) == 0
    assert left("b", 0) == 2_000_000
    now[0] = 60.0
    assert left("a", 0) == 2_000_000
    assert dict(book.limit_headers("a", (0, 0), exhausted=True))["anthropic-ratelimit-tokens-remaining"] == "0"
