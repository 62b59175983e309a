"""The metrics of a Router: those of the GenAI conventions, which the SDK leaves out, and Tierline's own.

Only `opentelemetry-api` is used; without an SDK in the app nothing is recorded. Every attribute has a bounded number
of values: tenants, accounts and tags are none, and of routes, models and errors only so many are told apart.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry import metrics

from tierline.telemetry import bounded
from tierline.values import NANO

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from opentelemetry.metrics import MeterProvider

    from tierline.binding import Purpose
    from tierline.breaker import State
    from tierline.budgets import Budget, Line
    from tierline.ledger.base import Reservation
    from tierline.values import Classification, Decision, Mode, Refusal
    from tierline.windows import Span

MOST_VALUES: Final = 200
"""Most values of one attribute that are told apart."""
OTHER: Final = "_OTHER"

# The boundaries are those of the GenAI conventions.
_SECONDS: Final = tuple(0.01 * 2**n for n in range(14))
_TOKENS: Final = tuple(float(4**n) for n in range(14))
_CLASSIFYING: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_SHARES: Final = (0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class Bounded:
    """Attribute values as they came, as far as there is room for them. Safe from any thread."""

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most = most
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        """`value`, or `_OTHER` where there are too many already."""
        if value in self._seen:
            return value
        value = bounded(value)
        with self._lock:
            if value not in self._seen and len(self._seen) >= self._most:
                return OTHER
            self._seen.add(value)
        return value


class Metrics:
    """The instruments of one Router. Money in USD, times in seconds. `known` are its budgets, by name."""

    def __init__(self, provider: MeterProvider | None, known: Callable[[], Mapping[str, Budget]] = dict) -> None:
        self._own = provider is not None
        self._known = known
        self._shared: dict[str, bool] = {}
        """Which budgets have one account for all: their limits are as few as they are."""
        self._told: dict[str, tuple[int, float]] = {}
        """Limit (nano-USD) and window (seconds) of those, as their gauges are."""
        meter = metrics.get_meter("tierline", meter_provider=provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "Duration of a call, its retries and fallbacks included.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._first_chunk = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Time until the first bytes of a stream.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens of a call's prompt and answer.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._decisions = meter.create_counter("tierline.decisions", "{decision}", "Calls, by what was decided.")
        self._attempts = meter.create_counter("tierline.attempts", "{attempt}", "Requests to the API that have ended.")
        self._cost = meter.create_counter("tierline.cost", "USD", "What answers and questions cost.")
        # What is saved goes up and down, and nobody can tell a loss from a restart there: this only goes up.
        self._top = meter.create_counter(
            "tierline.cost.top", "USD", "What calls would have cost on the top tier, or did where that is not known."
        )
        # Classifying may cost more than it saves.
        self._saved = meter.create_up_down_counter("tierline.saved", "USD", "Less than on the top tier alone.")
        self._lookups = meter.create_counter("tierline.cache.lookups", "{lookup}", "Look-ups of a verdict.")
        self._stored = meter.create_counter(
            "tierline.cache.store.lookups", "{lookup}", "Look-ups of verdicts that other processes share."
        )
        self._utilization = meter.create_histogram(
            "tierline.budget.utilization",
            "1",
            "Share of a budget that is spent and held, at each call that it admits.",
            explicit_bucket_boundaries_advisory=_SHARES,
        )
        self._spent = meter.create_counter("tierline.budget.spent", "USD", "What was charged to a budget.")
        self._limit = meter.create_gauge("tierline.budget.limit", "USD", "The limit of a budget with one account.")
        self._window = meter.create_gauge("tierline.budget.window", "s", "How long its window is, where it renews.")
        self._batched = meter.create_counter(
            "tierline.batch.requests", "{request}", "Requests of batches, by what became of them."
        )
        self._jobs = meter.create_gauge("tierline.batch.jobs", "{job}", "Jobs that have not ended, of all processes.")
        self._refusals = meter.create_counter("tierline.refusals", "{call}", "Calls that a budget had no room for.")
        self._classifying = meter.create_histogram(
            "tierline.classifier.duration",
            "s",
            "Time until there was an opinion, or none.",
            explicit_bucket_boundaries_advisory=_CLASSIFYING,
        )
        self._upgrades = meter.create_counter(
            "tierline.upgrades.withheld", "{call}", "Calls whose text wanted a dearer tier than its account had left."
        )
        # Without a unit: of a 1 some exporters make a part of the name, and some do not.
        self._away = meter.create_gauge("tierline.ledger.away", "", "Whether the ledger cannot be asked: 1 or 0.")
        self._outages = meter.create_counter("tierline.ledger.outages", "{outage}", "How often it went away.")
        self._breakers = meter.create_up_down_counter(
            "tierline.breakers.open", "{breaker}", "Breakers that are not closed."
        )
        self._changes = meter.create_counter("tierline.breaker.changes", "{change}", "Breakers, by what they became.")
        self._withheld = meter.create_counter(
            "tierline.attempts.withheld", "{attempt}", "Attempts that were not made, by what stood against them."
        )
        self._shadows = meter.create_counter(
            "tierline.shadows", "{shadow}", "Answers that were compared with the tier above, or were to be."
        )
        self._speculations = meter.create_counter(
            "tierline.speculations", "{speculation}", "Calls that were sent before their verdict came, or were to be."
        )
        self._escalations = meter.create_counter(
            "tierline.escalations",
            "{escalation}",
            "Answers that were not good enough, and that the next tier gave again.",
        )
        self._route, self._model, self._error, self._name = Bounded(), Bounded(), Bounded(), Bounded()

    @property
    def recording(self) -> bool:
        """Whether anybody may be listening: without a provider of the app's there is nobody.

        Asked several times on every call. An instrument that was made before there was a provider stands for another
        one, which is None until there is: to look at that costs a tenth of asking OpenTelemetry for its provider.
        """
        if self._own:
            return True
        real = getattr(self._decisions, "_real_instrument", self._decisions)
        return real is not None and not type(real).__module__.startswith("opentelemetry.metrics")

    def ended(
        self,
        decision: Decision,
        outcome: str,
        error: str,
        *,
        asked: str,
        mode: Mode,
        purpose: Literal["answer"] | Purpose,
        first_chunk: float | None,
        held: Reservation | None,
        left: Collection[str],
    ) -> None:
        """A call is over.

        `asked` is the model that it named, `purpose` is what for. An attempt whose outcome is in `left` has not failed.
        """
        if not self.recording:
            return
        own = purpose != "answer"
        place = {"tierline.route": self._route(decision.route or "")}
        if not own:
            self._decisions.add(
                1,
                {
                    "tierline.decision.tier": decision.tier,
                    "tierline.decision.source": decision.source,
                    "tierline.outcome": self._error(outcome),
                    "tierline.mode": mode,
                    **place,
                },
            )
            self._saved.add(decision.saved / NANO, place)
            self._top.add((decision.cost + decision.saved) / NANO, place)
        if not decision.attempts:
            return
        # What a question cost is counted when it is settled: several may wait for its verdict, or nobody.
        cost = (decision.cost - decision.classifier_cost - decision.grading_cost) / NANO
        self._cost.add(cost, {"tierline.decision.tier": decision.tier, "tierline.purpose": purpose, **place})
        for attempt in decision.attempts:
            tried = {"tierline.attempt.tier": attempt.tier, "tierline.attempt.role": attempt.role}
            if attempt.outcome != "ok" and attempt.outcome not in left:
                tried["error.type"] = self._error(attempt.outcome)
            self._attempts.add(1, tried)
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": self._model(asked),
            "gen_ai.response.model": self._model(decision.model),
        }
        self._duration.record(
            decision.latency_s, {**attributes, "error.type": self._error(error)} if error else attributes
        )
        if first_chunk is not None:
            self._first_chunk.record(first_chunk, attributes)
        usage = decision.usage
        if usage.prompt_tokens or usage.output_tokens:
            self._tokens.record(usage.prompt_tokens, {**attributes, "gen_ai.token.type": "input"})
            self._tokens.record(usage.output_tokens, {**attributes, "gen_ai.token.type": "output"})
        if held is None:
            return
        for (line, span), used in zip(held.lines, held.used, strict=True):
            name = {"tierline.budget": self._name(line.budget)}
            if not own:
                self._utilization.record((used + held.cost) / line.limit, name)
            self._charged(line, span, cost, name)

    def _charged(self, line: Line, span: Span, cost: float, name: Mapping[str, str]) -> None:
        """A call was charged to an account: `cost` in USD."""
        self._spent.add(cost, name)
        if (shared := self._shared.get(name["tierline.budget"])) is None:
            budget = self._known().get(name["tierline.budget"])
            shared = self._shared[name["tierline.budget"]] = budget is not None and budget.per is None
        if not shared:
            return
        window = (line.window.seconds or span.end - span.start) if line.window.renews else 0.0
        if self._told.get(line.budget) != (line.limit, window):
            # A gauge keeps what it was set to; to set it costs more than to compare.
            self._told[line.budget] = line.limit, window
            self._limit.set(line.limit / NANO, name)
            if window:
                self._window.set(window, name)

    def charged(self, held: Reservation, cost: int) -> None:
        """A hold of requests of batches was settled: `cost` in nano-USD."""
        if self.recording:
            for line, span in held.lines:
                self._charged(line, span, cost / NANO, {"tierline.budget": self._name(line.budget)})

    def batched(self, tier: str, outcome: str, cost: int = 0, top: int = 0, route: str | None = None) -> None:
        """A request of a batch has come back, or was not sent; `top` is what it costs as a call on the top tier."""
        if not self.recording:
            return
        taken = {"tierline.decision.tier": tier}
        self._batched.add(1, {"tierline.outcome": outcome, **taken})
        if cost or top:
            place = {"tierline.route": self._route(route or "")}
            self._cost.add(cost / NANO, {**taken, "tierline.purpose": "batch", **place})
            self._top.add(top / NANO, place)
            self._saved.add((top - cost) / NANO, place)

    def jobs(self, number: int) -> None:
        """So many jobs have not ended."""
        if self.recording:
            self._jobs.set(number)

    def refused(self, refusal: Refusal) -> None:
        """A call was not sent, for the sake of a budget."""
        if self.recording:
            self._refusals.add(1, {"tierline.budget": self._name(refusal.budget)})

    def breaker_changed(self, model: str, before: State, after: State) -> None:
        """The breaker of a model is in another state."""
        # Also where nobody is known to listen yet: what is counted up must be counted down.
        model = self._model(model)
        step = (after != "closed") - (before != "closed")
        if step:
            self._breakers.add(step, {"gen_ai.request.model": model})
        self._changes.add(1, {"gen_ai.request.model": model, "tierline.breaker.state": after})

    def withheld(self, by: str) -> None:
        """An attempt was not made: for a breaker, a rate limit, a wait too long, the deadline or the retry budget."""
        if self.recording:
            self._withheld.add(1, {"tierline.withheld.by": by})

    def classified(self, name: str, opinion: Classification | None, seconds: float) -> None:
        """A request was classified, or nobody had an opinion."""
        if self.recording:
            source = opinion.source if opinion is not None else "none"
            self._classifying.record(
                seconds, {"tierline.classifier.name": self._name(name), "tierline.decision.source": source}
            )

    def upgrade_withheld(self, route: str | None) -> None:
        """A classification of the text wanted a dearer tier than is usual, and its account had its share of those."""
        if self.recording:
            self._upgrades.add(1, {"tierline.route": self._route(route or "")})

    def shadowed(self, outcome: str, tier: str, above: str, route: str | None) -> None:
        """An answer was compared with the tier above, or could not be: a verdict, or why there is none."""
        if self.recording:
            self._shadows.add(
                1,
                {
                    "tierline.shadow.outcome": outcome,
                    "tierline.decision.tier": tier,
                    "tierline.shadow.tier": above,
                    "tierline.route": self._route(route or ""),
                },
            )

    def speculated(self, outcome: str, tier: str, route: str | None) -> None:
        """The cheapest tier was asked beside the verdict, or was to be: what came of it."""
        if self.recording:
            self._speculations.add(
                1,
                {
                    "tierline.speculation.outcome": outcome,
                    "tierline.decision.tier": tier,
                    "tierline.route": self._route(route or ""),
                },
            )

    def escalated(self, kind: str, tier: str, to: str, route: str | None) -> None:
        """An answer failed a check, and the next tier was asked."""
        if self.recording:
            self._escalations.add(
                1,
                {
                    "tierline.escalation.reason": kind,
                    "tierline.decision.tier": tier,
                    "tierline.escalation.tier": to,
                    "tierline.route": self._route(route or ""),
                },
            )

    def looked_up(self, hit: bool) -> None:
        """A verdict was looked for in the cache."""
        if self.recording:
            self._lookups.add(1, {"tierline.cache.hit": hit})

    def looked_in_store(self, outcome: str) -> None:
        """A verdict was looked for in the store: `hit`, `miss`, or `passed_over` where that did not answer in time."""
        if self.recording:
            self._stored.add(1, {"tierline.cache.outcome": outcome})

    def ledger(self, away: bool) -> None:
        """The ledger has gone away, or is back; or it is there, at start-up."""
        if self.recording:
            self._away.set(1 if away else 0)
            if away:
                self._outages.add(1)
