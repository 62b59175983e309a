"""What goes into a job of batches, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from tierline.budgets import LONGEST_NAME, is_key
from tierline.errors import ConfigurationError
from tierline.policies import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anthropic.types import Message

Outcome = Literal["succeeded", "errored", "expired", "canceled", "refused", "invalid"]
WhenFull = Literal["refuse", "defer"]
Lane = Literal["batch", "concurrent"]
"""How a job is sent: in batches, for half the price, within a day; or as calls, several at a time, at once."""
JobState = Literal["submitting", "interrupted", "in_progress", "ended"]

MOST_REQUESTS: Final = 100_000
"""Requests that the API takes in one batch."""
MOST_BYTES: Final = 256_000_000
"""Bytes that it takes in one."""


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One request of a job. `custom_id` is the app's own name for it, up to 200 characters, and no other's in the job.

    `params` are those of `messages.create`, with `model="auto"` or an id. `tenant`, `route` and `policy` say for whom
    and where it is and what holds for it, as `router.bind` and `with policy(…)` do; None: as where it is submitted.

    `accounts` are those of budgets that cannot be told from that, by the name of the budget: where `per` is a function
    of the scope, such as a user, or a run.
    """

    custom_id: str
    params: Mapping[str, Any] = field(repr=False)
    tenant: str | None = None
    route: str | None = None
    policy: Policy | None = None
    accounts: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one request. Money in nano-USD.

    - `place` counts what was submitted, from 0; `custom_id` is None where there was none to read
    - `outcome`: `succeeded`, with a `message`; `errored`, by the API; `expired`, after 24 hours; `canceled`;
      `refused`, by a budget, and not sent; `invalid`, no request that could be sent. `error` says why
    - `tier` and `model` are what it was sent to, empty where it was not; `tries` how often
    - `estimated`: the API did not say what it used, and `cost` is the most that it can have been
    """

    custom_id: str | None
    place: int
    outcome: Outcome
    error: str | None = None
    tier: str = ""
    model: str = ""
    cost: int = 0
    estimated: bool = False
    tries: int = 0
    raw: str | None = field(default=None, repr=False, compare=False)
    """The message as JSON."""

    @property
    def message(self) -> Message | None:
        """The answer, as the SDK's own type; None where there is none."""
        if self.raw is None:
            return None
        from anthropic.types import Message  # noqa: PLC0415  (whoever reads an answer has the SDK)

        return Message.construct(**json.loads(self.raw))


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a job is. Money in nano-USD; the counts of requests add up to `submitted`.

    - `state`: `submitting`; `interrupted`, where whoever submitted is gone: what was taken goes on, the rest is not
      known; `in_progress`; `ended`
    - `processing` have been taken, and have no result yet; of them `deferred` wait for a budget, or for another try
    - `cost` is what has come back so far
    - `problems` are why the API does not take what it should, latest first; they are tried again
    """

    id: str
    state: JobState
    submitted: int
    processing: int
    deferred: int
    succeeded: int
    errored: int
    expired: int
    canceled: int
    refused: int
    invalid: int
    cost: int
    problems: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.state == "ended"


@dataclass(frozen=True, slots=True)
class JobShare:
    """What a job has come to for one account on one tier. Money in nano-USD.

    - `tenant` is None where nobody was named; `tier` is empty for what was sent to none
    - `outcomes`: requests by outcome; those without one yet are `processing`
    - `cost` is what has come back so far; `guesses` counts the requests of which the API did not say what they used: of
      these it is the most that they can have cost
    - `plain` is what the same usage costs as calls, without a batch; `top` as calls on the top tier
    """

    tenant: str | None
    tier: str
    outcomes: Mapping[str, int]
    cost: int
    plain: int
    top: int
    guesses: int

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.outcomes.values())

    @property
    def saved(self) -> int:
        """How much less it was than calls on the top tier."""
        return self.top - self.cost

    def plus(self, other: JobShare) -> JobShare:
        """Both together, under the names of this one."""
        outcomes = dict(self.outcomes)
        for name, number in other.outcomes.items():
            outcomes[name] = outcomes.get(name, 0) + number
        cost, plain, top = self.cost + other.cost, self.plain + other.plain, self.top + other.top
        return replace(self, outcomes=outcomes, cost=cost, plain=plain, top=top, guesses=self.guesses + other.guesses)


@dataclass(frozen=True, slots=True)
class JobReport:
    """What a job has come to so far, by account and tier, both in the order of their names."""

    id: str
    shares: tuple[JobShare, ...]

    @property
    def total(self) -> JobShare:
        """All of it."""
        return _summed(JobShare(None, "", {}, 0, 0, 0, 0), self.shares)

    def by_tenant(self) -> dict[str | None, JobShare]:
        """By account; `tier` is empty."""
        found: dict[str | None, JobShare] = {}
        for each in self.shares:
            found[each.tenant] = found[each.tenant].plus(each) if each.tenant in found else replace(each, tier="")
        return found

    def by_tier(self) -> dict[str, JobShare]:
        """By tier; `tenant` is None."""
        found: dict[str, JobShare] = {}
        for each in self.shares:
            found[each.tier] = found[each.tier].plus(each) if each.tier in found else replace(each, tenant=None)
        return found


def _summed(total: JobShare, shares: Iterable[JobShare]) -> JobShare:
    for each in shares:
        total = total.plus(each)
    return total


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A place among the requests of a job where there is none: its result is `invalid`, and says why."""

    why: str
    custom_id: str | None = None


def checked_job(name: object) -> str:
    """The name of a job. ConfigurationError for what cannot be one."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise ConfigurationError(
            f"a job has a name of 1 to {LONGEST_NAME} printable characters, such as 'nightly-2026-11-22'; "
            f"got {name!r:.80}"
        )
    return name


def checked_request(given: object) -> BatchRequest | str:
    """A request, or what is wrong with it. The API's own shape, a mapping of `custom_id` and `params`, is one too."""
    if isinstance(given, Unreadable):
        return given.why
    if isinstance(given, Mapping):
        unknown = [str(key) for key in given if key not in ("custom_id", "params")]
        if unknown or "custom_id" not in given or "params" not in given:
            return "a mapping is a request with the keys custom_id and params, and no others"
        given = BatchRequest(given["custom_id"], given["params"])
    if not isinstance(given, BatchRequest):
        return f"this is no BatchRequest but {type(given).__name__:.40}"
    name: object = given.custom_id
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        return f"custom_id is no text of 1 to {LONGEST_NAME} printable characters"
    params: object = given.params
    if not isinstance(params, Mapping):
        return f"params are a mapping, as messages.create takes them, not {type(params).__name__:.40}"
    for word, value in (("tenant", given.tenant), ("route", given.route)):
        if value is not None and not (isinstance(value, str) and value):
            return f"{word} is a text or None, not {type(value).__name__:.40}"
    rule: object = given.policy
    if rule is not None and not isinstance(rule, Policy):
        return f"policy is a policy(…) or None, not {type(rule).__name__:.40}"
    accounts: object = given.accounts
    if accounts is not None and not (
        isinstance(accounts, Mapping) and all(is_key(text) for pair in accounts.items() for text in pair)
    ):
        return "accounts are a mapping of names of budgets to names of accounts, or None"
    return given


def name_of(given: object) -> str | None:
    """The custom id of what is no request, where it has one all the same."""
    found = given.get("custom_id") if isinstance(given, Mapping) else getattr(given, "custom_id", None)
    return found if isinstance(found, str) and 0 < len(found) <= LONGEST_NAME and found.isprintable() else None
