"""An app with routes, from its first call on: what it pays and how good its answers are while it learns.

    python -m benchmarks.quality.simulation --data DIR [--plot FILE] [--calls N] [--seeds N]

A Starlette app with Tierline's middleware, whose endpoints are the sources of the Claude 3 tiers; behind its Router is
the real SDK, and behind that FakeClaude, which answers with what is recorded (`benchmarks.quality.world`). Time is
simulated, so the same data gives the same figures. Calls are drawn at random, with replacement, as often as a source
has prompts. A share of the answers is graded by the app, and only the grades of tiers that were taken are learned from.

The weights that judge a text, and are the prior of what routes teach, are trained without it (five folds; the group
`quality`). Nobody asks for verdicts: what Claude would have said of these prompts is not recorded. Where answers were
graded first, those are of other prompts than the calls'.

The regret of a call is what it is worth less than the best choice in hindsight, where a good answer is worth as much as
WORTH mean answers of the top tier cost.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx2
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.quality.data import CHEAP, DEAR, claude
from benchmarks.quality.figures import exactly, keep, options
from benchmarks.quality.routes import folds, trained
from benchmarks.quality.simtime import SimulatedLoop
from benchmarks.quality.world import World, tasks_of
from benchmarks.quality.writing import table
from tierline import Ladder, Router, current, policy
from tierline.asgi import TierlineMiddleware
from tierline.attempts import Timing
from tierline.classify import CascadeClassifier, KeywordClassifier, LocalClassifier, SignalClassifier
from tierline.classify.cascade import LOCAL_SURE, SURE
from tierline.learn import Outcome, OutcomeModel
from tierline.prices import PriceBook
from tierline.starlette import claude_of
from tierline.values import Classification, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from starlette.requests import Request

    from benchmarks.quality.world import Task
    from tierline.classify.base import Consult
    from tierline.classify.local import Opinion
    from tierline.classify.weights import Weighed
    from tierline.values import View

CALLS: Final = 5_000
SEEDS: Final = 3
GRADED: Final = 0.3
"""The share of answers that somebody grades."""
QUALITY: Final = 0.95
"""The share of the top tier's quality that the app asks for."""
WORTH: Final = 20
FIRST: Final = 30
"""Prompts of each route that are set apart, to be graded first; at most half of them."""
EXPLORED: Final = 0.01
EPSILON: Final = 0.1
LADDER: Final = Ladder.of(haiku=CHEAP, opus=DEAR)
"""Two tiers: of hard maths there are no answers of a third."""
TIERS: Final = tuple(tier.name for tier in LADDER)
NEVER: Final = 10**9
"""Outcomes that no route comes to have."""
BEGAN: Final = 1_760_000_000.0
"""When the simulation begins, in seconds since the epoch: some moment."""
PICTURE: Final = Path(__file__).resolve().parents[2] / "docs" / "simulation.svg"


class ByRule:
    """What a person might write: the top tier for long prompts, for formulas, and for several tools."""

    name = "by rule"
    fingerprint = "1"
    cacheable = False

    async def classify(self, view: View, consult: Consult) -> Classification:  # noqa: ARG002
        hard = len(view.text) > 400 or view.tools > 1 or "$" in view.text
        return Classification("complex" if hard else "simple", 1.0, "keyword")


class Unseen(LocalClassifier):
    """LocalClassifier by weights that were trained without the text that is judged."""

    def __init__(self, by_text: Mapping[str, LocalClassifier], **options: Any) -> None:
        super().__init__(next(iter(by_text.values())).weights, **options)
        self._by_text = by_text

    def weigh(self, text: str, tools: int = 0, context: str = "", turns: int = 1) -> tuple[Weighed, Opinion]:
        return self._by_text[text].weigh(text, tools, context, turns)


class Bandit:
    """Epsilon-greedy by route: the mean of what each tier was graded there, and a random tier now and then."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._sums: dict[str, list[list[float]]] = {}

    def choose(self, route: str) -> str:
        if self._random.random() < EPSILON:
            return self._random.choice(TIERS)
        means = [good / count for good, count in self._of(route)]
        return TIERS[next(place for place, mean in enumerate(means) if mean >= QUALITY * means[-1])]

    def learn(self, route: str, tier: str, good: float) -> None:
        found = self._of(route)[TIERS.index(tier)]
        found[0] += good
        found[1] += 1

    def _of(self, route: str) -> list[list[float]]:
        # One good answer of each is taken for granted: the cheapest tier is tried first.
        return self._sums.setdefault(route, [[1.0, 1.0] for _ in TIERS])


class Known(NamedTuple):
    """What is known before the first call: weights that have not seen a text, and tasks that were graded first."""

    by_text: Mapping[str, LocalClassifier]
    first: Sequence[Task]

    def cascade(self) -> CascadeClassifier:
        """Tierline's default without its last member, who asks Claude."""
        return CascadeClassifier(
            [Unseen(self.by_text, least=LOCAL_SURE), KeywordClassifier(least=SURE), SignalClassifier()], SURE
        )

    def router(self, graded: Iterable[Task] = (), **options: Any) -> dict[str, Any]:
        """A Router as Tierline makes it, which has learned from both tiers' answers to some tasks."""
        outcomes = [
            Outcome(route_of(task), task.prompt, tier, task.answers[tier].good, task.tools)
            for task in graded
            for tier in TIERS
        ]
        model = OutcomeModel(TIERS, classifier=Unseen(self.by_text), clock=lambda: BEGAN).fit(outcomes)
        return {"classifier": self.cascade(), "outcomes": model, **options}


WAYS: Final[dict[str, Callable[[Known], dict[str, Any]]]] = {
    "always the top tier": lambda _: {"policy": policy(tier="opus")},
    "always the cheapest": lambda _: {"policy": policy(tier="haiku")},
    "static rules": lambda _: {"classifier": ByRule(), "learn_after": NEVER, "max_upgrades": 1.0},
    "epsilon-greedy by route": lambda _: {},
    "local weights alone": lambda known: {"classifier": Unseen(known.by_text), "learn_after": NEVER},
    "a Router that learns": lambda known: known.router(),
    "a Router that learns, 1% explored": lambda known: known.router(explore=EXPLORED),
    f"the same, {FIRST} graded first": lambda known: known.router(known.first, explore=EXPLORED),
}
"""How tiers are chosen: options of the Router. The bandit pins each call."""


class Run(NamedTuple):
    """Sums after each call: cost (nano-USD), good answers, regret (nano-USD)."""

    cost: list[float]
    good: list[float]
    regret: list[float]


def route_of(task: Task) -> str:
    """The endpoint of a task."""
    return f"/{task.source}"


def app_of(router: Router, world: World, bandit: Bandit | None) -> Starlette:
    """The app: an endpoint for each source, which asks Claude, and grades the answer where it is told to."""

    async def ask(request: Request) -> JSONResponse:
        said = await request.json()
        task = world.tasks[said["task"]]
        pinned: AbstractContextManager[Any] = nullcontext()
        if bandit is not None:
            pinned = policy(tier=bandit.choose(task.source))
        with pinned:
            message = await claude_of(request).messages.create(model="auto", **world.request(task))
        binding = current()
        assert binding is not None
        decision, good = binding.decisions[-1], world.good(message)
        if said["graded"]:
            decision.grade(good)
            if bandit is not None:
                bandit.learn(task.source, decision.tier, good)
        return JSONResponse({"tier": decision.tier, "cost": decision.cost, "good": good})

    paths = sorted({route_of(task) for task in world.tasks.values()})
    app = Starlette(routes=[Route(path, ask, methods=["POST"]) for path in paths], lifespan=router.lifespan)
    app.add_middleware(TierlineMiddleware, router=router)
    return app


async def simulate(options: Mapping[str, Any], tasks: Sequence[Task], seed: int, calls: int, *, bandit: bool) -> Run:
    """The calls of an app, on a SimulatedLoop."""
    loop = asyncio.get_running_loop()
    chance = random.Random(seed)
    timing = Timing(lambda: BEGAN + loop.time(), loop.time, asyncio.sleep, chance.random, chance.random)
    world = World(tasks, LADDER)
    prices = PriceBook()
    costs = {task.id: [_cost(prices, task, tier) for tier in TIERS] for task in tasks}
    worth = WORTH * fmean(paid for *_, paid in costs.values())
    rng = random.Random(seed)
    run, cost, good, regret = Run([], [], []), 0.0, 0.0, 0.0
    async with world.client() as client:
        router = Router(client, ladder=LADDER, timing=timing, **{"policy": policy(quality=QUALITY), **options})
        app = app_of(router, world, Bandit(seed) if bandit else None)
        transport = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://app") as http,
        ):
            for task in rng.choices(tasks, k=calls):
                asked = {"task": task.id, "graded": rng.random() < GRADED}
                said = (await http.post(route_of(task), json=asked)).raise_for_status().json()
                values = [
                    worth * task.answers[tier].good - paid for tier, paid in zip(TIERS, costs[task.id], strict=True)
                ]
                cost, good = cost + said["cost"], good + said["good"]
                regret += max(values) - values[TIERS.index(said["tier"])]
                for sums, value in zip(run, (cost, good, regret), strict=True):
                    sums.append(value)
    if cost != world.fake.billed:
        raise RuntimeError(f"the Router counted {cost} nano-USD, and the API billed {world.fake.billed}")
    return run


def _cost(prices: PriceBook, task: Task, tier: str) -> int:
    known = task.answers[tier]
    found = prices.cost(LADDER[LADDER.index(tier, "simulation")].model, Usage(known.input_tokens, known.output_tokens))
    assert found is not None
    return found


def set_apart(tasks: Sequence[Task]) -> tuple[list[Task], list[Task]]:
    """What is graded first, and what is asked."""
    first = []
    for source in sorted({task.source for task in tasks}):
        of_it = [task for task in tasks if task.source == source]
        first += random.Random(0).sample(of_it, min(FIRST, len(of_it) // 2))
    taken = {task.id for task in first}
    return first, [task for task in tasks if task.id not in taken]


def known_of(data: Path, tasks: Sequence[Task]) -> Known:
    """Weights for each text that were trained without its fold, and the tasks that are set apart."""
    pairs = claude(data)
    classifiers = trained(data, pairs)
    by_text = {pair.prompt: classifiers[fold] for pair, fold in zip(pairs, folds(pairs), strict=True)}
    return Known(by_text, set_apart(tasks)[0])


def played(known: Known, tasks: Sequence[Task], calls: int, seeds: int) -> dict[str, Run]:
    """Each way's means over the seeds."""
    found = {}
    for name, way in WAYS.items():
        runs = []
        for seed in range(seeds):
            with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
                bandit = name == "epsilon-greedy by route"
                runs.append(runner.run(simulate(way(known), tasks, seed, calls, bandit=bandit)))
        found[name] = Run(*([fmean(sums) for sums in zip(*each, strict=True)] for each in zip(*runs, strict=True)))
    return found


def plot(found: dict[str, Run], to: Path) -> None:
    """The regret so far, and cost and good answers so far beside those of the top tier, over calls."""
    import matplotlib as mpl  # noqa: PLC0415  (of the group `quality`: the table needs none)

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tierline"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    top = found["always the top tier"]
    figure, (regret, cost, good) = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    calls = len(top.cost)
    shown = range(min(99, calls - 1), calls, max(1, calls // 100))
    for name, run in found.items():
        regret.plot(list(shown), [run.regret[at] / 1e9 for at in shown], label=name)
        cost.plot(list(shown), [run.cost[at] / top.cost[at] for at in shown])
        good.plot(list(shown), [run.good[at] / top.good[at] for at in shown])
    regret.set(title="Regret so far", xlabel="calls", ylabel="US dollars")
    cost.set(title="Cost so far", xlabel="calls", ylabel="of all on the top tier")
    good.set(title="Good answers so far", xlabel="calls", ylabel="of the top tier's")
    figure.legend(*regret.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.savefig(to, metadata={"Date": None})


def main() -> None:
    """Print the table, and draw the picture."""
    parser = options(__doc__)
    parser.add_argument("--plot", type=Path, default=PICTURE, help="an SVG to write")
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    tasks = tasks_of(given.data, TIERS)
    known = known_of(given.data, tasks)
    found = played(known, set_apart(tasks)[1], given.calls, given.seeds)
    top, calls = found["always the top tier"], given.calls
    late = min(1_000, calls - 1)
    # What the page says of its command is so without options.
    other = "" if given.seeds == SEEDS else f" (`--seeds {given.seeds}`)"
    print(
        f"{calls:,} calls of a Starlette app over FakeClaude, {GRADED:.0%} of the answers graded, quality {QUALITY}, "
        f"mean of {given.seeds} run{'s' * (given.seeds > 1)}{other}. "
        f"Regret counts a good answer as {WORTH} mean answers of the top tier.\n"
    )
    print(table(
        ["way", "good answers", "of the top tier's", "cost, of the top tier's", "regret, $",
         f"in the last {late:,} calls"],
        [[name, f"{run.good[-1] / calls:.3f}", f"{run.good[-1] / top.good[-1]:.3f}",
          f"{run.cost[-1] / top.cost[-1]:.3f}", f"{run.regret[-1] / 1e9:.2f}",
          f"{(run.regret[-1] - run.regret[-1 - late]) / 1e9:.2f}"]
         for name, run in found.items()],
    ))  # fmt: skip
    plot(found, given.plot)
    keep(given.figures, {f"simulation: {name}: regret": exactly(run.regret[-1] / 1e9) for name, run in found.items()})
    print(f"\n![Regret, cost and quality of the ways]({given.plot.name})")


if __name__ == "__main__":
    main()
