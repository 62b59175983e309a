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
    from opentelemetry.metrics import MeterProvider

    from tierline.binding import Purpose
    from tierline.breaker import State
    from tierline.ledger.base import Reservation
    from tierline.values import Classification, Decision, Mode, Refusal

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
    """The instruments of one Router. Money in USD, times in seconds."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self._own = provider is not None
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
        self._cost = meter.create_counter("tierline.cost", "USD", "What answers and questions cost.")
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
        self._away = meter.create_gauge("tierline.ledger.away", "1", "Whether the ledger cannot be asked: 1 or 0.")
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
        self._route, self._model, self._error, self._name = Bounded(), Bounded(), Bounded(), Bounded()

    @property
    def recording(self) -> bool:
        """Whether anybody may be listening: without a provider of the app's there is nobody."""
        return self._own or not type(metrics.get_meter_provider()).__module__.startswith("opentelemetry.metrics")

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
    ) -> None:
        """A call is over. `asked` is the model that it named, `purpose` is what for."""
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
        if not decision.attempts:
            return
        # What a question cost is counted when it is settled: several may wait for its verdict, or nobody.
        cost = (decision.cost - decision.classifier_cost) / NANO
        self._cost.add(cost, {"tierline.decision.tier": decision.tier, "tierline.purpose": purpose, **place})
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
        if held is not None and not own:
            for (line, _), used in zip(held.lines, held.used, strict=True):
                self._utilization.record((used + held.cost) / line.limit, {"tierline.budget": self._name(line.budget)})

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

    def looked_up(self, hit: bool) -> None:
        """A verdict was looked for in the cache."""
        if self.recording:
            self._lookups.add(1, {"tierline.cache.hit": hit})

    def looked_in_store(self, outcome: str) -> None:
        """A verdict was looked for in the store: `hit`, `miss`, or `passed_over` where that did not answer in time."""
        if self.recording:
            self._stored.add(1, {"tierline.cache.outcome": outcome})

    def ledger(self, away: bool) -> None:
        """The ledger has gone away, or is back."""
        if self.recording:
            self._away.set(1 if away else 0)
            if away:
                self._outages.add(1)
