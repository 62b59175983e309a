"""The helper that looks at what calls leave behind sees it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests import proof
from tests.proof import nothing_left


@pytest.mark.parametrize("left", ["task", "exception", "warning"])
async def test_what_is_left_is_seen(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """A task that goes on, an exception that nobody retrieved, a context that was not detached."""
    monkeypatch.setattr(proof, "_PATIENCE", 0.05)
    caplog.set_level(logging.WARNING)
    tasks = []

    async def leave() -> None:
        async with nothing_left(caplog):
            if left == "task":
                tasks.append(asyncio.create_task(asyncio.sleep(60)))
            elif left == "exception":
                asyncio.get_running_loop().create_future().set_exception(ValueError("lost"))
            else:
                logging.getLogger("opentelemetry.context").error("Failed to detach context")

    with pytest.raises(AssertionError):
        await leave()
    for task in tasks:
        task.cancel()
    caplog.clear()


async def test_what_is_clean_passes(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing left, nothing said."""
    async with nothing_left(caplog):
        await asyncio.create_task(asyncio.sleep(0))
