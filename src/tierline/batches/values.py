"""What goes into a job of batches, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from tierline.budgets import LONGEST_NAME, is_key
from tierline.errors import ConfigurationError
from tierline.policies import Policy

if TYPE_CHECKING:
    from anthropic.types import Message

Outcome = Literal["succeeded", "errored", "expired", "canceled", "refused", "invalid"]
WhenFull = Literal["refuse", "defer"]
Delivery = Literal["", "waiting", "delivered", "failed"]
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
class Deferred:
    """A request that was deferred, as it is now. `deadline` is in seconds since the epoch.

    - `state`: `pending`, or `answered`, with a `result`, whose `place` says nothing
    - `delivery`: nothing where the answer is not to be delivered; else `waiting`, `delivered`, or `failed` after the
      last try
    """

    handle: str
    custom_id: str
    tenant: str | None
    state: Literal["pending", "answered"]
    deadline: float
    delivery: Delivery = ""
    result: BatchResult | None = None


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
