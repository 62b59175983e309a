"""What one process has done since it started: counted as calls end, shown as a table."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping  # noqa: TC003  (FastAPI reads the annotations of what an endpoint returns)
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from tierline.budgets import run_account
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tierline.binding import Purpose
    from tierline.values import Decision, Observed

V = TypeVar("V")

MOST_NAMES: Final = 1_000
"""Most routes, and most accounts, that are counted by name; the rest is counted together."""
OTHER: Final = "(other)"
NO_ROUTE: Final = "(no route)"
NO_TENANT: Final = "(no tenant)"
KEPT_LATENCIES: Final = 10_000
KEPT_DOWNGRADES: Final = 100

_Sums: TypeAlias = dict[str, list[int]]
"""Calls and their cost by name, in lists: they are added to on every call."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether calls can be served now: true where there are no `problems`. These are for operators, not for clients."""

    problems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class Downgrade:
    """A call that a budget moved to a cheaper tier: when (seconds since the epoch), and how full the budget was."""

    at: float
    from_tier: str
    to_tier: str
    share: float


@dataclass(frozen=True, slots=True)
class Spend:
    """Calls and what they cost (nano-USD)."""

    calls: int = 0
    cost: int = 0

    def plus(self, cost: int, calls: int = 1) -> Spend:
        """So much more."""
        return Spend(self.calls + calls, self.cost + cost)


@dataclass(frozen=True, slots=True)
class Observation:
    """What `mode="enforce"` would have made of the calls that were only observed. Money in nano-USD.

    `cost` is what those that had an answer would have cost, classifying included, and `saved` how much less that is
    than what the app paid for them. `by_tier` leaves out those that would have been `refused`.
    """

    calls: int = 0
    cost: int = 0
    saved: int = 0
    downgraded: int = 0
    refused: int = 0
    by_tier: Mapping[str, Spend] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batched:
    """Requests of batches that this process has taken in, or in. Money in nano-USD.

    `by_outcome` counts what became of them, `by_tier` those that were sent. `plain` is what the same usage costs
    as calls, without a batch, and `top` as calls on the top tier.
    """

    requests: int = 0
    cost: int = 0
    plain: int = 0
    top: int = 0
    by_outcome: Mapping[str, int] = field(default_factory=dict)
    by_tier: Mapping[str, Spend] = field(default_factory=dict)

    @property
    def saved(self) -> int:
        """How much less it was than calls on the top tier."""
        return self.top - self.cost

    def plus(self, tier: str, outcome: str, cost: int, plain: int, top: int) -> Batched:
        """One request more; `tier` is empty for what was not sent."""
        by_tier = dict(self.by_tier)
        if tier:
            by_tier[tier] = by_tier.get(tier, Spend()).plus(cost)
        by_outcome = {**self.by_outcome, outcome: self.by_outcome.get(outcome, 0) + 1}
        sums = self.cost + cost, self.plain + plain, self.top + top
        return Batched(self.requests + 1, *sums, by_outcome, by_tier)


@dataclass(frozen=True, slots=True)
class Report:
    """A snapshot. Money in nano-USD, times in seconds. `str(report)` is a table for people.

    `cost` includes `classifier_cost`, `grading_cost` and `shadow_cost`, the rows of `by_tier` and `by_tag` do not: they
    are what the answers cost. `escalations` are calls for which a better tier was asked, for an answer was not good
    enough; all that they cost is counted with the tier whose answer the app got. Of answers that were compared with the
    tier above (`shadows`), it lost `shadows_lost`.
    `all_on[tier]` is what the same usage would have cost on one tier alone; `saved` is against the top one, shadows
    left out. Latencies are of the last 10,000 calls.
    """

    calls: int
    cost: int
    classifier_cost: int
    saved: int
    by_tier: Mapping[str, Spend]
    by_route: Mapping[str, Spend]
    by_account: Mapping[str, Spend]
    by_tag: Mapping[str, Spend]
    """By `name=value`, of a policy's `tags`; a call with several counts in several rows."""
    all_on: Mapping[str, int]
    observed: Observation
    cache_hits: int
    cache_misses: int
    cache_stored: int
    """Of the hits, those that were found in the store, which other processes share."""
    prompt_caching_saved: int
    """By prefixes that `cache_prompt` marked, against the same calls without: below 0 where nothing read them again."""
    downgraded: int
    downgrades: tuple[Downgrade, ...]
    """The latest hundred of them."""
    explored: int
    speculated: int
    """Calls that were sent to the cheapest tier while their verdict was asked: see `policy(speculate=…)`."""
    speculations_won: int
    """Of them, those that were answered by it."""
    speculation_cost: int
    """What the others cost for nothing (nano-USD), in the rows of the tiers that answered."""
    upgrades_withheld: int
    """Calls whose text wanted a dearer tier than its account had left: see `Router(max_upgrades=…)`."""
    fallbacks: int
    escalations: int
    grading_cost: int
    refusals: int
    failures: int
    shadows: int
    shadows_lost: int
    shadows_dropped: int
    """Chosen, and not compared: for want of money, of room or of a verdict, or because an answer was no plain one."""
    shadow_cost: int
    latency_p50: float
    latency_p95: float
    classifier_latency_p50: float
    classifier_latency_p95: float
    by_run: Mapping[str, Spend] = field(default_factory=dict)
    """By the account of a run, `acme/nightly`: of calls that were part of one."""
    batched: Batched = Batched()
    """Requests of batches: they are no calls, and in nothing of the above."""

    def __str__(self) -> str:
        share = f"{self.classifier_cost / self.cost:.1%} of it" if self.cost else "none"
        lookups = self.cache_hits + self.cache_misses
        rate = f"{self.cache_hits / lookups:.0%}" if lookups else "no lookups"
        stored = f" ({self.cache_stored:,} in the store)" if self.cache_stored else ""
        dearest = max(self.all_on.values(), default=0)
        rows = [
            ("calls", f"{self.calls:,}"),
            *((f"  {name}", f"{s.calls:,} for {usd(s.cost)}") for name, s in self.by_tier.items()),
            ("cost", usd(self.cost)),
            ("  classifying", f"{usd(self.classifier_cost)}, {share}"),
            *((("  grading", usd(self.grading_cost)),) if self.grading_cost else ()),
            *((("  shadows", usd(self.shadow_cost)),) if self.shadow_cost else ()),
            *((f"  all on {name}", usd(cost)) for name, cost in self.all_on.items()),
            ("saved", f"{usd(self.saved)}, {self.saved / dearest:.0%}" if dearest else usd(self.saved)),
            ("verdict cache", f"{self.cache_hits:,} hits{stored}, {self.cache_misses:,} misses ({rate})"),
            *((("shadows", self._shadows),) if self.shadows or self.shadows_dropped or self.shadow_cost else ()),
            *((("prompt caching", f"{usd(self.prompt_caching_saved)} saved"),) if self.prompt_caching_saved else ()),
            ("downgrades", f"{self.downgraded:,}"),
            *((("explored", f"{self.explored:,}"),) if self.explored else ()),
            *((("speculated", self._speculations),) if self.speculated else ()),
            *((("upgrades withheld", f"{self.upgrades_withheld:,}"),) if self.upgrades_withheld else ()),
            ("fallbacks", f"{self.fallbacks:,}"),
            *((("escalations", f"{self.escalations:,}"),) if self.escalations else ()),
            ("refusals", f"{self.refusals:,}"),
            ("failures", f"{self.failures:,}"),
            ("latency", f"p50 {self.latency_p50 * 1e3:.0f} ms, p95 {self.latency_p95 * 1e3:.0f} ms"),
            (
                "  classifying",
                f"p50 {self.classifier_latency_p50 * 1e3:.1f} ms, p95 {self.classifier_latency_p95 * 1e3:.1f} ms",
            ),
            *self._batch_rows(),
            *self._observed_rows(),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    @property
    def _shadows(self) -> str:
        return (
            f"{self.shadows:,}: the tier above was better in {self.shadows_lost:,} ({self.shadows_dropped:,} dropped)"
        )

    @property
    def _speculations(self) -> str:
        return f"{self.speculated:,}: {self.speculations_won:,} answered, {usd(self.speculation_cost)} for the others"

    def _batch_rows(self) -> Iterator[tuple[str, str]]:
        """Requests that could wait."""
        found = self.batched
        if not found.requests:
            return
        yield "batches", f"{found.requests:,} requests for {usd(found.cost)}"
        for name, spend in found.by_tier.items():
            yield f"  {name}", f"{spend.calls:,} for {usd(spend.cost)}"
        for name, number in found.by_outcome.items():
            if name != "succeeded":
                yield f"  {name}", f"{number:,}"
        yield "  half the price", f"{usd(found.plain - found.cost)} less than the same as calls"
        yield "  saved", f"{usd(found.saved)}, {found.saved / found.top:.0%}" if found.top else usd(found.saved)

    def _observed_rows(self) -> Iterator[tuple[str, str]]:
        """What would have been, where that is not what was."""
        seen = self.observed
        if not seen.calls:
            return
        paid = seen.cost + seen.saved
        yield "only observed", f"{seen.calls:,}; enforced, they would have been"
        for name, spend in seen.by_tier.items():
            yield f"  on {name}", f"{spend.calls:,} for {usd(spend.cost)}"
        yield "  saving", f"{usd(seen.saved)}, {seen.saved / paid:.0%}" if paid else usd(seen.saved)
        yield "  downgraded", f"{seen.downgraded:,}"
        yield "  refused", f"{seen.refused:,}"


@dataclass(slots=True)
class Tally:
    """Counts calls as they end. Safe from any thread."""

    tiers: Sequence[str]
    calls: int = 0
    cost: int = 0
    classifier_cost: int = 0
    saved: int = 0
    downgrades: int = 0
    explored: int = 0
    speculated: int = 0
    speculations_won: int = 0
    speculation_cost: int = 0
    upgrades_withheld: int = 0
    fallbacks: int = 0
    escalations: int = 0
    grading_cost: int = 0
    refusals: int = 0
    failures: int = 0
    shadows: int = 0
    shadows_lost: int = 0
    shadows_dropped: int = 0
    shadow_cost: int = 0
    prompt_caching_saved: int = 0
    _by_tier: _Sums = field(default_factory=dict)
    _by_route: _Sums = field(default_factory=dict)
    _by_account: _Sums = field(default_factory=dict)
    _by_tag: _Sums = field(default_factory=dict)
    _by_run: _Sums = field(default_factory=dict)
    _observed: Observation = Observation()
    _batched: Batched = Batched()
    _all_on: Counter[str] = field(default_factory=Counter)
    _downgrades: deque[Downgrade] = field(default_factory=lambda: deque(maxlen=KEPT_DOWNGRADES))
    _latency: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_LATENCIES))
    _classifying: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_LATENCIES))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ended(self, decision: Decision, all_on: Mapping[str, int], *, failed: bool) -> None:
        """Count a call that is settled. `all_on`: what its usage would have cost on each tier."""
        with self._lock:
            self.calls += 1
            # What classifying cost was counted when it was settled: several may wait for a verdict, or nobody.
            cost = decision.cost - decision.classifier_cost - decision.grading_cost
            self.cost += cost
            self.saved += decision.saved
            self.failures += failed
            self.explored += decision.explored
            roles = [attempt.role for attempt in decision.attempts]
            self.fallbacks += "fallback" in roles
            self.escalations += "escalation" in roles
            _count(self._by_tier, decision.tier, cost)
            _count(self._by_route, decision.route or NO_ROUTE, cost)
            _count(self._by_account, decision.tenant or NO_TENANT, cost)
            if decision.run is not None:
                _count(self._by_run, run_account(decision.tenant, decision.run), cost)
            for key, value in decision.tags:
                _count(self._by_tag, f"{key}={value}", cost)
            if decision.observed is not None:
                self._observed = _with(self._observed, decision.observed, decision.classifier_cost)
            for name, cost in all_on.items():
                self._all_on[name] += cost
            self._latency.append(decision.latency_s)
            if decision.classifier_latency_s:
                self._classifying.append(decision.classifier_latency_s)

    def beside(self, cost: int, *, won: bool) -> None:
        """Count a call that speculated, and what that cost for nothing (nano-USD), which is in the call's cost."""
        with self._lock:
            self.speculated += 1
            self.speculations_won += won
            self.speculation_cost += cost

    def asked(self, cost: int, route: str | None, tenant: str | None, purpose: Purpose = "classify") -> None:
        """Count a question of Tierline's own (nano-USD), for the route and the tenant of the call that asked it."""
        with self._lock:
            self.cost += cost
            if purpose == "classify":
                self.classifier_cost += cost
            elif purpose == "grade":
                self.grading_cost += cost
            else:
                self.shadow_cost += cost
            for table, name in ((self._by_route, route or NO_ROUTE), (self._by_account, tenant or NO_TENANT)):
                _count(table, name, cost, calls=0)

    def shadowed(self, verdict: str | None) -> None:
        """Count an answer that was compared with the tier above; None: that was to be."""
        with self._lock:
            self.shadows += verdict is not None
            self.shadows_lost += verdict == "worse"
            self.shadows_dropped += verdict is None

    def downgraded(self, downgrade: Downgrade) -> None:
        """Count a call that a budget moved down."""
        with self._lock:
            self.downgrades += 1
            self._downgrades.append(downgrade)

    def withheld(self) -> None:
        """Count a call whose text wanted a dearer tier than its account had left."""
        with self._lock:
            self.upgrades_withheld += 1

    def cached(self, saved: int) -> None:
        """Count what marking a prefix saved (nano-USD), or cost."""
        with self._lock:
            self.prompt_caching_saved += saved

    def batched(self, tier: str, outcome: str, cost: int = 0, plain: int = 0, top: int = 0) -> None:
        """Count a request of a batch that has come back, or was not sent: see `Batched`."""
        with self._lock:
            self._batched = self._batched.plus(tier, outcome, cost, plain, top)

    def refused(self) -> None:
        """Count a call that no budget had room for."""
        with self._lock:
            self.refusals += 1

    def report(self, cache_hits: int, cache_misses: int, cache_stored: int = 0) -> Report:
        """A snapshot of now."""
        with self._lock:
            latency, classifying = sorted(self._latency), sorted(self._classifying)
            return Report(
                calls=self.calls,
                cost=self.cost,
                classifier_cost=self.classifier_cost,
                saved=self.saved,
                by_tier=_ordered(_spends(self._by_tier), self.tiers),
                by_route=_spends(self._by_route),
                by_account=_spends(self._by_account),
                by_tag=_spends(self._by_tag),
                observed=replace(self._observed, by_tier=_ordered(self._observed.by_tier, self.tiers)),
                all_on=_ordered(self._all_on, self.tiers),
                cache_hits=cache_hits,
                cache_misses=cache_misses,
                cache_stored=cache_stored,
                prompt_caching_saved=self.prompt_caching_saved,
                downgraded=self.downgrades,
                downgrades=tuple(self._downgrades),
                explored=self.explored,
                speculated=self.speculated,
                speculations_won=self.speculations_won,
                speculation_cost=self.speculation_cost,
                upgrades_withheld=self.upgrades_withheld,
                fallbacks=self.fallbacks,
                escalations=self.escalations,
                grading_cost=self.grading_cost,
                refusals=self.refusals,
                failures=self.failures,
                shadows=self.shadows,
                shadows_lost=self.shadows_lost,
                shadows_dropped=self.shadows_dropped,
                shadow_cost=self.shadow_cost,
                latency_p50=_quantile(latency, 0.5),
                latency_p95=_quantile(latency, 0.95),
                classifier_latency_p50=_quantile(classifying, 0.5),
                classifier_latency_p95=_quantile(classifying, 0.95),
                by_run=_spends(self._by_run),
                batched=replace(self._batched, by_tier=_ordered(self._batched.by_tier, self.tiers)),
            )


def _ordered(table: Mapping[str, V], tiers: Sequence[str]) -> dict[str, V]:
    """The rows of a table by tier, cheapest first."""
    return {name: table[name] for name in tiers if name in table}


def _with(seen: Observation, call: Observed, classifying: int) -> Observation:
    """One more call that was only observed."""
    by_tier = dict(seen.by_tier)
    if call.tier is not None:
        # As in the rows of what was: without what classifying cost.
        by_tier[call.tier] = by_tier.get(call.tier, Spend()).plus(max(0, call.cost - classifying))
    return Observation(
        seen.calls + 1,
        seen.cost + call.cost,
        seen.saved + call.saved,
        seen.downgraded + call.downgraded,
        seen.refused + (call.tier is None),
        by_tier,
    )


def _count(table: _Sums, name: str, cost: int, calls: int = 1) -> None:
    """Add to a name's row; names past the bound share one."""
    row = table.get(name)
    if row is None:
        row = table.setdefault(name if len(table) < MOST_NAMES else OTHER, [0, 0])
    row[0] += calls
    row[1] += cost


def _spends(table: _Sums) -> dict[str, Spend]:
    """The rows as a report has them."""
    return {name: Spend(calls, cost) for name, (calls, cost) in table.items()}


def _quantile(ordered: Sequence[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0
