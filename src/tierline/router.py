"""The Router: one call from admission to settlement, and what an app sees of it all."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property, partial
from inspect import isawaitable
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from tierline import operating
from tierline.admission import Rules
from tierline.alerts import hand_alerts
from tierline.attempts import GONE, Books, Timing
from tierline.blocking import Portal
from tierline.bound import Bound
from tierline.budgets import Budget
from tierline.caching import PromptCaching
from tierline.choice import LEARN_AFTER
from tierline.classify import VerdictCache, default_classifier
from tierline.classify.base import check_classifier, check_confidence
from tierline.classify.labelled import BATCH, CONCURRENCY
from tierline.clients import Slot
from tierline.conversation import Conversations
from tierline.counting import PromptCounts
from tierline.decisionlog.log import open_log
from tierline.errors import ConfigurationError
from tierline.examining import Escalations
from tierline.gains import SECOND_WORTH, Gains
from tierline.gate import Gate
from tierline.gathering import WINDOW, Gathering
from tierline.grounds import MOST_EXPLORED
from tierline.health import Health, breakers_of
from tierline.ladder import DEFAULT_LADDER, Ladder
from tierline.learn.learning import HANDLE_TTL
from tierline.learn.opening import open_learning
from tierline.ledger.opening import connection_of, is_away, open_ledger, slices_of
from tierline.ledger.outage import GuardedLedger
from tierline.legality import actions_of
from tierline.metrics import Metrics
from tierline.numeric import is_number, is_whole
from tierline.policies import Policy
from tierline.prices import PriceBook
from tierline.recent import Recent
from tierline.report import Tally
from tierline.retries import check_deadline
from tierline.routes import policies_in
from tierline.shadow import shadowing_of
from tierline.siblings import alone, alone_at_once
from tierline.telemetry import tracer_of
from tierline.tracing import exporting
from tierline.traffic.opening import check_traffic, open_reading
from tierline.traffic.reading import MOST
from tierline.upgrades import MOST_UPGRADES, Upgrades
from tierline.values import MODES
from tierline.verdicts.opening import open_shared

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    import typing_extensions
    from anthropic import Anthropic, AsyncAnthropic
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from tierline.administration import Administration
    from tierline.alerts import Hook
    from tierline.anthropic import Client
    from tierline.batches import Queue
    from tierline.batches.lane import Batches
    from tierline.binding import Binding
    from tierline.classifications import Classifications
    from tierline.classify import Classifier, Labels, Progress
    from tierline.decisionlog import DecisionLog
    from tierline.errors import BudgetExceededError
    from tierline.explanation import Explanation
    from tierline.grounds import Grounds
    from tierline.history import History, Holds
    from tierline.learn.learning import Model
    from tierline.ledger import Balance, Ledger
    from tierline.ledger.outage import OnError
    from tierline.legality import Action
    from tierline.report import Readiness, Report
    from tierline.traffic.base import Traffic
    from tierline.traffic.meter import Meter
    from tierline.values import Classification, Mode, Refusal, Shadow
    from tierline.verdicts import StoredVerdicts

log: Final = logging.getLogger("tierline")

MODE_VARIABLE: Final = "TIERLINE_MODE"
RETENTION: Final = 29 * 86_400.0
"""Seconds after its end for which a job of batches is kept: as long as the API keeps results."""
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
    - `classifier`: who says how hard a request is; by default local weights, rules, signals, then Claude's verdict
    - `min_confidence`: an opinion less sure than this moves one tier up (0 to 1)
    - `learn_after`: outcomes of a route from which on it chooses the tier itself, by `policy(quality=…)`, and nobody is
      asked how hard a request is: see `tierline.choice`
    - `explore`: the share of calls, at most 0.01, that go to a neighbour of the tier that was chosen, to find out how
      good it is: the next cheaper one, or the next dearer of the cheapest. Within floor, ceiling and budget, where the
      route is being learned; never for critical or labelled calls, pins and ids that are respected
    - `max_upgrades`: how much of its recent calls (0 to 1) an account may have sent above the usual tier of a route by
      what its texts look like, beyond its own usual share; 1 is no bound. See `tierline.upgrades`
    - `second_worth`: what a second that a call waits less is worth, such as `"$0.001"` (the default), for
      `policy(speculate="auto")`
    - `cache_size`, `cache_ttl`: entries and seconds of the verdict cache
    - `share_verdicts`: verdicts are kept in `store` as well, where that is SQLite or Redis: for all processes, and over
      a restart, for `cache_ttl` seconds. See `tierline.verdicts.shared`
    - `verdict_window`: seconds, at most 1, for which a question to Claude waits for others of the same tenant, to be
      asked in one request, up to 20; 0 asks each alone. See `tierline.gathering`
    - `store`: where balances are kept. `"memory://"` (the default) is this process alone; `"sqlite:///tierline.db"`
      the processes of one host (four slashes for an absolute path); `"redis://…"`, `"rediss://…"` or `"unix://…"` any
      number of hosts. `ledger`: the same, as an object of the app's own, which the app closes
    - `on_ledger_error`: what becomes of calls under a hard budget while that cannot be asked. `"closed"`: they fail
      with LedgerUnavailableError (503), and nothing is sent. `"open"`: each worker may spend `allowance` of each limit
      from its own memory, in each window and outage. All other calls are sent. See `tierline.ledger.outage`
    - `journal`: the path of a file, on a local disk, where that is kept which the ledger was not told; by default it is
      kept in memory, and for `"open"` in a file in the state directory of the user
    - `prices`: by default the list prices of `genai-prices`
    - `secret`: keys the hashes of the verdict cache and signs handles; without one they are made at random, and that of
      the handles and of stored verdicts is kept in the store
    - `outcomes`: an `OutcomeModel` over the tiers of the ladder, perhaps one that was fitted; by default a new one
    - `handle_ttl`: seconds for which a `decision.handle` is good
    - `tracer_provider`, `meter_provider`: by default OpenTelemetry's global ones
    - `cache_prompt`: mark tools and system for the API's prompt cache where the app does not and they come back: see
      `tierline.caching`
    - `legality`: what is done about a request that a model rejects: changes to `tierline.legality.ACTIONS`, such as
      `{"sampling": "raise"}`
    - `mode`: `"enforce"`; `"observe"` decides, traces and reports, and changes no model and refuses no call; `"off"`
      does nothing but name a model for `auto`. The environment variable `TIERLINE_MODE` stands over it, and
      `router.mode` may be set at run time
    - `on_budget`: a function or coroutine function of an `Alert`, called once for each share of `Budget(alert_at=…)` in
      each window, over all processes that share the ledger. It runs in the background; what it raises is logged
    - `deadline`: seconds for a whole call, with its waits, retries and fallbacks; by default what the SDK's own timeout
      allows all of its attempts together. An answer that has begun to stream is read for as long as it takes
    - `decision_log`: where each decision is written down: a path, or a `DecisionLog`. By default nowhere
    - `shadow`: for this share of calls (0.01 is one in a hundred; 0 is none) the tier above answers too, in the
      background, and `shadow_judge`, the name of a tier (the top one), compares both answers blind. `shadow_budget`,
      such as `"$1/day"`, is what that may cost; the Router's budgets without `per` pay for it too. `shadow_text` keeps
      the texts of what was worse, in memory. Without `shadow` they are refused. See `shadows` and `tierline.shadow`
    - `traffic`: what calls did is added up by hour, with the latest decisions, in the store: for `traffic`, `decisions`
      and the command `tierline watch`. See `tierline.traffic`
    - `queue`: how `batches.defer` fills batches, such as `Queue(max_wait="15m", off_peak="22:00-06:00")`
    - `batch_retention`: seconds for which a job of `batches` is kept after its end, with its answers; `math.inf` keeps
      it until it is deleted
    - `timing`: the clocks, and chance

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
        learn_after: int = LEARN_AFTER,
        explore: float = 0.0,
        max_upgrades: float = MOST_UPGRADES,
        second_worth: str = SECOND_WORTH,
        cache_size: int = 10_000,
        cache_ttl: float = 3600.0,
        share_verdicts: bool = True,
        verdict_window: float = WINDOW,
        store: str | None = None,
        ledger: Ledger | None = None,
        on_ledger_error: OnError = "closed",
        allowance: float = 0.05,
        journal: str | None = None,
        prices: PriceBook | None = None,
        secret: bytes | None = None,
        outcomes: Model | None = None,
        handle_ttl: float = HANDLE_TTL,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        cache_prompt: bool = False,
        legality: Mapping[str, Action] | None = None,
        mode: Mode = "enforce",
        sync_client: Any = None,
        on_budget: Hook | None = None,
        deadline: float | None = None,
        decision_log: DecisionLog | str | os.PathLike[str] | None = None,
        shadow: float | None = None,
        shadow_budget: str | Budget | None = None,
        shadow_judge: str | None = None,
        shadow_text: bool = False,
        traffic: bool = False,
        queue: Queue | None = None,
        batch_retention: float = RETENTION,
        timing: Timing | None = None,
    ) -> None:
        check_confidence("min_confidence", min_confidence)
        _check_secret(secret)
        self.budgets = (budgets,) if isinstance(budgets, Budget) else tuple(budgets)
        _check_rules(ladder, self.budgets, policy)
        self.ladder, self.policy, self.min_confidence = ladder, policy, min_confidence
        self.rules = Rules(ladder, self.budgets, policy)
        self.classifier = check_classifier("Router(classifier=…)", classifier) if classifier else default_classifier()
        self.learn_after, self.explore = _learning(learn_after, explore)
        self.upgrades, self.gains = Upgrades(len(ladder), max_upgrades), Gains(second_worth)
        self.timing, self.prices = timing or Timing(), prices or PriceBook()
        self.metrics = Metrics(meter_provider, self.rules.known)
        self.ledger: Ledger = open_ledger(
            store,
            ledger,
            on_error=on_ledger_error,
            allowance=allowance,
            journal=journal,
            clock=self.timing.now,
            on_change=self.metrics.ledger,
        )
        self.health = Health(self.timing, self.metrics.breaker_changed, self.metrics.withheld, check_deadline(deadline))
        self.learning = open_learning(
            outcomes,
            tuple(tier.name for tier in ladder),
            connection_of(self.ledger),
            secret=secret,
            handle_ttl=handle_ttl,
            now=self.timing.now,
            away=partial(is_away, self.ledger),
        )
        """What the routes have taught."""
        self._secret = secret or b""
        secret = secret or secrets.token_bytes(32)
        self.conversations, self.counts = Conversations(secret, self.timing.perf), PromptCounts(secret)
        self.caching = PromptCaching(secret, self.timing.perf) if cache_prompt else None
        self.shared = open_shared(
            connection_of(self.ledger),
            self.learning,
            wanted=share_verdicts,
            model=ladder[0].model,
            ttl=cache_ttl,
            now=self.timing.now,
            away=partial(is_away, self.ledger),
            on_look=self.metrics.looked_in_store,
        )
        """The second level of the verdict cache, where there is one."""
        self.cache = VerdictCache(
            maxsize=cache_size,
            ttl=cache_ttl,
            clock=self.timing.perf,
            secret=secret,
            on_lookup=self.metrics.looked_up,
            second=self.shared,
        )
        self.gathering, self.escalations = Gathering(verdict_window), Escalations()
        self._clients = (Slot(client, blocking=False), Slot(sync_client, blocking=True))
        self.books = Books(self.ledger, self.prices, self.timing, slices_of(self.ledger))
        self.shadowing = shadowing_of(self, shadow, shadow_budget, shadow_judge, self.learning, keep_text=shadow_text)
        self.portal = Portal(self.cache.drain, (self.shadowing or self.books).close, self._let_go)
        """Where the calls of synchronous clients run that come from no worker thread of the app's loop."""
        hand_alerts(self.ledger, on_budget, self.books.background, self.portal)
        self.tally = Tally([tier.name for tier in ladder])
        self._reading = open_reading(connection_of(self.ledger), [tier.name for tier in ladder], self.timing.now)
        self.tracer, self.decision_log = tracer_of(tracer_provider), open_log(decision_log)
        self.loops: Recent[bytes, Grounds] = Recent(_MOST_KEPT)
        """On what grounds the first step of a tool loop was decided: its later steps are not judged again."""
        self.threads: Recent[str, int] = Recent(_MOST_KEPT)
        """The tier of conversations that the server holds, by the id of the last answer: their model stays."""
        self.refusing: Recent[tuple[str, str, int], bool] = Recent(_MOST_KEPT)
        """Which budgets refuse in which window: the log tells of each once."""
        self.rejected: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        """Why the API rejects a client's key, until a call of it succeeds: it is asked for no verdicts meanwhile."""
        self.legality = actions_of(legality)
        self._mode, self._queue = _mode_at_start(mode), _checked_queue(queue)
        self._ids, self._pid, self._prefix = count(1), 0, ""
        self._lifespans, self._closing, self._batch_retention = 0, False, _retention(batch_retention)
        self._alone, self._is_alone = AsyncExitStack(), False
        self.gate = Gate(self)
        """Where calls come in, from the seam."""
        if check_traffic(traffic):
            self.record_traffic()

    # What an app uses

    @property
    def mode(self) -> Mode:
        """What Tierline does with a call that begins now.

        To set `"enforce"` raises ConfigurationError where that would have been refused at start-up.
        """
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        mode = _mode("router.mode", mode)
        if mode == "enforce" and self._lifespans and self.ledger.instant and not self._is_alone:
            self._alone.enter_context(alone_at_once(self.rules.hard))
            self._is_alone = True
        self._mode = mode
        log.warning("mode is %s now", mode)

    @property
    def claude(self) -> ClientT_co:
        """The routed copy of the client, of the same class."""
        return cast("ClientT_co", self._clients[0].routed(self))

    @property
    def sync_claude(self) -> Anthropic:
        """The routed copy of the synchronous client, for `def` endpoints, scripts and threads of any kind."""
        return cast("Anthropic", self._clients[1].routed(self))

    @cached_property
    def _administration(self) -> Administration:
        """What operators ask, and calls do not."""
        from tierline.administration import Administration  # noqa: PLC0415  (5 ms of every import)

        return Administration(self.ledger, self.rules, self.timing.now)

    @cached_property
    def _classifications(self) -> Classifications:
        """The app's own, which most apps have none of."""
        from tierline.classifications import Classifications  # noqa: PLC0415  (5 ms of every import)

        return Classifications(self, self._secret)

    @cached_property
    def batches(self) -> Batches:
        """Requests that can wait up to a day, for half the price: see `tierline.batches`."""
        from tierline.batches.lane import Batches  # noqa: PLC0415  (SQL, for who has jobs)

        return Batches(self, lambda: self._clients[0].plain(self), queue=self._queue, retention=self._batch_retention)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Start up and shut down with the app: `FastAPI(lifespan=router.lifespan)`, or inside a lifespan of your own.

        At start-up the policies of the app's routes are checked, the client and the price table are made, the weights
        of classifiers are read, and a second worker with a hard budget in memory is refused. At shutdown what is still
        open is settled, the report is logged, and a client and a ledger that the Router made are closed.
        May be nested: the outermost one counts.
        """
        for where, rule in policies_in(app):
            rule.check(self.ladder, where)
            self.rules.check(rule)
        self._lifespans += 1
        self.gate.binds = True
        try:
            if self._lifespans == 1:
                await self._warm_up()
            yield
        finally:
            self._lifespans -= 1
            if not self._lifespans:
                self._closing, self._is_alone = True, False
                async with self._alone:
                    await self.aclose()
                    if self.tally.calls:
                        log.info("what this process did:\n%s", self.report())

    async def _warm_up(self) -> None:
        self._closing = False
        await self._alone.enter_async_context(exporting())
        if self.ledger.instant and self._mode == "enforce":
            await self._alone.enter_async_context(alone(self.rules.hard))
            self._is_alone = True
        operating.announce(self, self._clients)
        self.metrics.ledger(is_away(self.ledger))
        if isinstance(self.ledger, GuardedLedger) and self._mode != "off":
            await self.ledger.start()
        if self._mode != "off":
            await operating.prepare(self)
            await self.learning.start()
            if connection_of(self.ledger) is not None:
                self.books.background.start(self.batches.start())  # an app does not wait for what others have left
        if self.meter is not None:
            self.meter.begin_beating()

    async def aclose(self, timeout: float = 5.0) -> None:
        """Settle what is still open, waiting at most `timeout` seconds; close clients and a ledger that it made.

        What belongs to the loop that runs this, and what synchronous clients do outside of any loop: at the end of a
        script, `asyncio.run(router.aclose())`.
        """
        await self.portal.aclose(timeout)
        if self.decision_log is not None:
            await self.decision_log.drain()  # what was cut off is in it by now
        for slot in self._clients:
            if (client := slot.take()) is not None and isawaitable(closing := client.close()):
                await closing

    async def _let_go(self, timeout: float) -> None:
        """Close what of the ledger belongs to this loop, if the Router opened it or keeps watch over it."""
        if "batches" in vars(self):
            await self.batches.close()
        stores = (self.learning, self.shared, self.meter)
        await asyncio.gather(*(each.close(timeout) for each in stores if each is not None))
        if isinstance(self.ledger, GuardedLedger):
            await self.ledger.aclose()

    def bind(self, *, tenant: str | None = None, route: str | None = None, run: str | None = None) -> Bound:
        """Bind work outside of requests, such as a job or a script, to a tenant, a route and an agent run.

        `async with router.bind(…) as binding:`, or `with` where there is no loop. Inside of a request it is a job of
        its own, for whom and where it says; what holds around it holds in it too. `run` is a name of the app's own, for
        `Budget("$0.50", per="run")`: all that is bound to it counts together, wherever and however often that is done.
        """
        self.gate.binds = True
        return Bound(self, tenant, route, run)

    async def classify(self, text: str, labels: Sequence[str], instruction: str) -> Classification | None:
        """Label a text of the app's own on the cheapest tier, cached: one of `labels`, or None for no opinion.

        Charged like any call. `instruction` says what to tell apart; the text is fenced off as data.
        """
        return await self._classifications.one(text, labels, instruction)

    def sync_classify(self, text: str, labels: Sequence[str], instruction: str) -> Classification | None:
        """The same for code that is no `async def`, with the synchronous client."""
        return self._classifications.blocking(text, labels, instruction)

    async def classify_many(
        self,
        items: Iterable[str],
        labels: Sequence[str],
        instruction: str,
        batch_size: int = BATCH,
        concurrency: int = CONCURRENCY,
        *,
        progress: Callable[[Progress], object] | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> Labels:
        """Label many texts of the app's own, `batch_size` in one request and `concurrency` requests at a time.

        The result has one `Labelled` for each text, in order: one of `labels`, or None and why. Nothing is filled in. A
        batch whose answer is broken is asked again in smaller ones; what the API fails is tried again after growing
        waits. Texts in the cache are not asked for, nor is one twice. Charged like any call; where a hard budget has no
        room, even for one text, or the API goes on failing, the run stops, and the result says so in `stopped`.

        `progress` is called with a `Progress`, or awaited, after each batch. `resume` is the path of a file in which
        labels are written down as they come, with salted hashes of the texts: a second run with the same file, labels
        and instruction asks only for what is missing there. `batch_size` and `concurrency` are from 1 to 100.
        ConfigurationError for arguments that cannot work.
        """
        return await self._classifications.many(items, labels, instruction, batch_size, concurrency, progress, resume)

    async def grade(self, handle: str, good: bool | float, by: str | None = None) -> bool:
        """A grade of an answer by whoever saw it, after the response: the `decision.handle` that came with it.

        True where it counted. False for a handle that was made up or changed, that is of another Router or too old, or
        that has been used before, in any process: a client may send anything here. `by` says who grades, such as a
        user, where the app knows it; by default the tenant whose call it was. One account weighs on no route more than
        all others, and up to ten grades: what is more is False, too.

        ConfigurationError for what is no grade, LedgerUnavailableError where the store is away.
        """
        return await self.learning.grade(handle, good, by)

    async def ready(self, timeout: float = 1.0) -> Readiness:
        """Whether calls can be served now, for a readiness probe. Asks the ledger, for at most `timeout` seconds.

        A ledger that is away is no problem with `on_ledger_error="open"`. Claude is not asked: an API that is down must
        not take every instance of an app out of service.
        """
        return await operating.readiness(self, self._clients, timeout, closing=self._closing)

    def report(self) -> Report:
        """What this process did so far."""
        stats = self.cache.stats()
        return self.tally.report(stats.hits + stats.joined + stats.stored, stats.misses, stats.stored)

    def shadows(self) -> tuple[Shadow, ...]:
        """The latest 1,000 answers of this process that were compared with the tier above, newest last.

        `[shadow for shadow in router.shadows() if shadow.lost]` are the calls that should have gone higher.
        """
        return self.shadowing.kept() if self.shadowing is not None else ()

    # What operators ask, over all processes that share the ledger: from any thread and loop, and without a client

    async def balances(self, account: str | None = None) -> list[Balance]:
        """Every budget and account, now; or those with one name. There are none with what cannot be a name."""
        return await self._administration.balances(account)

    async def holds(self) -> Holds:
        """What is in flight, with its age and what its lease has left. `str(…)` is a table."""
        return await self._administration.holds()

    async def history(
        self, since: datetime | timedelta | float, until: datetime | timedelta | float | None = None
    ) -> History:
        """Spend by hour, tenant, route and tier. `str(history)` is a table, `history.by("tier")` has sums.

        `since` and `until` (now) are datetimes with a time zone, timedeltas (so long ago), or seconds since the epoch.
        Hours are whole: those that have a part in between. ConfigurationError for what is no moment.
        """
        return await self._administration.history(since, until)

    @property
    def meter(self) -> Meter | None:
        """What adds up traffic, where that is recorded."""
        return self._reading.meter

    def record_traffic(self) -> None:
        """Add up what calls do from now on, as `Router(traffic=True)` does from the start.

        While the app runs, on its loop.
        """
        if self._reading.meter is None:
            breakers = partial(breakers_of, self.health, self.timing)
            self.books.meter = self._reading.record(partial(is_away, self.ledger), breakers)
            if self._lifespans:
                self.books.meter.begin_beating()

    async def traffic(
        self,
        since: datetime | timedelta | float,
        until: datetime | timedelta | float | None = None,
        most: int = MOST,
    ) -> Traffic:
        """What calls did, of all processes that record it. `str(traffic)` is a table. Moments are as in `history`.

        `most` names of each kind are told (0 to 1,000), the dearest, and the rest together; with 0 none is read, and
        hours are whole however long it is. What this process has seen is in it, others write about once a second. For
        money the ledger is the truth: see `history`. LedgerUnavailableError where the store is away.
        """
        return await self._reading.traffic(*self._administration.moments(since, until), most)

    async def decisions(
        self, most: int = MOST, *, before: float | tuple[float, str] | None = None
    ) -> tuple[dict[str, Any], ...]:
        """The latest decisions of all processes that record traffic, the newest first, as the decision log has them.

        At most `most` of the latest 500, settled before `before`: a moment (seconds since the epoch), or the `at` and
        the `id` of a decision, where the last page has ended. Each has the id of its `worker`, too, and no text.
        """
        return await self._reading.decisions(most, before)

    async def decision(self, id: str) -> dict[str, Any] | None:  # noqa: A002  (what it is called)
        """One of them; None where it is not among them."""
        return await self._reading.decision(id)

    async def verdicts(self) -> StoredVerdicts | None:
        """What the store has of verdicts, and how often one was found there; None where they are not shared.

        `router.cache.stats()` and `report()` tell of this process. LedgerUnavailableError where the store is away.
        """
        return None if self.shared is None else await self.shared.stats()

    async def forget_verdicts(self) -> None:
        """Forget every verdict, here and in the store, where what they were good for is no more so.

        Other processes keep those that they have in memory until they are too old (`cache_ttl`). LedgerUnavailableError
        where the store is away.
        """
        self.cache.clear()
        if self.shared is not None:
            await self.shared.clear()

    async def limits(self) -> dict[tuple[str, str | None], int]:
        """What `set_limit` has set, in nano-USD, by budget and account; None is all accounts."""
        return await self.ledger.limits()

    async def set_limit(self, budget: str, account: str | None = None, *, limit: str | None) -> None:
        """Let `limit`, such as `"$10"`, hold for an account of a budget, from the next call on; its window stays.

        Without an account, for all that have none of their own. `limit=None` takes that back. Calls in flight stay,
        also where they exceed it. ConfigurationError for a budget that is not known, where that can be told.
        """
        await self._administration.set_limit(budget, account, limit)

    async def explain(self, refusal: Refusal | BudgetExceededError) -> Explanation:
        """Every number behind a refusal, as it stood then and stands now. `str(…)` is for a person."""
        return await self._administration.explain(refusal)

    async def erase(self, account: str) -> None:
        """Drop what the store keeps under the name of an account or a tenant: balances, spend, grades, verdicts.

        Its traffic, its limits, a tenant's runs, and its requests in jobs of batches, too: what of those has not been
        sent is canceled. This process lets go of all verdicts that it has in
        memory. Calls in flight go on, and are charged to their other accounts alone. Reports of processes keep their
        names until they end. Grades and verdicts are found by a Router with the same `secret`, if the app gives one.
        """
        await self._administration.erase(account)
        await self.learning.erase(account)
        self.cache.clear()  # what is whose, only the keys know
        if self.shared is not None:
            await self.shared.erase(account)
        await self._reading.erase(account)
        await self.batches.erase(account)

    async def confirm(self) -> None:
        """Let calls go on with the balances as they are, where the store found that it had lost them: your word.

        What the store was not told while it was away is told then.
        """
        await self.ledger.confirm()

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
        """Drop the accounts of a request that is over, once nothing of it is in flight. Who waits may be cancelled."""
        if binding.request_lines and not binding.open:
            await self.books.finish(self.ledger.forget(tuple(binding.request_lines)))

    def next_id(self) -> str:
        """An id for a decision, unique over processes: a forked one, too, has a prefix of its own."""
        if self._pid != os.getpid():
            self._pid, self._prefix = os.getpid(), secrets.token_hex(8)
        return f"{self._prefix}-{next(self._ids)}"


def _check_rules(ladder: object, budgets: Sequence[object], policy: object) -> None:
    if not isinstance(ladder, Ladder):
        raise ConfigurationError(f"ladder must be a Ladder, such as Ladder.of(haiku=…), got {type(ladder).__name__}")
    if wrong := [b for b in budgets if not isinstance(b, Budget)]:
        raise ConfigurationError(f'budgets are written as [Budget("$5/day")], got {wrong[0]!r:.80}')
    if policy is not None:
        if not isinstance(policy, Policy):
            raise ConfigurationError(f"Router(policy=…) takes a policy(…), got {type(policy).__name__}")
        policy.check(ladder, "Router(policy=…)")


def _checked_queue(queue: object) -> Queue | None:
    if queue is None:
        return None
    from tierline.batches.queue.settings import check_queue  # noqa: PLC0415  (for who defers)

    return check_queue(queue)


def _check_secret(secret: object) -> None:
    if secret is not None and not (isinstance(secret, bytes) and secret):
        # What it is must not be told. An empty one would sign handles that anybody can make.
        raise ConfigurationError("Router(secret=…) takes bytes, and not none of them: write os.environ[…].encode()")


def _retention(seconds: object) -> float:
    if not is_number(seconds, 0, inf) or not seconds:
        raise ConfigurationError(
            f"Router(batch_retention={seconds!r:.60}): write a number of seconds above 0, or math.inf for no end"
        )
    return float(seconds)


def _learning(learn_after: object, explore: object) -> tuple[int, float]:
    if not is_whole(learn_after, 1):
        raise ConfigurationError(f"Router(learn_after={learn_after!r:.60}): write a number of outcomes above 0")
    if not is_number(explore, 0, MOST_EXPLORED):
        raise ConfigurationError(
            f"Router(explore={explore!r:.60}): write a share of calls from 0 to {MOST_EXPLORED}: what explores may be "
            f"answered by a tier that is not good enough"
        )
    return learn_after, explore


def _mode_at_start(mode: str) -> Mode:
    said = _mode("Router(mode=…)", mode)
    override = os.environ.get(MODE_VARIABLE)
    return _mode(MODE_VARIABLE, override) if override else said


def _mode(where: str, mode: str) -> Mode:
    for known in MODES:
        if mode == known:
            return known
    raise ConfigurationError(f"{where} is {mode!r:.40}: write one of {', '.join(MODES)}")
