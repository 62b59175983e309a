"""Where deferred requests are kept: the contract of every store of them, and its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.batches.queue.values import Delivery

State = Literal["waiting", "gathered", "calling", "answered"]
"""Of a request: it waits to be put into a batch; was put into a job; is being called; has its answer."""


@veiled("request", "result")
class Item(NamedTuple):
    """A deferred request. Moments are in seconds since the epoch: see `Times`.

    `request` and `result` are JSON: of the request nothing is left when there is a result. `target` names where that is
    to be delivered, `due` says when, `tries` how often it was tried.
    """

    handle: str
    tenant: str
    name: str
    when_full: str
    target: str
    created: float
    ready: float
    fill_by: float
    act_by: float
    call_by: float
    deadline: float
    request: str | None
    state: State = "waiting"
    job: str = ""
    place: int = 0
    result: str | None = None
    answered: float = 0.0
    delivery: Delivery = ""
    due: float = 0.0
    tries: int = 0


class Group(NamedTuple):
    """Requests that were put into one job, whose name is `id`.

    `submitted` says whether the job has all of them, `seen` how many of its results were read, `act_by` when the first
    of those that have no answer must have come back. `canceled`: the job was told to be.
    """

    id: str
    when_full: str
    number: int
    due: float
    submitted: float
    seen: int
    canceled: bool
    act_by: float


@veiled("request")
class Member(NamedTuple):
    """A request of a group that has no answer: its place in the job."""

    place: int
    handle: str
    request: str


class QueueStore(Protocol):
    """Deferred requests, the jobs that they were put into, and their answers on the way to whoever waits for them.

    - every method is one atomic step, on the disk when it returns, where the store has one
    - whoever works on a group, a call or a delivery is its `owner`, for `lease` seconds from then or from its last
      `keep`; then somebody else may take it. A step of somebody who is no longer the owner does nothing
    - a request has one answer: what comes later, or from where it is no more, is dropped
    - the request itself is gone when it has an answer
    - any thread and any event loop may call; LedgerUnavailableError where the store cannot be asked
    """

    async def put(self, item: Item) -> None:
        """Take a request in. One that is there stays as it is."""
        ...

    async def get(self, handle: str) -> Item | None:
        """A request and its answer."""
        ...

    async def gather(self, group: str, size: int) -> bool:
        """Put requests that wait into a new group, which is due: if there are `size` of them, or one has waited enough.

        At most `size`, of one `when_full`, those first that are to be sent first; none after its `act_by`.
        """
        ...

    async def groups(self, owner: str, limit: int) -> list[Group]:
        """Become the owner of groups that are due and have none."""
        ...

    async def members(self, group: str, after: int, limit: int) -> list[Member]:
        """Requests of a group that have no answer and are in it still, by place, after one."""
        ...

    async def save(self, group: Group, owner: str) -> bool:
        """Write down how a group is now, and let somebody else take it when it is due. False as above."""
        ...

    async def drop(self, group: str, owner: str) -> None:
        """Forget a group. What is in it still waits anew."""
        ...

    async def calls(self, owner: str, limit: int) -> list[Item]:
        """Become the owner of requests that are to be called now, wherever they are. No group has them any more."""
        ...

    async def answer(self, by: str, found: Sequence[tuple[str, str]], now: float) -> int:
        """Give requests, by handle, their results. `by` is the group that they are in, or the owner who called.

        Those with a target are to be delivered. How many were answered.
        """
        ...

    async def back(self, by: str, handles: Sequence[str], ready: float, fill_by: float, act_by: float | None) -> None:
        """Let requests wait anew, from `ready` on and at most until `fill_by`. None: with their own `act_by`."""
        ...

    async def deliveries(self, owner: str, targets: Sequence[str], limit: int) -> list[Item]:
        """Become the owner of answers that are to be delivered to one of these targets now."""
        ...

    async def deliver(self, handle: str, owner: str, delivery: Delivery, due: float, tries: int) -> None:
        """Write down how a delivery went."""
        ...

    async def keep(self, owner: str, groups: Sequence[str], handles: Sequence[str]) -> None:
        """Begin the leases of groups and of requests that this owner has anew."""
        ...

    async def next(self, targets: Sequence[str]) -> float | None:
        """Seconds until something is to be done, also after somebody's lease; None where nothing is left to do.

        Deliveries to other targets than these are left out.
        """
        ...

    async def purge(self, before: float, limit: int) -> int:
        """Forget answers that came before then, and are not to be delivered any more. How many."""
        ...

    async def forget(self, handle: str) -> bool:
        """Forget a request, whatever has become of it. False where there is none."""
        ...

    async def of(self, tenant: str, limit: int) -> list[str]:
        """Handles of requests of a tenant."""
        ...
