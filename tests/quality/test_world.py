"""The API of recorded answers gives the answers, the tokens and the times that are known."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from benchmarks.quality.simtime import SimulatedLoop
from benchmarks.quality.world import PACES, World, tasks_of
from tests.quality.recorded import write
from tierline import Ladder

if TYPE_CHECKING:
    from pathlib import Path

LADDER = Ladder.of(haiku="claude-haiku-5-5", sonnet="claude-sonnet-5-5", opus="claude-opus-5-5")
NAMES = [tier.name for tier in LADDER]


def test_only_prompts_that_all_tiers_answered_are_tasks(tmp_path: Path) -> None:
    """Two tiers have answered all, three have not."""
    data = write(tmp_path)
    assert {task.source for task in tasks_of(data, ("haiku", "opus"))} == {"easy", "tools", "math"}
    three = tasks_of(data, ("haiku", "sonnet", "opus"))
    assert {task.source for task in three} == {"easy", "tools"}
    assert [three[71].answers[tier].good for tier in NAMES] == [0, 1, 1]


@pytest.mark.parametrize("tier", NAMES)
def test_an_answer_is_the_recorded_one(tmp_path: Path, tier: str) -> None:
    """Its quality, its tokens and its seconds are those that are known, with tools and without."""
    tasks = tasks_of(write(tmp_path), NAMES)

    async def work() -> None:
        world = World(tasks, LADDER)
        loop = asyncio.get_running_loop()
        async with world.client() as client:
            for task in (tasks[0], tasks[71]):
                began = loop.time()
                model = LADDER[LADDER.index(tier, "test")].model
                message = await client.messages.create(model=model, **world.request(task))
                known = task.answers[tier]
                assert world.good(message) == known.good
                assert (message.usage.input_tokens, message.usage.output_tokens) == known[1:]
                assert loop.time() - began == pytest.approx(PACES[tier].seconds(known.output_tokens))
        assert world.fake.billed > 0

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        runner.run(work())
