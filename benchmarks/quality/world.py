"""Prompts whose answers are known, and a Messages API that gives them: what routers and strategies are played in.

    tasks = tasks_of(data, ("haiku", "opus"))
    world = World(tasks, Ladder.of(haiku="claude-haiku-4-5", opus="claude-opus-4-5"))
    async with world.client() as client:
        message = await Router(client, …).claude.messages.create(model="auto", **world.request(task))
        world.good(message)           # how good the answer of whichever tier it was is known to be

The API is `FakeClaude`, asked by the real SDK. An answer says whose and to which prompt it is; its tokens are the
recorded ones, at the list price of the model that the ladder names. Recorded answers have no times: an answer takes the
seconds of its tier's PACES, by the clock of the loop that it is asked on. With a `SimulatedLoop` nobody waits for them,
and latencies come out alike every time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.quality.data import rows
from tierline.testing import FakeClaude, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from anthropic import AsyncAnthropic
    from anthropic.types import Message

    from tierline import Ladder
    from tierline.testing import Received

RECORDED: Final = {"haiku": "haiku3", "sonnet": "sonnet3", "opus": "opus3"}
"""What the tiers are called in the data."""
MOST: Final = 4_096
"""Tokens of output that a request allows: no recorded answer has more."""
_TOOL: Final = {"description": "One of those that were offered.", "input_schema": {"type": "object"}}


class Pace(NamedTuple):
    """How fast a tier answers: seconds before its first token, and output tokens a second after that."""

    first: float
    rate: float

    def seconds(self, tokens: int) -> float:
        """Of a whole answer."""
        return self.first + tokens / self.rate


PACES: Final = {"haiku": Pace(0.9, 110), "sonnet": Pace(1.8, 63), "opus": Pace(2.5, 45)}
"""Assumed, not measured: about what public comparisons of the 4.x models report, and the same for every call."""


class Answer(NamedTuple):
    """What is known of a tier's answer: how good it was (0 to 1), and the tokens of prompt and answer."""

    good: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Task:
    """A prompt of a source, with how many tools were offered, and each tier's answer."""

    id: str
    source: str
    prompt: str
    tools: int
    answers: Mapping[str, Answer]


def tasks_of(data: Path, tiers: Sequence[str]) -> list[Task]:
    """The prompts of the Claude 3 tiers to which each of `tiers` has answered. Hard maths has no `sonnet`."""
    names = {tier: RECORDED[tier] for tier in tiers}
    return [
        Task(
            row["id"],
            row["source"],
            row["prompt"],
            row["tools"] or 0,
            {
                tier: Answer(float(row["quality"][name]), ceil(row["in_tok"][name]), ceil(row["out_tok"][name]))
                for tier, name in names.items()
            },
        )
        for row in rows(data, "claude3_tiers")
        if row["quality"].keys() >= set(names.values())
    ]


class World:
    """Tasks, and the API that knows their answers: `fake`. Its time is that of the running loop.

    - `ladder`: tiers by the names that the tasks' answers have
    - `verdict`: what the API says to Tierline's questions, as in `FakeClaude`; they take the time of so many tokens as
      a verdict has. By default FakeClaude's own rule, which is no model's opinion and was never measured as one
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        ladder: Ladder,
        *,
        paces: Mapping[str, Pace] = PACES,
        verdict: Callable[[str, Sequence[str]], tuple[str, float] | str] | None = None,
    ) -> None:
        self.tasks = {task.id: task for task in tasks}
        self._paces = paces
        self._tiers = {tier.model: tier.name for tier in ladder}
        self.fake = FakeClaude(
            answer=self._answer,
            latency={tier.model: paces[tier.name].seconds(_VERDICT) for tier in ladder},
            keep=1,
            clock=lambda: asyncio.get_running_loop().time(),
            sleep=asyncio.sleep,
            **({} if verdict is None else {"verdict": verdict}),
        )

    def client(self, **options: Any) -> AsyncAnthropic:
        """A client of the real SDK that is connected to it, without a socket."""
        return self.fake.client(**options)

    def request(self, task: Task) -> dict[str, Any]:
        """What an app sends for a task, but for the model. Its id goes with it, as a user's would."""
        body: dict[str, Any] = {
            "max_tokens": MOST,
            "messages": [{"role": "user", "content": task.prompt}],
            "metadata": {"user_id": task.id},
        }
        if task.tools:
            body["tools"] = [{"name": f"tool_{number}", **_TOOL} for number in range(task.tools)]
        return body

    def good(self, message: Message) -> float:
        """How good an answer is known to be, 0 to 1. LookupError for one that is none of this world's."""
        texts = [block.text for block in message.content if block.type == "text"]
        task, _, tier = "".join(texts).rpartition(_BY)
        return self.tasks[task].answers[tier].good

    def _answer(self, received: Received) -> Reply:
        tier = self._tiers[received.model or ""]
        task = self.tasks[received.body["metadata"]["user_id"]]
        known = task.answers[tier]
        return Reply(
            f"{task.id}{_BY}{tier}",
            input_tokens=known.input_tokens,
            output_tokens=known.output_tokens,
            seconds=self._paces[tier].seconds(known.output_tokens),
        )


_BY: Final = " answered by "
_VERDICT: Final = 20
"""Output tokens of a verdict."""
