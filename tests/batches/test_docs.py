"""What docs/batches.md shows runs as it stands."""

from __future__ import annotations

from pathlib import Path

from tests.batches.world import requests, world
from tests.test_readme import parsed
from tierline import Ladder

PAGE = Path(__file__).parents[2] / "docs" / "batches.md"


async def test_the_page_runs() -> None:
    """Every block can be pasted, and the job that it submits is answered."""
    document = parsed(PAGE)
    for example in document.examples():
        example.evaluate()
    async with world() as it:
        router = it.router(
            ladder=Ladder.of(haiku="claude-haiku-4-5", sonnet="claude-sonnet-4-6", opus="claude-opus-4-8")
        )
        answers = await document.namespace["nightly"](router, ["one", "two", "three"])
        assert len(answers) == 3
        assert all(answers)
        assert await router.batches.jobs() == []
        assert len(await document.namespace["now"](router, requests(3))) == 3
