"""The Router: one call from admission to settlement, and what an app sees of it all."""

from __future__ import annotations

import logging
import secrets
import threading
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from cachetools import LRUCache

from tierline.attempts import Books, Timing
from tierline.binding import Binding, Context, context, enter
from tierline.budgets import Budget, check_budgets
from tierline.classify import VerdictCache, default_classifier
from tierline.classify.base import check_classifier, check_confidence, fingerprint_of
from tierline.consult import Consultation
from tierline.errors import BudgetExceededError, ConfigurationError, TierlineError
from tierline.ladder import DEFAULT_LADDER, Ladder
from tierline.ledger import MemoryLedger
from tierline.legality import LARGEST_WINDOW, accepts
from tierline.policies import Policy, combine, marks_of
from tierline.prices import PriceBook
from tierline.report import Tally
from tierline.routes import policies_in, route_of
from tierline.run import Admission, CallRun, Labeller
from tierline.telemetry import tracer_of
from tierline.values import NO_PRICE, Offer, Refusal, View

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import typing_extensions
    from anthropic import AsyncAnthropic
    from opentelemetry.trace import TracerProvider

    from tierline.anthropic import Client
    from tierline.attempts import Reply
    from tierline.call import Call
    from tierline.classify import Classifier
    from tierline.dispatch import Upstream
    from tierline.ledger import Balance, Ledger
    from tierline.policies import Effective
    from tierline.report import Report
    from tierline.values import Classification

log: Final = logging.getLogger("tierline")

_MOST_COMBINATIONS: Final = 1_000
_MOST_KEPT: Final = 10_000
_GONE: Final = 0.25
"""Seconds in which a reader takes another chunk of an answer, if there is one."""

K = TypeVar("K")
V = TypeVar("V")
if TYPE_CHECKING:
    # `Router` by itself is one of AsyncAnthropic; a default needs a newer TypeVar than typing's.
    ClientT_co = typing_extensions.TypeVar("ClientT_co", bound=Client, covariant=True, default=AsyncAnthropic)
else:
    ClientT_co = TypeVar("ClientT_co", covariant=True)


class Recent(Generic[K, V]):
    """What was seen lately: bounded, and safe from any thread."""

    def __init__(self, most: int) -> None:
        self._kept: LRUCache[K, V] = LRUCache(most)
        self._lock = threading.Lock()

    def find(self, key: K) -> V | None:
        """What was kept for `key`, if it still is."""
        with self._lock:
            return self._kept.get(key)

    def keep(self, key: K, value: V) -> None:
        """Keep `value`, and drop what was used longest ago if there is no room."""
        with self._lock:
            self._kept[key] = value


class Router(Generic[ClientT_co]):
    """Sends each Claude call of an app to the cheapest tier that is good enough, within its policy and its budgets.

    - `client`: the app's own client, any asynchronous one of the SDK's; without one, one is made from the
      environment on first use, and closed at the end. To a type checker `Router(client)` is a Router of its class
    - `ladder`: the tiers, cheapest first
    - `budgets`: what may be spent; every call is charged to all of them
    - `policy`: what holds for every call
    - `classifier`: who says how hard a request is; by default rules, signals, then Claude's verdict
    - `min_confidence`: an opinion less sure than this moves one tier up (0 to 1)
    - `cache_size`, `cache_ttl`: entries and seconds of the verdict cache
    - `ledger`: where balances are kept; by default in the memory of this process
    - `prices`: by default the list prices of `genai-prices`
    - `secret`: keys the hashes of the verdict cache; random if it is not given
    - `tracer_provider`: by default OpenTelemetry's global one
    - `timing`: the clocks

    Raises ConfigurationError for what cannot work.
    """

    def __init__(
        self,
        client: ClientT_co | None = None,
        *,
        ladder: Ladder = DEFAULT_LADDER,
        budgets: Sequence[Budget] = (),
        policy: Policy | None = None,
        classifier: Classifier | None = None,
        min_confidence: float = 0.6,
        cache_size: int = 10_000,
        cache_ttl: float = 3600.0,
        ledger: Ledger | None = None,
        prices: PriceBook | None = None,
        secret: bytes | None = None,
        tracer_provider: TracerProvider | None = None,
        timing: Timing | None = None,
    ) -> None:
        if not isinstance(ladder, Ladder):
            raise ConfigurationError(
                f"ladder must be a Ladder, such as Ladder.of(haiku=…), got {type(ladder).__name__}"
            )
        check_confidence("min_confidence", min_confidence)
        self.ladder = ladder
        self.budgets = (budgets,) if isinstance(budgets, Budget) else tuple(budgets)
        if wrong := [b for b in self.budgets if not isinstance(b, Budget)]:
            raise ConfigurationError(f'budgets are written as [Budget("$5/day")], got {wrong[0]!r:.80}')
        self.policy = policy
        if policy is not None:
            if not isinstance(policy, Policy):
                raise ConfigurationError(f"Router(policy=…) takes a policy(…), got {type(policy).__name__}")
            policy.check(ladder, "Router(policy=…)")
        check_budgets((*self.budgets, *(policy.budgets if policy is not None else ())))
        self.classifier = check_classifier("Router(classifier=…)", classifier) if classifier else default_classifier()
        self.min_confidence = min_confidence
        self.timing = timing or Timing()
        self.prices = prices or PriceBook()
        self.ledger: Ledger = ledger if ledger is not None else MemoryLedger(clock=self.timing.now)
        self.cache = VerdictCache(
            maxsize=cache_size, ttl=cache_ttl, clock=self.timing.perf, secret=secret or secrets.token_bytes(32)
        )
        self._client: Any = client
        self._claude: Any = None
        self._owns_client = client is None
        self.books = Books(self.ledger, self.prices, self.timing)
        self.tally = Tally([tier.name for tier in ladder])
        self.tracer = tracer_of(tracer_provider)
        self._combined: dict[tuple[Policy, ...], tuple[Effective, str, tuple[Budget, ...]]] = {}
        self.loops: Recent[bytes, tuple[Classification | None]] = Recent(_MOST_KEPT)
        """What the first step of a tool loop was taken for: its later steps are not classified again."""
        self.threads: Recent[str, int] = Recent(_MOST_KEPT)
        """The tier of conversations that the server holds, by the id of the last answer: their model stays."""
        self.rejected: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        """Why the API rejects a client's key, until a call of it succeeds: it is asked for no verdicts meanwhile."""
        self._ids = count(1)
        self._prefix = secrets.token_hex(4)
        self._lifespans = 0

    # What an app uses

    @property
    def claude(self) -> ClientT_co:
        """The routed copy of the client, of the same class."""
        if self._claude is None:
            # The seam needs the SDK, which takes a second to import: only who calls Claude pays for it.
            from tierline.anthropic import attach, default_client  # noqa: PLC0415

            if self._client is None:
                self._client = default_client()
            self._claude = attach(self._client, self)
        return cast("ClientT_co", self._claude)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Start up and shut down with the app: `FastAPI(lifespan=router.lifespan)`, or inside a lifespan of your own.

        At start-up the policies of the app's routes are checked, the client and the price table are made. At
        shutdown what is still open is settled, the report is logged, and a client that the Router made is closed.
        May be nested: the outermost one counts.
        """
        for where, rule in policies_in(app):
            rule.check(self.ladder, where)
            self.check(rule)
        self._lifespans += 1
        try:
            if self._lifespans == 1:
                self._warm_up()
            yield
        finally:
            self._lifespans -= 1
            if not self._lifespans:
                await self.aclose()
                if self.tally.calls:
                    log.info("what this process did:\n%s", self.report())

    def _warm_up(self) -> None:
        _ = self.claude
        for tier in self.ladder:
            if self.prices.rates(tier.model) is None:
                log.warning(
                    "tier %s: model %s has no price; hard budgets will refuse it. Give one: "
                    "PriceBook({%r: Rates(…)})", tier.name, tier.model, tier.model,
                )  # fmt: skip

    async def aclose(self, timeout: float = 5.0) -> None:
        """Settle what is still open, waiting at most `timeout` seconds, and close a client that the Router made."""
        await self.cache.drain(timeout)
        await self.books.close(timeout)
        if self._owns_client and self._client is not None:
            client, self._client, self._claude = self._client, None, None
            await client.close()

    @asynccontextmanager
    async def bind(self, *, tenant: str | None = None, route: str | None = None) -> AsyncIterator[Binding]:
        """Bind work outside of requests, such as a job or a script, to a tenant and a route."""
        binding = Binding(self, tenant=tenant, route=route)
        before = context()
        enter(Context(binding))
        try:
            yield binding
        finally:
            enter(before)
            await self.end(binding, whole=True)

    async def classify(self, text: str, labels: Sequence[str], instruction: str) -> Classification | None:
        """Label a text of the app's own on the cheapest tier, cached: one of `labels`, or None for no opinion.

        Charged like any call. `instruction` says what to tell apart; the text is fenced off as data.
        """
        labels = tuple(labels)
        if not labels or len(set(labels)) != len(labels):
            raise ConfigurationError(f"classify: labels must be given, each once; got {list(labels)!r:.200}")
        now = context()
        binding = now.binding or Binding(self)
        found = self.admission(now, binding)
        consultation = Consultation(
            self.claude,
            self.cache,
            self.ladder[0],
            found.tenant,
            found.version,
            found.lines,
            found.route,
            silent=self.rejected.get(self.claude, ""),
        )
        try:
            return await consultation.consult(Labeller(labels, instruction), View(text=text))
        finally:
            if now.binding is None:
                await self.end(binding, whole=True)

    def report(self) -> Report:
        """What this process did so far."""
        stats = self.cache.stats()
        return self.tally.report(stats.hits + stats.joined, stats.misses)

    async def balances(self) -> list[Balance]:
        """Every budget and account, now."""
        return await self.ledger.balances()

    # What the seams use

    async def end(self, binding: Binding, *, whole: bool) -> None:
        """A request is over: settle what it left open, however often whoever waits for this is cancelled.

        `whole` says that it ended as the app meant it to: what still reads an answer then is a task that the app
        started to outlive it. Where the client is gone, nobody is expected to read on.
        """
        binding.over = True
        grace = self.ledger.lease if whole else _GONE
        for attempt in tuple(binding.open):
            self.books.background.start(attempt.sweep(grace))
        await self.forget(binding)

    async def run(self, call: Call, upstream: Upstream) -> Reply:
        """Steps 2 to 8 of one call. Raises TierlineError where nothing may be sent."""
        now = context()
        binding = now.binding or Binding(self)
        try:
            return await CallRun(self, call, upstream, now, binding).run()
        except TierlineError:
            binding.failing()
            raise
        finally:
            if now.binding is None or binding.over:
                await self.forget(binding)

    async def forget(self, binding: Binding) -> None:
        """Drop the accounts of a request that is over, once nothing of it is in flight."""
        if binding.request_lines and not binding.open:
            await self.ledger.forget(tuple(binding.request_lines))

    async def body_for_count(self, call: Call, upstream: Upstream) -> dict[str, Any]:
        """The body of a free token count, with the model that a call with it would go to. Nobody is asked for that."""
        now = context()
        binding = now.binding or Binding(self)
        try:
            return {**call.body, "model": await CallRun(self, call, upstream, now, binding).model_for_count()}
        except TierlineError:
            binding.failing()
            raise

    def refuse_unreadable(self, what: str) -> None:
        """BudgetExceededError where a hard budget holds for a request that cannot be read, and so not bounded."""
        now = context()
        binding = now.binding or Binding(self)
        lines = now.own.lines if now.own is not None else self.admission(now, binding).lines
        for line in lines:
            if line.hard:
                self.tally.refused()
                binding.failing()
                raise BudgetExceededError(Refusal(line.budget, line.account, line.limit, 0, 0, None, unbounded=what))

    # What a call uses

    def check(self, rule: Policy) -> None:
        """ConfigurationError where the budgets of a policy and those of the Router have one name."""
        check_budgets((*self.budgets, *(self.policy.budgets if self.policy is not None else ()), *rule.budgets))

    def next_id(self) -> str:
        """An id for a decision, unique over processes."""
        return f"{self._prefix}-{next(self._ids)}"

    def admission(self, now: Context, binding: Binding) -> Admission:
        """What is known of a call before it is read: what holds for it, who pays for it, where and for whom it is."""
        scope = binding.scope
        route = route_of(scope) if scope is not None else None
        rules = (
            *((self.policy,) if self.policy is not None else ()),
            *(binding.routes.policies_for(scope, route) if binding.routes is not None else ()),
            *binding.narrowed,
            *(marks_of(scope.get("endpoint")) if scope is not None else ()),
            *(rule for rule, _ in binding.blocks.values()),
            *now.blocks,
        )
        known = self._combined.get(rules)
        if known is None:
            effective = combine(rules, self.ladder)
            check_budgets((*self.budgets, *effective.budgets))
            version = fingerprint_of(effective.floor, effective.ceiling, effective.task, effective.expected_output)
            if len(self._combined) >= _MOST_COMBINATIONS:
                self._combined.clear()
            budgets = tuple(dict.fromkeys((*self.budgets, *effective.budgets)))
            known = self._combined[rules] = (effective, version, budgets)
        effective, version, budgets = known
        name = route.name if route is not None else binding.fixed_route
        tenant = binding.tenant
        lines = []
        for budget in budgets:
            request = binding.id if budget.per == "request" else ""
            line = budget.line(budget.account_of(scope, tenant=tenant, route=name, request=request))
            lines.append(line)
            if request:
                binding.request_lines.add(line)
        return Admission(effective, version, tuple(lines), name, tenant)

    def worst(self, call: Call, model: str, max_tokens: int | None) -> Offer:
        """The offer of a model with its worst case; None where it has no bound, with the reason."""
        known = accepts(model)
        window = known.window if known is not None else LARGEST_WINDOW
        prompt = window if call.input_bound is None else min(call.input_bound, window)
        prompt *= call.rounds
        bounds = self.prices.bounds(
            model,
            prompt,
            max_tokens or 0,
            web_searches=call.web_searches,
            cache_ttl=call.cache_ttl,
            terms=call.terms,
        )
        if bounds is None:
            return Offer("", model, None, 0, NO_PRICE, max_tokens)
        entry, most = bounds
        if call.unbounded or max_tokens is None:
            return Offer("", model, None, entry, call.unbounded, max_tokens)
        return Offer("", model, most, entry, "", max_tokens)
