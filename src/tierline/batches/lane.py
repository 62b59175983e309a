"""`router.batches`: what an app does with jobs of batches."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterable, Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args
from weakref import WeakKeyDictionary

from tierline.batches.api import BatchAPI
from tierline.batches.concurrent import Concurrent, Work
from tierline.batches.keeping import SWEPT, Keeper
from tierline.batches.opening import open_jobs, open_queue
from tierline.batches.pacing import Pacer
from tierline.batches.previewing import Looking
from tierline.batches.queue.deferring import Deferring
from tierline.batches.queue.settings import Queue, check_queue
from tierline.batches.submitting import Submission, nobody, settings_of
from tierline.batches.tracing import CallsTrace, here
from tierline.batches.turns import Turns
from tierline.batches.values import BatchResult, BatchStatus, JobReport, JobShare, Lane, WhenFull, checked_job
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.ledger.opening import connection_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import timedelta

    from tierline.batches.jobs import Begun, Counts, ResultRow, Tally
    from tierline.batches.previewing import Preview
    from tierline.batches.queue.delivery import Target
    from tierline.batches.queue.values import Deferred
    from tierline.batches.submitting import Told
    from tierline.batches.values import BatchRequest
    from tierline.router import Router

T = TypeVar("T")

log: Final = logging.getLogger("tierline")

UNSURE: Final = 300.0
"""Seconds between two looks for a batch whose creation was not answered; where both find none, it is created again.

The API may still be at work on it: to wait five minutes of a day costs nothing, to pay for it twice does."""
_PAGE: Final = 200


class Batches:
    """Jobs of requests that can wait up to a day, for half the price.

    A job is kept where the Router's balances are: in SQLite or Redis it outlives the process, and any process with the
    same store goes on with it; in memory it ends with this one. Whatever is asked here starts a task that sends, polls
    and collects for all jobs of the store, until nothing is left to do; `router.lifespan` starts it too.
    """

    def __init__(
        self,
        router: Router[Any],
        client: Callable[[], Any],
        *,
        queue: Queue | None = None,
        retention: float = inf,
        unsure: float = UNSURE,
    ) -> None:
        self._router, self._retention = router, retention
        self._api = BatchAPI(client)
        self._unsure = unsure
        self._lease = router.ledger.lease
        connection, now = connection_of(router.ledger), router.timing.now
        self._store = open_jobs(connection, clock=now, lease=self._lease)
        deferred = open_queue(connection, self._store, clock=now, lease=self._lease)
        self._deferring = Deferring(router, self, self._store, deferred, check_queue(queue or Queue()))
        self._keepers: WeakKeyDictionary[asyncio.AbstractEventLoop, Keeper] = WeakKeyDictionary()
        self._paced: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Turns[Work], Pacer]] = WeakKeyDictionary()
        """Whose turn it is in the concurrent lane, and how fast it goes: for all jobs of a loop."""
        self._running: dict[str, Concurrent] = {}

    async def submit(
        self,
        requests: Iterable[object] | AsyncIterable[object],
        *,
        job: str | None = None,
        when_full: WhenFull = "refuse",
        lane: Lane = "batch",
        source: str | None = None,
        told: Told = nobody,
    ) -> str:
        """Take in requests (`BatchRequest`), also millions of them, and send them. The id of the job.

        Each is routed by its own policy and held for at batch prices. What has no room in a hard budget is `refused`;
        with `when_full="defer"` it waits, where that budget renews. What is no request is `invalid`. Both are said by
        `results`, and the others go on.

        `job` names the job. To submit to a name again, with the same requests in the same order, goes on where an
        earlier run was cut off: what was taken then is not taken twice. By default it is made up. `source` says what
        the requests are made of, such as a digest of a file: a job that was begun with another takes none of these.

        `told` is called for each that is refused or invalid when it is taken in: its place, its custom id, and why.

        `lane="concurrent"` is for what cannot wait: requests are sent as calls, at the list price, several at a time;
        see `tierline.batches.concurrent`. Returns when all are answered: `results` may be read meanwhile, by another
        task. Cut off, it sends nothing more; what is on its way then is asked for once more when it is submitted again.

        Returns when all have been taken and the API was asked to take the batches, once: what it does not take then is
        tried again, and said by `status`.

        ConfigurationError for a name that cannot be, for no requests, for a `source` that is another than the job's,
        and where somebody else submits to the job;
        LedgerUnavailableError where the store is away. What was taken by then is sent.
        """
        many = isinstance(requests, (Iterable, AsyncIterable)) and not isinstance(requests, (str, bytes, Mapping))
        if not many:
            raise ConfigurationError("submit: requests are many BatchRequest(…), in a list or from a generator")
        for word, value, known in (("when_full", when_full, get_args(WhenFull)), ("lane", lane, get_args(Lane))):
            if value not in known:
                raise ConfigurationError(f"submit({word}={value!r:.40}): write one of {', '.join(known)}")
        name = checked_job(job) if job is not None else f"job-{secrets.token_hex(6)}"
        owner = secrets.token_hex(8)
        settings = settings_of(when_full, here(), source, lane)
        begun = await self._store.begin(name, secrets.token_hex(8), owner, settings)
        if begun.busy:
            raise ConfigurationError(
                f"job {name!r:.80} is being submitted by somebody else; one who was cut off is forgotten after "
                f"{self._lease:g} s"
            )
        begun_with = json.loads(begun.settings)
        if source is not None and (other := begun_with.get("source")) != source:
            await self._store.finish(name, owner, whole=False)
            made = "of something that was not named" if other is None else f"of {other!r:.80}"
            raise ConfigurationError(
                f"job {name!r:.80} was made {made}, and not of {source!r:.80}: give it another name"
            )
        if (before := begun_with["lane"]) != lane:
            await self._store.finish(name, owner, whole=False)
            raise ConfigurationError(f"job {name!r:.80} was begun in another lane: go on with submit(lane={before!r})")
        keeper = self._keeper()
        keeper.also.add(owner)
        keeper.wake()
        kept: WhenFull = begun_with["when_full"]
        submission: Submission | None = None
        whole = False
        try:
            if lane == "concurrent":
                number = await self._called(requests, name, begun, owner, kept, told)
            else:
                submission = Submission(self._router, self._store, name, begun.uid, owner, kept, keeper.wake)
                submission.told = told
                number = await submission.run(requests)
            whole = number > 0
        finally:
            keeper.also.discard(owner)
            await self._finished(submission, name, owner, whole=whole)
        if not number and not begun.whole:
            await self._store.erase(name)
            raise ConfigurationError("submit: there are no requests")
        await self._tried(name, keeper)
        return name

    async def preview(
        self,
        requests: Iterable[object] | AsyncIterable[object],
        *,
        lane: Lane = "batch",
        told: Told = nobody,
    ) -> Preview:
        """What a job of these requests would be: tiers, costs, room in budgets. Nothing is sent, and nothing held.

        Claude is not asked for verdicts, so where that would be done tiers may be others. `told` is called for what is
        no request, with its place, its id and why. LedgerUnavailableError where the store is away.
        """
        return await Looking(self._router, told, lane).look(requests)

    async def status(self, job: str, *, work: bool = True) -> BatchStatus:
        """How far a job is. ConfigurationError for one that is not known.

        With `work=False` nothing is started for it, and no key is needed: it is as somebody else left it.
        """
        found = await self._counts(job)
        if work:
            self._keeper().wake_if_idle()
        return _status(job, found)

    async def catch_up(self) -> None:
        """Send, poll and collect what is due now, of all jobs, once: for a process that does not stay."""
        await self._keeper().caught_up()

    async def report(self, job: str) -> JobReport:
        """What a job has come to so far, by account and tier. ConfigurationError for one that is not known."""
        await self._over(job)
        return _report(job, await self._store.tally(job))

    async def results(self, job: str, *, after: int = -1, work: bool = True) -> AsyncIterator[BatchResult]:
        """What became of each request, in the order in which they were submitted, as it comes.

        Those of places that come `after` one. Waits for what is not there yet, up to a day and its tries. May be read
        as often as is wanted, until the job is deleted. With `work=False` nothing is waited for: there are those up to
        the first that is not there. ConfigurationError for a job that is not known.
        """
        while True:
            over = await self._over(job)
            while rows := await self._store.results(job, after, _PAGE):
                after = rows[-1].place
                for row in rows:
                    yield _result(row)
            if over or not work:
                return
            await self._keeper().turned()

    async def wait(self, job: str) -> BatchStatus:
        """Wait until all of a job has come back. ConfigurationError for one that is not known."""
        keeper = self._keeper()
        while not await self._over(job):
            await keeper.turned()
        return _status(job, await self._counts(job))

    async def cancel(self, job: str, *, work: bool = True) -> BatchStatus:
        """Send nothing more of a job, and cancel what the API has. What is answered by then is paid for.

        With `work=False` it is noted alone, for whoever looks after the job next. ConfigurationError for a job that is
        not known.
        """
        await self._over(job)
        await self._store.cancel(job)
        if (running := self._running.get(job)) is not None:
            running.cancel()  # at once; in other processes it is noticed
        if work:
            self._keeper().wake()
        return await self.status(job, work=work)

    async def delete(self, job: str) -> None:
        """Forget a job that has ended, with its results. ConfigurationError for one that has not, or is not known."""
        await self._over(job)
        if not await self._store.erase(job):
            raise ConfigurationError(f"job {job!r:.80} has not ended: cancel it, and wait for it, before it is deleted")
        while await self._store.sweep(SWEPT):
            pass

    async def erase(self, tenant: str) -> None:
        """Drop what is kept of a tenant's requests: see `Router.erase`.

        Those that were not sent are `canceled`. Those that the API has are paid for, and their answers dropped. Of
        those that were deferred nothing is left.
        """
        await self._deferring.erase(tenant)
        for job in await self._store.jobs():
            after: int | None = -1
            while after is not None:
                after = await self._store.forget(job, tenant, after, SWEPT)
        # What waits for it alone is over now. A script that only erases looks after no jobs.
        if (keeper := self._keepers.get(asyncio.get_running_loop())) is not None:
            keeper.wake()

    async def jobs(self) -> list[str]:
        """The ids of all jobs of the store, oldest first."""
        return await self._store.jobs()

    async def defer(
        self,
        request: BatchRequest | Mapping[str, Any],
        *,
        within: str | timedelta = "24h",
        when_full: WhenFull = "refuse",
        to: str | None = None,
    ) -> str:
        """Take one request that may be answered later, `within` a time. Its handle, which nobody can guess.

        It goes out in a batch with others, by the Router's `Queue`; where that has not come back in time, as a usual
        call, at the full price. Money is held when either is sent: where a hard budget has no room, the answer is that
        it was `refused`, or, with `when_full="defer"`, it waits for the budget to renew, but not past its deadline.

        All that holds here holds then: the tenant, the route, policies, the accounts of budgets by a function of the
        scope, and the run. `deferred` tells of the answer; `to` names where it is delivered (see `deliver_to`).

        ConfigurationError for what is no request, and for what another process could not know: a classifier or a check
        of a policy, a function in a budget of a policy. LedgerUnavailableError where the store is away.
        """
        return await self._deferring.defer(request, within, when_full, to)

    async def deferred(self, handle: str, *, tenant: str | None = None) -> Deferred | None:
        """A request that was deferred, and its answer; None for one that is not known, or is of another tenant.

        Whose it may be is said by `tenant`, or by the request that runs here; outside of any, all are told of.
        """
        return await self._deferring.deferred(handle, tenant)

    async def forget(self, handle: str, *, tenant: str | None = None) -> bool:
        """Forget a deferred request, and its answer. False for one that is not known, or is of another tenant.

        One that waits is not sent. What was sent is paid for, and its answer is dropped.
        """
        return await self._deferring.forget(handle, tenant)

    def deliver_to(self, name: str, target: Target) -> None:
        """Let `defer(…, to=name)` deliver answers to an async function, which is given a `Deferred`, or to a `Webhook`.

        In every process that is to deliver them, before its lifespan begins: whichever collects an answer delivers it.
        At least once: what raises, or answers no 2xx, is tried again, ten times in three days. ConfigurationError for
        what it cannot be.
        """
        self._deferring.deliver_to(name, target)

    async def start(self) -> None:
        """Go on with what other processes have left."""
        try:
            await self._deferring.start()
            if await self._store.left() or (self._retention < inf and await self._store.retire(self._retention)):
                self._keeper().wake()
        except LedgerUnavailableError as error:
            log.warning("jobs of batches are not looked at, for their store is away: %s", error)

    async def close(self) -> None:
        """Leave what is under way on this loop to whoever comes after."""
        await self._deferring.close()
        keeper = self._keepers.pop(asyncio.get_running_loop(), None)
        if keeper is not None:
            await keeper.close()

    def _keeper(self) -> Keeper:
        loop = asyncio.get_running_loop()
        found = self._keepers.get(loop)
        if found is None:
            found = Keeper(
                self._router,
                self._store,
                self._api,
                lease=self._lease,
                unsure=self._unsure,
                retention=self._retention,
            )
            self._keepers[loop] = found
        return found

    async def _counts(self, job: str) -> Counts:
        return _there(job, await self._store.counts(checked_job(job)))

    async def _over(self, job: str) -> bool:
        return _there(job, await self._store.over(checked_job(job)))

    async def _called(
        self,
        requests: Iterable[object] | AsyncIterable[object],
        job: str,
        begun: Begun,
        owner: str,
        when_full: WhenFull,
        told: Told,
    ) -> int:
        """Send requests as calls, and say how many there were."""
        loop = asyncio.get_running_loop()
        if (paced := self._paced.get(loop)) is None:
            pacer = Pacer(self._router.timing)
            paced = self._paced[loop] = (Turns(pacer.window), pacer)
        trace, why = CallsTrace(self._router.tracer, job), ""
        with trace.active():
            run = Concurrent(self._router, self._store, *paced, job, begun, owner, when_full, self._keeper().told)
            run.told = told
            self._running[job] = run
            try:
                return await run.run(requests)
            except BaseException as error:
                why = type(error).__name__
                raise
            finally:
                del self._running[job]
                trace.end(run.outcomes, run.cost, why)

    async def _finished(self, submission: Submission | None, job: str, owner: str, *, whole: bool) -> None:
        """Whatever happened, what was taken is sent, and others may go on."""
        try:
            if submission is not None:
                await submission.seal()
            await self._store.finish(job, owner, whole=whole)
        except LedgerUnavailableError:
            log.warning("job %s is cut off, for its store is away; it goes on when that is back", job)

    async def _tried(self, job: str, keeper: Keeper) -> None:
        """Wait until each batch of a job has been sent, or was not taken once."""
        while any(row.state in ("filling", "sealed") and not row.fails for row in await self._store.sent(job)):
            await keeper.turned()


def _there(job: str, found: T | None) -> T:
    if found is None:
        raise ConfigurationError(
            f"there is no job {job!r:.80}: `router.batches.jobs()`, or `tierline batch jobs`, has those that are"
        )
    return found


def _status(job: str, found: Counts) -> BatchStatus:
    numbers = {outcome: number for outcome, (number, _) in found.outcomes.items()}
    state: Any = "submitting" if found.busy else "in_progress" if found.open else "ended"
    if not found.whole and not found.busy:
        state = "interrupted"
    return BatchStatus(
        id=job,
        state=state,
        submitted=sum(numbers.values()),
        processing=numbers.pop("", 0),
        deferred=found.waiting,
        cost=sum(cost for _, cost in found.outcomes.values()),
        problems=found.notes,
        **{name: numbers.get(name, 0) for name in _OUTCOMES},
    )


_OUTCOMES: Final = ("succeeded", "errored", "expired", "canceled", "refused", "invalid")


def _report(job: str, found: Sequence[Tally]) -> JobReport:
    shares: dict[tuple[str, str], JobShare] = {}
    for tenant, tier, outcome, number, cost, plain, top, guesses in found:
        each = JobShare(tenant or None, tier, {outcome or "processing": number}, cost, plain, top, guesses)
        shares[tenant, tier] = shares[tenant, tier].plus(each) if (tenant, tier) in shares else each
    return JobReport(job, tuple(shares.values()))


def _result(row: ResultRow) -> BatchResult:
    good = row.outcome == "succeeded"
    outcome: Any = row.outcome
    return BatchResult(
        row.name,
        row.place,
        outcome,
        None if good else row.result,
        row.tier,
        row.model,
        row.cost,
        row.estimated,
        row.tries,
        row.result if good else None,
    )
