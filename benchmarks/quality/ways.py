"""Ways to get an answer, each a Router, and the same calls through all of them in simulated time.

`WAYS` are those that are compared, `VARIED` the same under other assumptions. `play` asks one call after the other, so
that none waits for another, and no two verdicts go in one request.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx2

from benchmarks.quality.assumed import EXPERTS, Detector, dealt
from benchmarks.quality.simtime import SimulatedLoop
from benchmarks.quality.simulation import BEGAN, FIRST, QUALITY, Unseen, route_of
from benchmarks.quality.world import World
from tierline import Ladder, Router, policy
from tierline.attempts import Timing
from tierline.classify import CascadeClassifier, ClaudeClassifier, KeywordClassifier, SignalClassifier
from tierline.classify.cascade import LOCAL_SURE, SURE, WORTH
from tierline.escalation import Escalate
from tierline.learn import Outcome, OutcomeModel
from tierline.prices import PriceBook
from tierline.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anthropic import AsyncAnthropic
    from anthropic.types import Message

    from benchmarks.quality.assumed import Deal
    from benchmarks.quality.world import Task
    from tierline.classify import LocalClassifier
    from tierline.testing import Received, Reply
    from tierline.values import Attempt, Decision

TODAY: Final = {"haiku": "claude-haiku-5-5", "sonnet": "claude-sonnet-5-5", "opus": "claude-opus-5-5"}
"""By whose list prices everything is decided and billed."""
BEFORE: Final = {"haiku": "claude-haiku-4-5", "sonnet": "claude-sonnet-4-6", "opus": "claude-opus-4-8"}
"""The generation before, which is still sold: what the same attempts cost there is told beside it."""
SEEN: Final = Detector(0.7, 0.1)
"""A detector as it was taken for an example when the data was gathered."""
SURE_OF_IT: Final = 0.9
"""The confidence of an assumed verdict."""
DOUBT: Final = "I'm not sure."
POOR, FINE = 2, 4


@dataclass(frozen=True)
class Setting:
    """What all ways have in common.

    - `ladder`: tiers by the names that the answers have
    - `calls`: what is asked, in this order
    - `first`: prompts, among others, that somebody has graded each tier's answers to
    - `by_text`: for each prompt, weights that have not seen it
    - `shares`: of verdicts that are simple, moderate and complex
    - `among`: the prompts that they are dealt to, the calls among them
    """

    ladder: Ladder
    calls: Sequence[Task]
    first: Sequence[Task]
    by_text: Mapping[str, LocalClassifier]
    shares: Sequence[float]
    among: Sequence[Task]
    _deals: dict[float, Deal] = field(default_factory=dict, init=False, repr=False)

    def deal(self, apgr: float) -> Deal:
        """Verdicts of about this APGR."""
        if apgr not in self._deals:
            self._deals[apgr] = dealt(self.among, self.shares, apgr)
        return self._deals[apgr]

    @property
    def tiers(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(tier.name for tier in self.ladder)

    def model(self, graded: Sequence[Task] = ()) -> OutcomeModel:
        """What routes teach, by weights that have seen none of the prompts."""
        outcomes = [
            Outcome(route_of(task), task.prompt, tier, task.answers[tier].good, task.tools)
            for task in graded
            for tier in self.tiers
        ]
        return OutcomeModel(self.tiers, classifier=Unseen(self.by_text), clock=lambda: BEGAN).fit(outcomes)

    def cascade(self) -> CascadeClassifier:
        """What a Router uses unless told otherwise, by those weights."""
        return CascadeClassifier(
            [
                Unseen(self.by_text, least=LOCAL_SURE),
                KeywordClassifier(least=SURE),
                SignalClassifier(),
                ClaudeClassifier(worth=WORTH),
            ],
            SURE,
        )


def _nobody(_: Setting) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Way:
    """A way: options of its Router, and what is assumed.

    `pin` names the tier of a call, where something else than the Router chooses. `verdicts` is the APGR of Claude's,
    `doubts` how often an answer says itself that it is wrong, `grades` how often a grader does.
    """

    name: str
    options: Callable[[Setting], dict[str, Any]] = _nobody
    pin: Callable[[Task, Sequence[str]], str] | None = None
    verdicts: float = EXPERTS
    doubts: Detector = field(default_factory=Detector)
    grades: Detector = field(default_factory=Detector)


def hindsight(task: Task, tiers: Sequence[str]) -> str:
    """The cheapest tier whose answer no other's is better than."""
    best = max(task.answers[tier].good for tier in tiers)
    return next(tier for tier in tiers if task.answers[tier].good == best)


def _claude(_: Setting) -> dict[str, Any]:
    return {"classifier": ClaudeClassifier()}


def _speculating(how: Any) -> Callable[[Setting], dict[str, Any]]:
    return lambda _: {"classifier": ClaudeClassifier(), "policy": policy(speculate=how)}


def _escalating(rules: Escalate) -> Callable[[Setting], dict[str, Any]]:
    return lambda _: {"policy": policy(escalate=rules)}


def _learned(setting: Setting) -> dict[str, Any]:
    return {
        "classifier": setting.cascade(),
        "outcomes": setting.model(setting.first),
        "policy": policy(quality=QUALITY),
    }


TOP: Final = "all on the top tier"
MIDDLE: Final = "all on the middle tier"
CHEAPEST: Final = "all on the cheapest"
BEST: Final = "the best in hindsight"
_FORM: Final = Way("escalation, by form", _escalating(Escalate()), doubts=SEEN)
_GRADED: Final = Way("escalation, graded", _escalating(Escalate(graded=True)), grades=SEEN)
_VERDICTS: Final = Way("Claude's verdicts", _claude)
_BESIDE: Final = Way("verdicts, speculating", _speculating(how=True))
WAYS: Final = (
    Way(TOP, pin=lambda _, tiers: tiers[-1]),
    Way(MIDDLE, pin=lambda _, tiers: tiers[len(tiers) // 2]),
    Way(CHEAPEST, pin=lambda _, tiers: tiers[0]),
    Way("rules", lambda _: {"classifier": CascadeClassifier([KeywordClassifier(), SignalClassifier()], SURE)}),
    Way("local weights", lambda setting: {"classifier": Unseen(setting.by_text)}),
    _VERDICTS,
    _BESIDE,
    Way("as Tierline comes", lambda setting: {"classifier": setting.cascade()}),
    Way(f"the route, {FIRST} graded first", _learned),
    _FORM,
    _GRADED,
    Way(BEST, pin=hindsight),
)
VARIED: Final = (
    *(replace(_VERDICTS, name=f"verdicts of APGR {apgr:.2f}", verdicts=apgr) for apgr in (0.5, 0.7, 0.8)),
    replace(_BESIDE, name='verdicts, speculate="auto"', options=_speculating("auto")),
    *(
        replace(_FORM, name=f"by form: {seen}", doubts=seen)
        for seen in (Detector(0.3, 0.02), Detector(0.5, 0.2), Detector(0.9, 0.05), Detector(1.0, 0.0))
    ),
    *(replace(_GRADED, name=f"graded: {seen}", grades=seen) for seen in (Detector(0.5, 0.2), Detector(0.9, 0.05))),
    replace(_GRADED, name="by form (30%, 2%), then graded (70%, 10%)", doubts=Detector(0.3, 0.02)),
)


class Told(World):
    """A world in which Claude says of prompts and answers what a way assumes. It counts the requests of `client`."""

    def __init__(self, setting: Setting, way: Way) -> None:
        super().__init__(setting.calls, setting.ladder, verdict=self._verdict)
        self.fake.grade = lambda asked: POOR if self._objects("grade", way.grades, asked.answer) else FINE
        self.asked = setting.calls[0]
        """What is being asked now."""
        self.requests = 0
        self._doubts = way.doubts
        self._labels = setting.deal(way.verdicts).labels

    def client(self, **options: Any) -> AsyncAnthropic:
        """As in `World`."""

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            self.requests += 1
            await self.fake(scope, receive, send)

        transport = httpx2.ASGITransport(counted)
        return super().client(http_client=httpx2.AsyncClient(transport=transport), **options)

    def good(self, message: Message) -> float:
        """As in `World`, of what is being asked."""
        return self._good("".join(block.text for block in message.content if block.type == "text"))

    def _good(self, answer: str) -> float:
        return self.asked.answers[_tier_of(answer)].good

    def _objects(self, kind: str, detector: Detector, answer: str) -> bool:
        return detector.sees(kind, self.asked.id, _tier_of(answer), self._good(answer))

    def _verdict(self, _text: str, _labels: Sequence[str]) -> tuple[str, float]:
        return self._labels[self.asked.id], SURE_OF_IT

    def _answer(self, received: Received) -> Reply:
        reply = super()._answer(received)
        doubted = self._objects("form", self._doubts, reply.text or "")
        return replace(reply, text=f"{DOUBT}\n{reply.text}") if doubted else reply


def _tier_of(answer: str) -> str:
    """An answer ends with the name of its tier."""
    return answer.rpartition(" ")[2]


class Done(NamedTuple):
    """What came of one call. Money in nano-USD, `elsewhere` by the prices of `BEFORE`; `vain` are unused answers."""

    good: float
    tier: str
    cost: int
    elsewhere: int
    seconds: float
    requests: int
    vain: int
    vain_tokens: int


class Played(NamedTuple):
    """A way's calls, in the order of the setting, what the API billed, and what the Router charged as an estimate."""

    calls: list[Done]
    billed: int
    estimated: int


def play(setting: Setting, way: Way) -> Played:
    """All calls of a setting, a way's Router between them and the API.

    Raises RuntimeError where the Router's books and the API's bill differ by more than what was estimated.
    """
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(_play(setting, way))


async def _play(setting: Setting, way: Way) -> Played:
    loop = asyncio.get_running_loop()
    chance = random.Random(0).random
    timing = Timing(lambda: BEGAN + loop.time(), loop.time, asyncio.sleep, chance, chance)
    world, prices, done = Told(setting, way), PriceBook(), []
    charged = estimated = 0
    options: dict[str, Any] = {"outcomes": setting.model(), **way.options(setting)}
    async with world.client() as client:
        # Accounts that send everything up are held back by their route's others: here is but one account.
        router = Router(client, ladder=setting.ladder, timing=timing, max_upgrades=1.0, **options)
        async with router.lifespan(None):
            for task in setting.calls:
                world.asked, asked, began = task, world.requests, loop.time()
                pinned = policy() if way.pin is None else policy(tier=way.pin(task, setting.tiers))
                async with router.bind(route=route_of(task)) as binding:
                    with pinned:
                        message = await router.claude.messages.create(model="auto", **world.request(task))
                    seconds = loop.time() - began
                decision = binding.decisions[-1]
                charged += decision.cost
                estimated += sum(attempt.cost for attempt in decision.attempts if attempt.estimated)
                vain = decision.attempts[:-1]
                done.append(Done(
                    world.good(message), decision.tier, decision.cost, _elsewhere(prices, setting, task, decision),
                    seconds,
                    world.requests - asked, len(vain),
                    sum(used.input_tokens + used.output_tokens for used in (_used(task, each) for each in vain)),
                ))  # fmt: skip
    if not charged - estimated <= world.fake.billed <= charged:
        raise RuntimeError(f"{way.name}: {charged} nano-USD charged, {world.fake.billed} billed, {estimated} estimated")
    return Played(done, world.fake.billed, estimated)


def _used(task: Task, attempt: Attempt) -> Usage:
    """The tokens of an attempt. Of one that was cut off nothing came back: the prompt's were used."""
    if attempt.usage.input_tokens or attempt.usage.output_tokens:
        return attempt.usage
    return Usage(task.answers[attempt.tier].input_tokens)


def _elsewhere(prices: PriceBook, setting: Setting, task: Task, decision: Decision) -> int:
    """What the same attempts, verdicts and grades would have cost by the prices of the generation before."""
    total = sum(_price(prices, BEFORE[attempt.tier], _used(task, attempt)) for attempt in decision.attempts)
    own, other = (
        _price(prices, model, Usage(1_000, 100)) for model in (setting.ladder[0].model, BEFORE[setting.ladder[0].name])
    )
    return total + round((decision.classifier_cost + decision.grading_cost) * other / own)


def _price(prices: PriceBook, model: str, usage: Usage) -> int:
    found: int | None = prices.cost(model, usage)
    assert found is not None
    return found
