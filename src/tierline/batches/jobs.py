"""Where jobs are kept: the contract of every store of them, and its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

State = Literal["filling", "sealed", "sending", "sent", "waiting", "done"]
"""Of a batch: requests come in; it is full; the API is being given it; has it; requests of it wait for money or another
try; all of it has come back."""
WAITING, SENT, FINAL = 0, 1, 2
"""Of a request: it waits to be put into a batch; is in one; has its result."""


ERASED: Final = "its tenant was erased"
"""What is kept of a request after that, with the outcome `canceled`."""


def waits_in(batch: str) -> str:
    """The batch that requests wait in which were to be in another, and had no room."""
    return f"{batch}w"


class Item(NamedTuple):
    """A request, as it is taken. `payload` is its line of a batch as JSON, None for what is not sent.

    `tenant` is who pays, empty for nobody. One that is FINAL brings with it what it came to: see `Ended`. `said` is
    what the decision log is to say of it, and goes with the payload.
    """

    place: int
    name: str | None
    payload: str | None
    hold: str = ""
    state: int = SENT
    worst: int = 0
    tier: str = ""
    model: str = ""
    outcome: str = ""
    result: str | None = None
    tenant: str = ""
    tries: int = 0
    cost: int = 0
    estimated: bool = False
    plain: int = 0
    top: int = 0
    said: str = ""


class Ended(NamedTuple):
    """What came back for a request. With `state` WAITING it is to be tried again. Money in nano-USD.

    `plain` is what the same usage costs as a call, without a batch, and `top` as one on the top tier.
    """

    place: int
    state: int
    outcome: str
    result: str | None
    cost: int = 0
    estimated: bool = False
    plain: int = 0
    top: int = 0


class Held(NamedTuple):
    """A hold on the money of requests of one batch: its id, and what settling it needs, as JSON."""

    id: str
    entry: str


class BatchRow(NamedTuple):
    """One batch. Moments are in seconds since the epoch.

    `due` is when it is to be looked at, `sent` when it was last given to the API. `number` counts its requests, `fails`
    what went wrong since the last step; `note` says what. `trace` is that of the span that sent it.
    """

    id: str
    job: str
    uid: str
    state: State
    due: float
    api: str
    number: int
    bytes: int
    sent: float
    fails: int
    note: str
    trace: str
    fetches: int
    """How often its results were read that were not all there."""
    canceled: bool
    settings: str
    """Those of its job."""


class Fact(NamedTuple):
    """What is known of a request that is in a batch: how often it was sent, its worst cost, its model, its hold.

    `said` is as of `Item`.
    """

    tries: int
    worst: int
    model: str
    hold: str
    said: str = ""


class Share(NamedTuple):
    """What a hold of a batch has come to: the cost of its requests that have a result, and how many still wait.

    `number` counts all of both.
    """

    hold: Held
    cost: int
    estimated: bool
    waiting: int
    number: int


class Begun(NamedTuple):
    """A job that is being submitted. `busy`: by somebody else, who lives. `whole`: it was submitted to its end."""

    uid: str
    busy: bool
    whole: bool
    settings: str
    canceled: bool = False


class Counts(NamedTuple):
    """How far a job is: requests and cost by outcome ("" has none yet), and what its batches have met."""

    whole: bool
    busy: bool
    settings: str
    outcomes: dict[str, tuple[int, int]]
    waiting: int
    open: bool
    notes: tuple[str, ...]


class Tally(NamedTuple):
    """Requests of a job that have an account, a tier and an outcome in common ("" has none yet), and their money.

    `tenant` is empty where nobody was named, `tier` where they were sent to none. `guesses` counts those whose cost is
    estimated. `plain` and `top` are as of `Ended`.
    """

    tenant: str
    tier: str
    outcome: str
    number: int
    cost: int
    plain: int
    top: int
    guesses: int


class ResultRow(NamedTuple):
    """A request and what became of it; `outcome` is empty while nothing has."""

    place: int
    name: str | None
    outcome: str
    result: str | None
    tier: str
    model: str
    cost: int
    estimated: bool
    tries: int


class JobStore(Protocol):
    """Jobs, their batches, their requests.

    - every method is one atomic step, on the disk when it returns, where the store has one; those that count are not
      one, for that would hold up everybody: what they say is whole where the job has ended
    - whoever works on a job, a batch or a hold that is not made yet is its `owner`, for `lease` seconds from then or
      from its last `keep`; then somebody else may take it
    - a step of somebody who is no longer the owner does nothing, and says so by False
    - a request has one result: what comes back for it later, or from another batch than it is in, is dropped
    - the payload of a request is gone when it has a result
    - a request whose tenant was erased while it was sent has no payload either: what comes back for it is `canceled`,
      with the text `ERASED` and what it cost, and it waits for no other try
    - any thread and any event loop may call; LedgerUnavailableError where the store cannot be asked
    """

    async def begin(self, job: str, uid: str, owner: str, settings: str) -> Begun:
        """Submit to a job; one that is there keeps its uid and settings. Without a live owner it is taken."""
        ...

    async def known(self, job: str, first: int, last: int, names: Sequence[str]) -> tuple[set[int], dict[str, int]]:
        """Which places from `first` to `last` are taken, and where those of `names` stand that are there."""
        ...

    async def intend(self, job: str, owner: str, holds: Sequence[str]) -> None:
        """Note ids of holds that are about to be made, so that a crash leaves none that nobody knows."""
        ...

    async def add(
        self, job: str, owner: str, batch: str, items: Sequence[Item], holds: Sequence[Held], intents: Sequence[str]
    ) -> bool:
        """Take requests into a batch that this owner fills (made here, if it is new), with the holds that were made.

        Those that wait go into another, whose id is `waits_in(batch)`. `intents` are forgotten. False where one of
        them is gone, or the job or the batch is not the owner's any more; then nothing was done.
        """
        ...

    async def seal(self, batch: str, owner: str) -> bool:
        """The batch is full: it may be sent, or looked at, by anybody."""
        ...

    async def finish(self, job: str, owner: str, *, whole: bool) -> None:
        """The owner submits no more; `whole` where that was all."""
        ...

    async def take(self, owner: str, limit: int) -> list[BatchRow]:
        """Become the owner of batches that are due and have none, the first first. One still filling is sealed."""
        ...

    async def keep(self, owner: str) -> None:
        """Begin the leases of all that this owner has anew."""
        ...

    async def save(self, row: BatchRow, owner: str, *, give_back: bool) -> bool:
        """Write down how a batch is now. `give_back`: somebody else may take it when it is due.

        How many requests it has, and bytes, is as it says, too.
        """
        ...

    async def payloads(self, batch: str, after: int, limit: int) -> list[tuple[int, str | None]]:
        """Places and payloads of the requests that are in a batch, in order, after a place. None: it was erased."""
        ...

    async def collect(self, batch: str, owner: str, found: Sequence[Ended]) -> bool:
        """Take in what came back."""
        ...

    async def facts(self, batch: str, places: Sequence[int]) -> dict[int, Fact]:
        """What is known of requests by place, those that are in the batch and have nothing come back yet."""
        ...

    async def shares(self, batch: str) -> list[Share]:
        """The holds of a batch, and those of requests that wait in it."""
        ...

    async def waiting(self, batch: str, hold: str, after: int, limit: int) -> list[tuple[int, int, str]]:
        """Place, worst cost and last outcome of the requests that wait in a batch, by their hold, after a place."""
        ...

    async def move(
        self, batch: str, owner: str, to: str, places: Sequence[int], hold: Held, intents: Sequence[str]
    ) -> bool:
        """Put requests that wait into another batch that this owner fills, under a new hold. False as for `add`."""
        ...

    async def end(self, holds: Sequence[str]) -> None:
        """Forget holds that have been settled or released."""
        ...

    async def holds(self, after: str, limit: int) -> list[Held]:
        """All holds that have been made, by id, after one."""
        ...

    async def lapsed(self, limit: int) -> list[str]:
        """Holds that were intended, by somebody who is gone."""
        ...

    async def whose(self, uid: str, place: int) -> str:
        """The batch that a request is in; empty where it is in none."""
        ...

    async def is_known(self, api: str) -> bool:
        """Whether a batch of the API's is one of ours."""
        ...

    async def results(self, job: str, after: int, limit: int) -> list[ResultRow]:
        """Requests of a job in order, after a place, up to the first that has no result or is not there."""
        ...

    async def found(self, job: str, places: Sequence[int]) -> list[ResultRow]:
        """Those of these requests of a job that have a result, in any order."""
        ...

    async def counts(self, job: str) -> Counts | None:
        """How far a job is; None where there is none."""
        ...

    async def over(self, job: str) -> bool | None:
        """Whether nothing more will come of a job; None where there is none. However many requests it has."""
        ...

    async def tally(self, job: str) -> list[Tally]:
        """What a job has come to, by account, tier and outcome, in that order. Empty where there is none."""
        ...

    async def sent(self, job: str) -> list[BatchRow]:
        """The batches of a job that are not done."""
        ...

    async def left(self) -> bool:
        """Whether there is a batch that is not done, of any job, a hold that is about to be made, or what to sweep."""
        ...

    async def under_way(self) -> int:
        """How many jobs have a batch that is not done."""
        ...

    async def jobs(self) -> list[str]:
        """The names of all jobs, oldest first."""
        ...

    async def cancel(self, job: str) -> None:
        """Note that nothing more of a job is to be sent, and make all of its batches due."""
        ...

    async def erase(self, job: str) -> bool:
        """Forget a job that has ended: it is not there any more, and what is kept of it is swept. False otherwise."""
        ...

    async def retire(self, seconds: float) -> int:
        """Forget the jobs to which nothing has happened for so long, and that have ended. How many those were."""
        ...

    async def sweep(self, limit: int) -> bool:
        """Drop at most so many requests of jobs that were forgotten. Whether there may be more."""
        ...

    async def forget(self, job: str, tenant: str, after: int, limit: int) -> int | None:
        """Drop what is kept of a tenant's requests in a job: among at most so many, in order, after a place.

        The last place that was looked at; None where there was none to look at, and all is done. Payloads, results,
        names are gone, and `ERASED` stands for them. What the API has not been given is `canceled`; what it has comes
        back, see above. Their cost is nobody's, in `tally` as well.
        """
        ...
