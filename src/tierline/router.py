"""The Router: one call from admission to settlement, and what an app sees of it all."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from inspect import isawaitable
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from tierline.admission import Rules
from tierline.attempts import GONE, Books, Timing
from tierline.binding import Binding, context
from tierline.blocking import Portal
from tierline.bound import Bound
from tierline.budgets import Budget
from tierline.caching import PromptCaching
from tierline.classify import VerdictCache, default_classifier
from tierline.classify.base import check_classifier, check_confidence
from tierline.clients import Slot
from tierline.consult import Consultation, Labeller, ask
from tierline.conversation import Conversations
from tierline.counting import PromptCounts
from tierline.errors import (
    ConfigurationError,
    LedgerUnavailableError,
)
from tierline.gate import Gate
from tierline.ladder import DEFAULT_LADDER, Ladder
from tierline.ledger import MemoryLedger
from tierline.legality import actions_of
from tierline.metrics import Metrics
from tierline.models import notice_of
from tierline.policies import Policy
from tierline.prices import PriceBook
from tierline.recent import Recent
from tierline.report import Readiness, Tally
from tierline.routes import policies_in
from tierline.telemetry import tracer_of
from tierline.values import MODES, View

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import typing_extensions
    from anthropic import Anthropic, AsyncAnthropic
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from tierline.anthropic import Client
    from tierline.classify import Classifier
    from tierline.ledger import Balance, Ledger
    from tierline.legality import Action
    from tierline.report import Report
    from tierline.values import Classification, Mode

log: Final = logging.getLogger("tierline")

MODE_VARIABLE: Final = "TIERLINE_MODE"
_MOST_KEPT: Final = 10_000

if TYPE_CHECKING:
    # `Router` by itself is one of AsyncAnthropic; a default needs a newer TypeVar than typing's.
    ClientT_co = typing_extensions.TypeVar("ClientT_co", bound=Client, covariant=True, default=AsyncAnthropic)
else:
    ClientT_co = TypeVar("ClientT_co", covariant=True)


class Router(Generic[ClientT_co]):
    """Sends each Claude call of an app to the cheapest tier that is good enough, within its policy and its budgets.

    - `client`: the app's own client, any asynchronous one of the SDK's; without one, one is made from the
      environment on first use, and closed at the end. To a type checker `Router(client)` is a Router of its class
    - `sync_client`: the same for code that is no `async def`, any synchronous one
    - `ladder`: the tiers, cheapest first
    - `budgets`: what may be spent; every call is charged to all of them
    - `policy`: what holds for every call
    - `classifier`: who says how hard a request is; by default rules, signals, then Claude's verdict
    - `min_confidence`: an opinion less sure than this moves one tier up (0 to 1)
    - `cache_size`, `cache_ttl`: entries and seconds of the verdict cache
    - `ledger`: where balances are kept; by default in the memory of this process
    - `prices`: by default the list prices of `genai-prices`
    - `secret`: keys the hashes of the verdict cache; random if it is not given
    - `tracer_provider`, `meter_provider`: by default OpenTelemetry's global ones
    - `cache_prompt`: mark tools and system for the API's prompt cache where the app does not and they come back: see
      `tierline.caching`
    - `legality`: what is done about a request that a model rejects: changes to `tierline.legality.ACTIONS`, such as
      `{"sampling": "raise"}`
    - `mode`: `"enforce"`; `"observe"` decides, traces and reports, and changes no model and refuses no call; `"off"`
      does nothing but name a model for `auto`. The environment variable `TIERLINE_MODE` stands over it, and
      `router.mode` may be set at run time
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
        meter_provider: MeterProvider | None = None,
        cache_prompt: bool = False,
        legality: Mapping[str, Action] | None = None,
        mode: Mode = "enforce",
        sync_client: Any = None,
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
        self.rules = Rules(ladder, self.budgets, policy)
        self.classifier = check_classifier("Router(classifier=…)", classifier) if classifier else default_classifier()
        self.min_confidence = min_confidence
        self.timing = timing or Timing()
        self.prices = prices or PriceBook()
        self.ledger: Ledger = ledger if ledger is not None else MemoryLedger(clock=self.timing.now)
        self.metrics = Metrics(meter_provider)
        secret = secret or secrets.token_bytes(32)
        self.conversations = Conversations(secret, self.timing.perf)
        self.counts = PromptCounts(secret)
        self.caching = PromptCaching(secret, self.timing.perf) if cache_prompt else None
        self.cache = VerdictCache(
            maxsize=cache_size,
            ttl=cache_ttl,
            clock=self.timing.perf,
            secret=secret,
            on_lookup=self.metrics.looked_up,
        )
        self._clients = (Slot(client, blocking=False), Slot(sync_client, blocking=True))
        self.books = Books(self.ledger, self.prices, self.timing)
        self.portal = Portal(self.cache.drain, self.books.close)
        """Where the calls of synchronous clients run that come from no worker thread of the app's loop."""
        self.tally = Tally([tier.name for tier in ladder])
        self.tracer = tracer_of(tracer_provider)
        self.loops: Recent[bytes, tuple[Classification | None]] = Recent(_MOST_KEPT)
        """What the first step of a tool loop was taken for: its later steps are not classified again."""
        self.threads: Recent[str, int] = Recent(_MOST_KEPT)
        """The tier of conversations that the server holds, by the id of the last answer: their model stays."""
        self.refusing: Recent[tuple[str, str, int], bool] = Recent(_MOST_KEPT)
        """Which budgets refuse in which window: the log tells of each once."""
        self.rejected: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        """Why the API rejects a client's key, until a call of it succeeds: it is asked for no verdicts meanwhile."""
        self.legality = actions_of(legality)
        self._mode = _mode("Router(mode=…)", mode)
        if override := os.environ.get(MODE_VARIABLE):
            self._mode = _mode(MODE_VARIABLE, override)
        self._ids = count(1)
        self._pid = 0
        self._prefix = ""
        self._lifespans = 0
        self._closing = False
        self.gate = Gate(self)
        """Where calls come in, from the seam."""

    # What an app uses

    @property
    def mode(self) -> Mode:
        """What Tierline does with a call that begins now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._mode = _mode("router.mode", mode)
        log.warning("mode is %s now", mode)

    @property
    def claude(self) -> ClientT_co:
        """The routed copy of the client, of the same class."""
        return cast("ClientT_co", self._clients[0].routed(self))

    @property
    def sync_claude(self) -> Anthropic:
        """The routed copy of the synchronous client, for `def` endpoints, scripts and threads of any kind."""
        return cast("Anthropic", self._clients[1].routed(self))

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Start up and shut down with the app: `FastAPI(lifespan=router.lifespan)`, or inside a lifespan of your own.

        At start-up the policies of the app's routes are checked, the client and the price table are made. At
        shutdown what is still open is settled, the report is logged, and a client that the Router made is closed.
        May be nested: the outermost one counts.
        """
        for where, rule in policies_in(app):
            rule.check(self.ladder, where)
            self.rules.check(rule)
        self._lifespans += 1
        self.gate.binds = True
        try:
            if self._lifespans == 1:
                self._warm_up()
            yield
        finally:
            self._lifespans -= 1
            if not self._lifespans:
                self._closing = True
                await self.aclose()
                if self.tally.calls:
                    log.info("what this process did:\n%s", self.report())

    def _warm_up(self) -> None:
        self._closing = False
        log.log(
            logging.INFO if self._mode == "enforce" else logging.WARNING,
            "mode %s; tiers: %s; budgets: %s",
            self._mode,
            ", ".join(f"{tier.name} ({tier.model})" for tier in self.ladder),
            ", ".join(budget.name for budget in self.budgets) or "none",
        )
        brought = [slot for slot in self._clients if slot.brought]
        if any(slot.keyless(self) for slot in brought or self._clients[:1]):
            log.warning("the Router's client has no API key: set ANTHROPIC_API_KEY, or give the Router a client")
        today = datetime.fromtimestamp(self.timing.now(), UTC).date()
        for tier in self.ladder:
            if notice := notice_of(tier.model, today):
                log.warning("tier %s: %s", tier.name, notice)
            if self.prices.rates(tier.model) is None:
                log.warning(
                    "tier %s: model %s has no price; hard budgets will refuse it. Give one: "
                    "PriceBook({%r: Rates(…)})", tier.name, tier.model, tier.model,
                )  # fmt: skip

    async def aclose(self, timeout: float = 5.0) -> None:
        """Settle what is still open, waiting at most `timeout` seconds, and close clients that the Router made.

        What belongs to the loop that runs this, and what synchronous clients do outside of any loop: at the end of a
        script, `asyncio.run(router.aclose())`.
        """
        await self.portal.aclose(timeout)
        for slot in self._clients:
            if (client := slot.take()) is not None and isawaitable(closing := client.close()):
                await closing

    def bind(self, *, tenant: str | None = None, route: str | None = None) -> Bound:
        """Bind work outside of requests, such as a job or a script, to a tenant and a route.

        `async with router.bind(…) as binding:`, or `with` where there is no loop. Inside of a request it is a job of
        its own, for whom and where it says; what holds around it holds in it too.
        """
        self.gate.binds = True
        return Bound(self, tenant, route)

    async def classify(self, text: str, labels: Sequence[str], instruction: str) -> Classification | None:
        """Label a text of the app's own on the cheapest tier, cached: one of `labels`, or None for no opinion.

        Charged like any call. `instruction` says what to tell apart; the text is fenced off as data.
        """
        labels = tuple(labels)
        if not labels or len(set(labels)) != len(labels):
            raise ConfigurationError(f"classify: labels must be given, each once; got {list(labels)!r:.200}")
        now = context()
        binding = now.binding_of(self) or self.gate.unbound(now)
        found = self.rules.admission(now, binding)
        consultation = Consultation(
            partial(ask, cast("Any", self.claude).messages.create),
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

    async def ready(self, timeout: float = 1.0) -> Readiness:
        """Whether calls can be served now, for a readiness probe. Asks the ledger, for at most `timeout` seconds.

        Claude is not asked: an API that is down must not take every instance of an app out of service.
        """
        problems = ["shutting down"] if self._closing else []
        if self._mode == "enforce":
            try:
                await asyncio.wait_for(self.ledger.ping(), timeout)
            except TimeoutError:
                problems.append(f"the ledger did not answer within {timeout:g} s")
            except LedgerUnavailableError as error:
                problems.append(f"the ledger cannot be asked: {error}")
        if any(slot.brought and slot.keyless(self) for slot in self._clients):
            problems.append("the Router's client has no API key")
        # A 403 may be about one model: out of service, no call would come that could succeed with another.
        # Nor does a key of somebody's own, on a copy of the client, speak for all.
        problems += dict.fromkeys(
            why
            for client, why in tuple(self.rejected.items())
            if " 401 " in why and any(slot.is_of(client) for slot in self._clients)
        )
        return Readiness(tuple(problems))

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
        binding.end()
        grace = self.ledger.lease if whole else GONE
        for attempt in tuple(binding.open):
            attempt.left_open(grace)
        await self.forget(binding)

    def deserted(self, binding: Binding) -> None:
        """The client of a request has gone in the midst of the answer: cut off what threads read for it.

        Those of this loop alone, such as a generator that a framework runs: a thread of the app's own may read on.
        """
        binding.desert(asyncio.get_running_loop())
        for attempt in tuple(binding.open):
            attempt.desert()

    async def forget(self, binding: Binding) -> None:
        """Drop the accounts of a request that is over, once nothing of it is in flight."""
        if binding.request_lines and not binding.open:
            await self.ledger.forget(tuple(binding.request_lines))

    def next_id(self) -> str:
        """An id for a decision, unique over processes: a forked one, too, has a prefix of its own."""
        if self._pid != os.getpid():
            self._pid, self._prefix = os.getpid(), secrets.token_hex(8)
        return f"{self._prefix}-{next(self._ids)}"


def _mode(where: str, mode: str) -> Mode:
    for known in MODES:
        if mode == known:
            return known
    raise ConfigurationError(f"{where} is {mode!r:.40}: write one of {', '.join(MODES)}")
