"""What another policy would have made of recorded decisions: what it would have cost, and what it would have moved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.errors import ConfigurationError
from tierline.evaluation.replay import Replay, Unknown
from tierline.prices import PriceBook

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tierline.classify.base import Classifier
    from tierline.evaluation.replay import Replayed
    from tierline.evaluation.rows import Row
    from tierline.evaluation.scenario import Scenario

MOST_ROWS: Final = 1_000
"""Most routes, and most kinds of moves, that are told apart."""
OTHERS: Final = "(others)"
REFUSED: Final = "(refused)"
DRIFT: Final = 0.01
"""A larger difference between recorded cost and the same at today's prices is said."""

LIMITS: Final = (
    "another tier would have written other answers, and so other tokens: costs are those of the recorded tokens",
    "prompt caches are taken to be as warm on another tier as they were on the recorded one",
)


ESCALATES: Final = (
    "escalation: a call is counted on the tier that most likely answers it, at the expected cost of all that is asked; "
    "grades that the cheapest tier gives are not in it"
)
SPECULATES: Final = (
    "speculation: an attempt in vain costs its input, and more where it cannot be called off in time; the seconds that "
    "it gains are not simulated"
)


class Sums(NamedTuple):
    """Calls and their cost (nano-USD), as recorded and as simulated."""

    calls: int = 0
    cost: int = 0
    calls_then: int = 0
    cost_then: int = 0


class Move(NamedTuple):
    """Calls that would have gone elsewhere for one reason. `saved` is in nano-USD, below 0 where it costs more."""

    route: str
    tier: str
    then: str
    why: str
    calls: int
    saved: int


class Quality(NamedTuple):
    """How likely answers are good enough, in the mean, on the recorded tiers and on the simulated ones."""

    calls: int
    recorded: float
    simulated: float


class Escalation(NamedTuple):
    """What is expected of calls that escalate, those left out that went the same way already.

    `answers` is how many of them each tier is expected to answer, and `more` how many further answers are
    expected to be asked for: fractions of calls add up. `assumed` says what of their checks.
    """

    calls: int
    answers: Mapping[str, float]
    more: float
    assumed: tuple[str, ...]


class Speculation(NamedTuple):
    """Calls that speculate, and of them those in vain, with what these cost beside the answer (nano-USD)."""

    calls: int
    lost: int
    cost: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """What was found. Money in nano-USD.

    - `calls` in the log, of which `simulated` were decided again; `unknown` says why the others were not, and how often
    - `cost` is what those that were simulated cost, `cost_then` what they would have cost, `cost_today` what the
      recorded ones would cost at today's prices
    - `by_tier`, `by_route`: the same, of those that were simulated; what is refused is a tier of its own
    - `moves`: most calls first; `moved` is how many calls are in them
    - `held`: calls that stayed where their conversation was, as recorded
    - `forecast`: by what routes have taught, of calls for which the log has it; None: of none
    - `graded`: by grades of these very calls on both tiers; None: there are none
    - `escalation`, `speculation`: what is in that of these strategies; None where no call is concerned
    - `notes`: what to bear in mind

    A call that escalates is counted on the tier that most likely answers it, at the expected cost of its whole chain.
    """

    calls: int = 0
    simulated: int = 0
    cost: int = 0
    cost_then: int = 0
    cost_today: int = 0
    refused: int = 0
    moved: int = 0
    held: int = 0
    unknown: Mapping[str, int] = field(default_factory=dict)
    by_tier: Mapping[str, Sums] = field(default_factory=dict)
    by_route: Mapping[str, Sums] = field(default_factory=dict)
    moves: tuple[Move, ...] = ()
    forecast: Quality | None = None
    graded: Quality | None = None
    escalation: Escalation | None = None
    speculation: Speculation | None = None
    notes: tuple[str, ...] = LIMITS

    @property
    def saved(self) -> int:
        """How much less it would have cost; below 0 where it would have cost more."""
        return self.cost - self.cost_then


class _Mean:
    """Adds up how good answers are, before and after."""

    def __init__(self) -> None:
        self._calls, self._recorded, self._simulated = 0, 0.0, 0.0

    def add(self, good: Mapping[str, Any] | None, tier: object, found: Replayed) -> None:
        """One call, if it is known of both tiers, or of all of a chain; what is refused answers nothing."""
        if not good or tier not in good:
            return
        if found.chain is not None:
            then = found.chain.good(good)
        else:
            then = 0.0 if found.tier is None else good.get(found.tier)
        if then is not None:
            self._calls += 1
            self._recorded += float(good[str(tier)])
            self._simulated += float(then)

    @property
    def found(self) -> Quality | None:
        n = self._calls
        return Quality(n, self._recorded / n, self._simulated / n) if n else None


class _Strategies:
    """Adds up what strategies did."""

    def __init__(self) -> None:
        self._chains, self._more = 0, 0.0
        self._answers: dict[str, float] = {}
        self._assumed: dict[str, None] = {}
        self._bets, self._lost, self._cost = 0, 0, 0

    def add(self, found: Replayed) -> None:
        """One call."""
        if (chain := found.chain) is not None:
            self._chains += 1
            self._assumed[chain.rates.told] = None
            for name, share in chain.answers.items():
                self._answers[name] = self._answers.get(name, 0.0) + share
            self._more += sum(place * chain.answers.get(name, 0.0) for place, name in enumerate(chain.tiers))
        if found.lost is not None:
            self._bets += 1
            self._lost += found.lost > 0
            self._cost += found.lost

    def escalation(self, tiers: list[str]) -> Escalation | None:
        answers = {name: round(self._answers[name], 4) for name in tiers if name in self._answers}
        return Escalation(self._chains, answers, round(self._more, 4), tuple(self._assumed)) if self._chains else None

    @property
    def speculation(self) -> Speculation | None:
        return Speculation(self._bets, self._lost, self._cost) if self._bets else None


class _Adding:
    """Adds up what was replayed."""

    def __init__(self, grades: Mapping[str, Mapping[str, float]]) -> None:
        self._grades = grades
        self._sums = Simulation()
        self._unknown: Counter[str] = Counter()
        self._tiers: dict[str, Sums] = {}
        self._routes: dict[str, Sums] = {}
        self._moves: dict[tuple[str, str, str, str], tuple[int, int]] = {}
        self._forecast, self._graded = _Mean(), _Mean()
        self._strategies = _Strategies()

    def skip(self, why: str) -> None:
        """One that cannot be simulated."""
        self._sums = replace(self._sums, calls=self._sums.calls + 1)
        self._unknown[why] += 1

    def add(self, row: Row, found: Replayed) -> None:
        """One that was."""
        record: Mapping[str, Any] = row.record or {}
        tier, then = str(record.get("tier")), found.tier
        moved = tier != then
        one = self._sums
        self._sums = replace(
            one,
            calls=one.calls + 1,
            simulated=one.simulated + 1,
            cost=one.cost + found.before,
            cost_then=one.cost_then + found.cost,
            cost_today=one.cost_today + found.today,
            refused=one.refused + (then is None),
            moved=one.moved + moved,
            held=one.held + found.held,
        )
        route = row.route if row.route in self._routes or len(self._routes) < MOST_ROWS else OTHERS
        _plus(self._tiers, tier, Sums(1, found.before))
        _plus(self._tiers, then or REFUSED, Sums(0, 0, 1, found.cost))
        _plus(self._routes, route, Sums(1, found.before, 1, found.cost))
        if moved:
            kind = (route, tier, then or REFUSED, found.why)
            if kind not in self._moves and len(self._moves) >= MOST_ROWS:
                kind = (OTHERS, OTHERS, OTHERS, OTHERS)
            calls, saved = self._moves.get(kind, (0, 0))
            self._moves[kind] = calls + 1, saved + found.before - found.cost
        self._forecast.add(record.get("chances"), tier, found)
        self._graded.add(self._grades.get(row.id), tier, found)
        self._strategies.add(found)

    def simulation(self, tiers: list[str]) -> Simulation:
        """What was found; tiers of the ladder first, cheapest first."""
        moves = sorted((Move(*kind, *sums) for kind, sums in self._moves.items()), key=lambda m: (-m.calls, m))
        order = [*(name for name in tiers if name in self._tiers), *(name for name in self._tiers if name not in tiers)]
        one = self._sums
        notes = list(LIMITS)
        if abs(one.cost_today - one.cost) > DRIFT * one.cost:
            notes.append(
                "prices have changed since, or requests ran on other terms (batch, fast, US): what moves is at today's "
                "list prices, what stays is as recorded"
            )
        if one.held:
            notes.append("conversations that stayed for what was warm stay as recorded, where the new policy lets them")
        escalation, speculation = self._strategies.escalation(tiers), self._strategies.speculation
        if escalation is not None:
            notes += [f"escalation: it is assumed, and in no log, that {told}" for told in escalation.assumed]
            notes.append(ESCALATES)
        if speculation is not None:
            notes.append(SPECULATES)
        return replace(
            one,
            escalation=escalation,
            speculation=speculation,
            unknown=dict(self._unknown.most_common()),
            by_tier={name: self._tiers[name] for name in order},
            by_route=dict(sorted(self._routes.items(), key=lambda each: -abs(each[1].cost - each[1].cost_then))),
            moves=tuple(moves),
            forecast=self._forecast.found,
            graded=self._graded.found,
            notes=tuple(notes),
        )


def simulate(
    rows: Iterable[Row],
    scenario: Scenario,
    *,
    prices: PriceBook | None = None,
    classifier: Classifier | None = None,
    grades: Mapping[str, Mapping[str, float]] | None = None,
) -> Simulation:
    """Decide the records of a log again, in their order, under another policy. They are read as a stream.

    `classifier` says what a text is where nobody was asked and the log has it. `grades` are how good answers were, from
    0 to 1, by the id of the decision and the tier. ConfigurationError for a row that is no decision.
    """
    replay = Replay(scenario, prices or PriceBook(), classifier, grades)
    adding = _Adding(grades or {})
    for row in rows:
        if row.record is None:
            raise ConfigurationError(f"{row.where}: it is no decision; give a log of `Router(decision_log=…)`")
        found = replay.again(row)
        if isinstance(found, Unknown):
            adding.skip(found.why)
        else:
            adding.add(row, found)
    return adding.simulation([tier.name for tier in scenario.ladder])


def _plus(table: dict[str, Sums], name: str, more: Sums) -> None:
    table[name] = Sums(*(a + b for a, b in zip(table.get(name, Sums()), more, strict=True)))
