"""A request of a job as a usual call: for what cannot wait for a batch, or no longer."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from tierline.call import read_call
from tierline.errors import BudgetExceededError, LedgerUnavailableError, TierlineError
from tierline.limits import retry_after
from tierline.veil import veiled

if TYPE_CHECKING:
    from tierline.batches.pacing import Turn
    from tierline.batches.values import BatchRequest
    from tierline.binding import Binding
    from tierline.router import Router
    from tierline.values import Refusal

_LONGEST_WHOLE: Final = 21_333
"""Most `max_tokens` of an answer that is sent when it is whole: of more the SDK wants a stream."""
_PASSING: Final = (408, 409, 429)
"""Statuses below 500 that the same request may not meet again."""
_SERVER_ERROR: Final = 500
_FOR_ALL: Final = (401, 402)
"""Statuses that speak of the key or the bill, and not of the request."""
_NO_MESSAGE: Final = "what came back is no message: is there a gateway or a proxy in between?"


@veiled("raw")
class Called(NamedTuple):
    """What became of a request that was sent as a call. `cost` in nano-USD, all attempts and verdicts in it.

    - `outcome`: `succeeded`, with the message as JSON in `raw`; `errored`, by the API or on the way to it; `refused`,
      by a budget, and not sent; `invalid`, no request that could be sent. `error` says why
    - `tier` and `model` are those of the last attempt, empty where none was made
    - `estimated`: the API did not say what it used, and `cost` is the most that it can have been
    - `status` is that of the API's error, 0 where there is none; `again` says that another try may succeed,
      `wait` in how many seconds, where that was said. `refusal` has the numbers behind `refused`
    - `stops`: every other request will meet this error as well, such as a key that is rejected
    - `tenant` is who pays, empty for nobody; `top` what the top tier would have cost
    """

    outcome: Literal["succeeded", "errored", "refused", "invalid"]
    raw: str | None = None
    error: str | None = None
    tier: str = ""
    model: str = ""
    cost: int = 0
    estimated: bool = False
    status: int = 0
    again: bool = False
    wait: float | None = None
    refusal: Refusal | None = None
    stops: bool = False
    tenant: str = ""
    top: int = 0

    @property
    def sent(self) -> bool:
        """Whether the API was asked."""
        return self.tier != ""


def length_of(request: BatchRequest) -> int | str:
    """How long a request is as JSON, in characters; or what is wrong with it, so that it is no call."""
    params: Any = dict(request.params)
    if params.pop("stream", None):
        return "a request of a job takes no stream: leave it out"
    call = read_call("create", params)
    if call is None:
        return "params are no Messages request: model and messages are missing, or are something else"
    if call.max_tokens is None:
        return "params have no max_tokens that is a whole number above 0"
    try:
        return len(json.dumps(params, separators=(",", ":")))
    except (TypeError, ValueError, RecursionError) as error:
        return f"params are no JSON: {type(error).__name__}"


async def call(router: Router[Any], request: BatchRequest, pace: Turn | None = None) -> Called:
    """Send a request of a job as a usual call of the Router's own client, at the list price.

    It is bound to the request's tenant, route and policy, as `router.bind` and `with policy(…)` do it, inside of what
    is bound around: budgets, retries, fallbacks, the decision and the spans are those of any call.

    What a request can meet is an outcome, and not raised. LedgerUnavailableError is: it is not the request's fault. So
    are errors of the program, such as a client without a key. With a `pace` it waits for room within the rate limits.
    """
    if isinstance(wrong := length_of(request), str):
        return Called("invalid", error=wrong)
    from anthropic import APIError  # noqa: PLC0415  (the SDK is there: its client is)

    async with router.bind(tenant=request.tenant, route=request.route) as binding:
        binding.pace = pace
        if request.accounts:
            binding.accounts = {**binding.accounts, **request.accounts}
        try:
            with request.policy or nullcontext():
                raw = await _asked(router.claude, dict(request.params))
        except BudgetExceededError as error:
            found = Called("refused", error=str(error), refusal=error.refusal)
        except LedgerUnavailableError:
            raise
        except TierlineError as error:
            found = Called("invalid", error=f"{type(error).__name__}: {error}")
        except APIError as error:
            found = _errored(error)
        else:
            found = Called("succeeded", raw) if _is_message(raw) else Called("errored", error=_NO_MESSAGE)
    if pace is not None and binding.decisions:
        pace.ended(binding.decisions[-1].attempts)
    return _decided(found, binding)


async def _asked(client: Any, params: dict[str, Any]) -> str:
    """The answer as JSON. Whatever the SDK does not know of the body is sent as it is."""
    params.pop("stream", None)
    known = {name: params.pop(name) for name in ("model", "messages", "max_tokens")}
    if known["max_tokens"] > _LONGEST_WHOLE:
        async with client.messages.stream(**known, extra_body=params) as stream:
            message = await stream.get_final_message()
        return str(message.to_json(indent=None))
    answer = await client.messages.with_raw_response.create(**known, extra_body=params)
    return str(answer.http_response.text)


def _is_message(raw: str) -> bool:
    """Whether an answer can be read as one: gateways and portals may answer 200 with a page of theirs."""
    try:
        return isinstance(json.loads(raw), dict)
    except (ValueError, RecursionError):
        return False


def _errored(error: Any) -> Called:
    """What an error of the SDK's says."""
    from anthropic import (  # noqa: PLC0415  (as above)
        APIConnectionError,
        APIStatusError,
        EnforcedSpendLimitReachedError,
    )

    if isinstance(error, APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        inner = body.get("error")
        detail = inner if isinstance(inner, dict) else {}
        kind, said = str(detail.get("type") or type(error).__name__), str(detail.get("message") or "")
        status = error.status_code
        spent = isinstance(error, EnforcedSpendLimitReachedError)
        again = not spent and (status in _PASSING or status >= _SERVER_ERROR)
        wait = retry_after(error.response.headers)
        stops = spent or status in _FOR_ALL
        return Called("errored", error=f"{kind}: {said}"[:500], status=status, again=again, wait=wait, stops=stops)
    again = isinstance(error, APIConnectionError)
    return Called("errored", error=type(error).__name__, again=again)


def _decided(found: Called, binding: Binding) -> Called:
    """The same with what the decision says of where it went, and what that cost."""
    if not binding.decisions:
        return found
    decision = binding.decisions[-1]
    found = found._replace(
        cost=decision.cost,
        estimated=decision.estimated,
        tenant=decision.tenant or "",
        top=decision.cost + decision.saved,
    )
    if not decision.attempts and found.outcome != "succeeded":
        return found
    return found._replace(tier=decision.tier, model=decision.model)
