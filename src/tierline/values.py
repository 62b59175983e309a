"""The vocabulary as frozen values. Nothing here does anything but compute.

What is made several times on every call is a named tuple: a frozen dataclass costs four times as much.

Money is an integer number of nano-USD (one billionth of a dollar); times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierline.windows import Window

NANO: Final = 1_000_000_000
"""nano-USD in one US dollar."""

Label = Literal["simple", "moderate", "complex"]
LABELS: Final[tuple[Label, ...]] = ("simple", "moderate", "complex")

Source = Literal[
    "pin",
    "label",
    "explicit",
    "keyword",
    "signal",
    "route",
    "local",
    "claude",
    "cache",
    "sticky",
    "step",
    "fixed",
    "default",
]
"""Who chose. The last five are a cached verdict, a kept tier, what an agent's step is, a constant, and nobody."""

NO_PRICE: Final = "the model has no known price"
"""Why an offer of a model that the price book does not know has no bound."""

REGIONAL: Final = "regional"
"""The `geo` of a request to an endpoint that costs more because it stays in its region."""

Mode = Literal["enforce", "observe", "off"]
"""`observe` decides, traces and reports, and changes and refuses nothing; `off` does nothing at all."""
MODES: Final[tuple[Mode, ...]] = ("enforce", "observe", "off")

Role = Literal["first", "retry", "fallback", "escalation", "speculative"]


def usd(nano: int) -> str:
    """`nano` as dollars for people: `$1.20`, `$0.000034`; at least two digits after the point."""
    sign = "-" if nano < 0 else ""
    whole, fraction = divmod(abs(nano), NANO)
    digits = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole:,}.{digits}"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer, as the Messages API reports them.

    `input_tokens` are those that were neither written to nor read from the prompt cache;
    `output_tokens` include thinking. `web_searches` are counted in requests.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0
    web_searches: int = 0

    @property
    def prompt_tokens(self) -> int:
        """All tokens of the prompt: fresh, written to the cache and read from it."""
        return self.input_tokens + self.cache_write_5m + self.cache_write_1h + self.cache_read

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_write_5m + other.cache_write_5m,
            self.cache_write_1h + other.cache_write_1h,
            self.cache_read + other.cache_read,
            self.web_searches + other.web_searches,
        )


class Terms(NamedTuple):
    """What multiplies the price of a request, beside its model.

    `geo` is `None` where the request does not say: the workspace's default may then be the dearer one.
    """

    batch: bool = False
    fast: bool = False
    geo: str | None = None


@dataclass(frozen=True, slots=True)
class Classification:
    """An opinion on a request: a label, how sure (0 to 1), who says so, and what asking cost (nano-USD)."""

    label: str
    confidence: float
    source: Source
    cost: int = 0
    reason: str = ""


class Chance(NamedTuple):
    """How likely a tier's answer is good enough: `good` from 0 to 1, and how many outcomes of the route say so.

    `evidence` is the number of outcomes of this tier on this route, old ones counted as what is left of them.
    """

    tier: str
    good: float
    evidence: float = 0.0


class Forecast(NamedTuple):
    """How likely each tier is good enough for a request, cheapest first.

    `evidence` is the number of outcomes of the route, over all tiers, old ones counted as what is left of them.
    `familiar` says how much the text is like what has been seen, from 0 to 1: where it is not, the prior holds.
    """

    chances: tuple[Chance, ...]
    evidence: float = 0.0
    familiar: float = 0.0


@veiled("text", "context")
@dataclass(frozen=True, slots=True)
class View:
    """The bounded part of a request that is classified: never the whole of a long one.

    `text` is the latest turn that a person wrote, cut in its middle past `tierline.call.VIEW_CHARS`;
    `context` is the end of what it leans on (the answer before it), and empty on a first turn.
    `task` and `expected_output` (tokens) are what the app's policy says of the route.
    """

    text: str
    context: str = ""
    turns: int = 1
    tools: int = 0
    forced_tool: bool = False
    images: int = 0
    documents: int = 0
    max_tokens: int = 0
    task: str | None = None
    expected_output: int | None = None


@veiled("changes")
class Offer(NamedTuple):
    """A tier that could take the call, and the most that it could cost there.

    `cost` is the worst case in nano-USD, or None where it cannot be bounded; `unbounded` then says why.
    `input_cost` is the part of it that the prompt alone may cost. `max_tokens` is what the request will ask for
    there, None where it asks for nothing that is a number. `changes` are the fields of the body that it takes to send
    the call there, None for one that is left out, and `reasons` say why; `terms` are what it is then billed by, None
    for the call's own.
    """

    tier: str
    model: str
    cost: int | None
    input_cost: int = 0
    unbounded: str = ""
    max_tokens: int | None = None
    changes: Mapping[str, Any] = MappingProxyType({})
    reasons: tuple[str, ...] = ()
    terms: Terms | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a budget let no offer pass: every number behind a 429 or 402. Money in nano-USD."""

    budget: str
    account: str
    limit: int
    spent: int
    held: int
    needed: int | None
    renews_in: float | None = None
    """Seconds until the window ends; None for a budget that does not renew."""
    unbounded: str = ""
    """Why the cost cannot be bounded, where that is the reason (`needed` is then None)."""
    budgets: tuple[Standing, ...] = ()
    """Every budget of the call, as it stood."""
    at: float = 0.0
    """When, in seconds since the epoch, by the ledger's clock."""
    tier: str = ""
    """The tier of the cheapest offer, which `needed` is for."""

    @property
    def fits_in(self) -> float | None:
        """Seconds until the call may fit; None where it never will, for it costs more than the budget has in all."""
        return self.renews_in if self.needed is not None and self.needed <= self.limit else None

    @property
    def window(self) -> int:
        """A number for the window in which this was: of refusals of one account, the same within one window.

        A rolling window never ends: its length is counted from the epoch.
        """
        for each in self.budgets:
            if each.window.rolls and (each.budget, each.account) == (self.budget, self.account):
                return int(self.at // each.window.seconds)
        return 0 if self.renews_in is None else round(self.at + self.renews_in)

    def __str__(self) -> str:
        if self.needed is None:
            return (
                f"budget {self.budget!r} is hard and this call cannot be bounded: {self.unbounded}. "
                "Bound it, or make the budget hard=False"
            )
        when = "it does not renew" if self.renews_in is None else f"it renews in {self.renews_in:.0f} s"
        return (
            f"budget {self.budget!r} has {usd(max(0, self.limit - self.spent - self.held))} left of "
            f"{usd(self.limit)} (spent {usd(self.spent)}, held {usd(self.held)}), and the cheapest offer "
            f"may cost {usd(self.needed)}; {when}"
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """One account of a budget, as it stood at some moment. Money in nano-USD.

    `renews_at`, in seconds since the epoch: when the window ends; for a rolling one, when enough has stopped counting
    for the call that was refused. None where it never does.
    """

    budget: str
    account: str
    limit: int
    spent: int
    held: int
    window: Window
    hard: bool = True
    renews_at: float | None = None

    @property
    def remaining(self) -> int:
        """What may still be spent; below 0 where the limit is passed."""
        return self.limit - self.spent - self.held

    @property
    def share(self) -> float:
        """(spent + held) / limit."""
        return (self.spent + self.held) / self.limit


@dataclass(frozen=True, slots=True)
class Remaining:
    """A budget as it stood when a call was admitted, this call's hold included. Money in nano-USD."""

    budget: str
    account: str
    limit: int
    remaining: int
    hard: bool = True


@dataclass(frozen=True, slots=True)
class Attempt:
    """One upstream HTTP request of a call.

    `outcome` is `ok`, an error type of the API (`overloaded_error`), or how it was cut off
    (`timeout`, `connection_error`, `client_disconnected`, `closed`, `cancelled`, `truncated`, `shutdown`, …). One with
    the role `speculative` was sent while the verdict was asked: it is the call's answer where it is the last one, and
    `discarded` where it was called off.
    """

    tier: str
    model: str
    role: Role
    outcome: str
    usage: Usage = field(default_factory=Usage)
    cost: int = 0
    seconds: float = 0.0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What `mode="enforce"` would have made of a call that was only observed. Money in nano-USD.

    `tier` is None where the call would have been refused; `why` then says by what. `cost` is what the same usage
    would have cost there, classifying included, and `saved` how much less that is than what the app paid for
    its answer. Both are 0 until an answer has come back whole.
    """

    tier: str | None
    why: str = ""
    downgraded: bool = False
    cost: int = 0
    saved: int = 0


class Grader(Protocol):
    """Takes grades of one call's answer."""

    def grade(self, decision: str, tier: str, good: bool | float) -> None:
        """The app says how good it was."""
        ...

    def handle(self, decision: str, tier: str) -> str:
        """A handle for whoever saw it; empty where none can be made now."""
        ...


class _Gradable:
    """Holds what is no value of a decision, and so in none of its copies, comparisons and reprs."""

    __slots__ = ("_grader",)


@dataclass(frozen=True, slots=True)
class Decision(_Gradable):
    """What happened to one call, and why. Money in nano-USD, times in seconds.

    `tier` is the name of the tier that was taken, `requested_tier` the one that would have been taken with
    money enough. `saved` is against the ladder's top tier at the same usage, without that of a speculation in vain.
    While a stream is being read (or by a thread what was sent in vain) `settled` is False and the money is only that
    of what has ended; the entry in `Binding.decisions` is replaced when it ends.

    In mode `observe`, `tier` and `model` are what the call was sent to, and `observed` says what would have been;
    label, source, `requested_tier` and reasons are those of the decision.

    `run` is the agent run that the call was a part of, as the app named it. `trace_id` is that of the call's trace, 32
    hexadecimal digits, and empty where none is recorded.

    `cost` is what the answers cost, those included that were not good enough (`policy(escalate=…)`), and what was asked
    about them: `classifier_cost` for a verdict, `grading_cost` for grades. `saved` is against the answer that
    the app got, from the top tier alone.

    `confidence` is that of the opinion in `label`; where the route chose, there is no label, and it is how likely the
    tier was thought good enough. `forecast` is what the route said of each tier, None where it has not taught enough,
    or something came before. `explored` says that the call went to a neighbour of the tier that was chosen, to find out
    how good that is.
    """

    id: str
    tier: str
    model: str
    requested_tier: str
    label: str | None
    confidence: float
    source: Source
    reasons: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    usage: Usage = field(default_factory=Usage)
    cost: int = 0
    saved: int = 0
    classifier_cost: int = 0
    grading_cost: int = 0
    latency_s: float = 0.0
    classifier_latency_s: float = 0.0
    budgets: tuple[Remaining, ...] = ()
    estimated: bool = False
    settled: bool = False
    route: str | None = None
    tenant: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    run: str | None = None
    forecast: Forecast | None = None
    explored: bool = False
    observed: Observed | None = None
    trace_id: str = ""

    def grade(self, good: bool | float) -> None:
        """Say how good the answer was: True, False, or a number from 0 (useless) to 1 (good enough).

        Tierline learns from it what each tier is good enough for on this route. It may be said at any time, in any
        thread, and waits for nothing; of what is said of one decision within about a second, the last counts, and
        then nothing more. Does nothing where no tier of the ladder answered: with mode `off`, where the call was
        refused, for an id on no rung, and for a copy of a decision. ConfigurationError for what is no grade.
        """
        if (grader := self._graded_by()) is not None:
            grader.grade(self.id, self.tier, good)

    @property
    def handle(self) -> str:
        """A text, safe in a URL, that lets whoever saw the answer grade it later: see `Router.grade`.

        It is good for one grade, for seven days (`Router(handle_ttl=…)`), in every worker that shares the store, and
        tells nothing of what it stands for. Empty where `grade` does nothing, and while the store is away that keeps
        the secret.
        """
        grader = self._graded_by()
        return "" if grader is None else grader.handle(self.id, self.tier)

    def with_grader(self, grader: Grader) -> Decision:
        """The same decision, which `grader` takes the grades of."""
        object.__setattr__(self, "_grader", grader)
        return self

    def _graded_by(self) -> Grader | None:
        return getattr(self, "_grader", None)


Comparative = Literal["better", "same", "worse"]
"""How an answer is beside that of the tier above: what a judge says of both, whichever it is shown first."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """An answer of the app's, compared with what the tier above answered to the same request. Money in nano-USD.

    `decision` is the id of the call, `cost` what that cost; `above_cost` and `judge_cost` are what comparing cost, and
    no part of it. `verdict` says how the app's answer was: `worse` is a call that the tier above should have had. `at`
    is in seconds since the epoch. `texts` (the end of the request as the judge saw it, the starts of the app's answer
    and of the other one, 4,000 characters each) are kept only where the app said so, and only of what was worse.
    """

    decision: str
    route: str | None
    tier: str
    above: str
    verdict: Comparative
    cost: int
    above_cost: int
    judge_cost: int
    at: float
    texts: tuple[str, str, str] | None = field(default=None, repr=False)

    @property
    def lost(self) -> bool:
        """Whether the tier above was better."""
        return self.verdict == "worse"
