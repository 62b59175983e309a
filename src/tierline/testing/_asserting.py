"""Assertions on what became of calls, with messages that say what was expected, what was, and why."""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, overload

from tierline.binding import Binding
from tierline.budgets import parse_money
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.testing._calls import SEEN_HEADER, watched
from tierline.values import NANO, Decision, usd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.testing._calls import Calls

_AMOUNT: Final = re.compile(r"\s*(<=|>=|==|<|>|=|)\s*(\$.+?)\s*")
_COMPARE: Final[dict[str, Callable[[int, int], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq,
}  # fmt: skip
_WORDS: Final = {"<": "less than", "<=": "at most", ">": "more than", ">=": "at least", "==": "exactly"}
_MOST_TOLD: Final = 20
"""Most calls that a message tells of: the latest."""
_REFUSED: Final = (402, 429)
_NOT_WATCHED: Final = "use the fixture `fake_claude` or `tierline_router`, or `with offline(FakeClaude()):`"


class _Call(NamedTuple):
    """One call: from its decision, or from what the headers of a response say."""

    tier: str
    cost: int
    decision: Decision | None = None


def assert_tier(what: object, *tiers: str) -> None:
    """Every call behind `what` was answered by this tier, or by one of these.

    `what` is a response of the app (of httpx, of Starlette's and FastAPI's `TestClient`), a message of the SDK, a
    `Decision`, a Binding or a Router. A response without `TierlineMiddleware(headers=True)` can be told only in a test
    that runs offline. AssertionError with the reasons of each decision; also where no call was made, and where one was
    refused.
    """
    __tracebackhide__ = True
    if not tiers:
        raise ConfigurationError('assert_tier needs the name of a tier: assert_tier(response, "haiku")')
    calls = _calls_of(what)
    wanted = " or ".join(tiers)
    if not calls:
        raise AssertionError(f"expected tier {wanted}, but no call of Claude was made{_status(what)}")
    known = _known()
    if known and (strangers := [tier for tier in tiers if tier not in known]):
        raise AssertionError(
            f"expected tier {wanted}, but {', '.join(strangers)} is no tier: they are {', '.join(known)}"
        )
    refused = [call for call in calls if not _sent(call)]
    if refused:
        raise AssertionError(f"expected tier {wanted}, but nothing was sent{_status(what)}{_told(calls)}")
    if any(call.tier not in tiers for call in calls):
        raise AssertionError(f"expected tier {wanted}, got {', '.join(_each(calls))}{_told(calls)}")


@overload
def assert_spent(what: str, /) -> None: ...
@overload
def assert_spent(what: object, amount: str, /) -> None: ...
def assert_spent(what: object, amount: str | None = None, /) -> None:
    """The calls of this test, or those behind `what`, cost that much: `assert_spent("<$0.01")`.

    `<`, `<=`, `>`, `>=` or `=` before the dollars, which may be `$0`; `=` where there is none. `what` is as for
    `assert_tier`. The cost of a call is what was billed for it, with verdicts and grades that were asked for it.
    AssertionError with what each call cost; also where an answer has not been read to its end.
    """
    __tracebackhide__ = True
    bound: object = what if amount is None else amount
    calls = _of_decisions(_watched().decisions) if amount is None else _calls_of(what)
    compare, limit = _amount(bound)
    if open_now := [call for call in calls if call.decision is not None and not call.decision.settled]:
        raise AssertionError(
            f"{len(open_now)} of {len(calls)} calls have not ended: read their answers to the end first"
        )
    spent = sum(call.cost for call in calls)
    if not _COMPARE[compare](spent, limit):
        count = f"{len(calls)} call{'s' if len(calls) != 1 else ''}"
        raise AssertionError(f"expected {_WORDS[compare]} {usd(limit)}, spent {usd(spent)} in {count}{_told(calls)}")


def assert_refused(what: object, budget: str | None = None) -> None:
    """A budget refused: a response with 429 or 402, or the error that `pytest.raises` has caught.

    With `budget`, it was the one of this name. AssertionError with the reasons of each decision.
    """
    __tracebackhide__ = True
    error = getattr(what, "value", what)  # an ExceptionInfo of pytest has it there
    if isinstance(error, BaseException):
        if not isinstance(error, BudgetExceededError):
            raise AssertionError(  # noqa: TRY004  (it is the assertion that fails)
                f"expected a refusal by a budget, got {type(error).__name__}"
            )
        if budget is not None and error.refusal.budget != budget:
            raise AssertionError(
                f"expected a refusal by budget {budget!r}, got one by {error.refusal.budget!r}: {error}"
            )
        return
    calls = _calls_of(what)
    status = getattr(what, "status_code", None)
    said = f" by budget {budget!r}" if budget is not None else ""
    if status is not None and (status not in _REFUSED or not _is_problem(what)):
        raise AssertionError(f"expected a refusal{said}{_status(what)}{_told(calls)}")
    refusals = [reason for call in calls for reason in _reasons(call) if _refusal(reason, budget)]
    if not refusals and (budget is not None or status is None):
        raise AssertionError(f"expected a refusal{said}{_status(what)}{_told(calls)}")


def _refusal(reason: str, budget: str | None) -> bool:
    name, refused, _ = reason.partition(" refused: ")
    return bool(refused) and (name == f"budget {budget}" if budget is not None else name.startswith("budget "))


def _is_problem(response: Any) -> bool:
    return str(response.headers.get("content-type", "")).startswith("application/problem+json")


def _calls_of(what: object) -> list[_Call]:
    """The calls behind a response, a message, a decision, a Binding or a Router."""
    if isinstance(what, Decision):
        return _of_decisions([what])
    if isinstance(what, Binding):
        return _of_decisions(what.decisions)
    if hasattr(what, "ladder") and hasattr(what, "bind"):
        return _of_decisions(_watched().of_router(what))
    headers = getattr(what, "headers", None)
    if hasattr(headers, "get"):
        return _of_headers(headers)
    if hasattr(what, "usage") and hasattr(what, "stop_reason"):
        return _of_decisions([_decision_of(what)])
    raise ConfigurationError(
        f"{type(what).__name__} tells of no call: give a response of the app, a message of the SDK, a Decision, "
        "a Binding or a Router"
    )


def _of_decisions(decisions: Any) -> list[_Call]:
    return [_Call(decision.tier, decision.cost, decision) for decision in decisions]


def _of_headers(headers: Any) -> list[_Call]:
    """The calls of a response: all of them where they are watched, else the one that its headers show."""
    calls = watched()
    ident = headers.get(SEEN_HEADER)
    if ident is not None and calls is not None:
        return _of_decisions(calls.of_request(ident))
    tier = headers.get("x-tierline-tier")
    if tier is not None:
        whole, _, fraction = str(headers.get("x-tierline-cost-usd", "0")).partition(".")
        return [_Call(tier, int(whole) * NANO + int(fraction.ljust(9, "0")))]
    if ident is not None:
        raise ConfigurationError(f"the calls of this response are no longer watched: {_NOT_WATCHED}")
    raise ConfigurationError(
        "the response does not tell its tier: its app has no TierlineMiddleware, or runs in another process without "
        f"TierlineMiddleware(headers=True); in a test of this process, {_NOT_WATCHED}"
    )


def _decision_of(message: Any) -> Decision:
    """The decision of the call that a message of the SDK has answered: the latest with this model and these tokens."""
    usage = message.usage
    for decision in reversed(_watched().decisions):
        for attempt in decision.attempts[-1:]:
            spent = (attempt.usage.input_tokens, attempt.usage.output_tokens, attempt.usage.cache_read)
            if attempt.model == message.model and spent == (
                usage.input_tokens,
                usage.output_tokens,
                usage.cache_read_input_tokens or 0,
            ):
                return decision
    raise AssertionError(f"no routed call of this test has this answer, of {message.model}: is its client attached?")


def _watched() -> Calls:
    found = watched()
    if found is None:
        raise ConfigurationError(f"nobody watches the calls here: {_NOT_WATCHED}")
    return found


def _known() -> tuple[str, ...]:
    found = watched()
    return found.tiers() if found is not None else ()


def _amount(text: object) -> tuple[str, int]:
    match = _AMOUNT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigurationError(f'{text!r:.40} is no amount: write "<$0.01", "<=$0.01", ">$0", "=$0.002"')
    sign, money = match[1], match[2]
    free = re.fullmatch(r"\$0+(\.0+)?", money) is not None  # a budget of nothing is none, but nothing may be spent
    return ("==" if sign in ("", "=") else sign), 0 if free else parse_money(money)


def _sent(call: _Call) -> bool:
    """Whether anything went out for it. One that is passed on as it is leaves a decision without attempts."""
    decision = call.decision
    return decision is None or bool(decision.attempts) or not any(_refusal(each, None) for each in decision.reasons)


def _each(calls: Sequence[_Call]) -> list[str]:
    return list(dict.fromkeys(call.tier for call in calls))


def _reasons(call: _Call) -> tuple[str, ...]:
    return call.decision.reasons if call.decision is not None else ()


def _status(what: object) -> str:
    status = getattr(what, "status_code", None)
    return f" (the response is a {status})" if status is not None else ""


def _told(calls: Sequence[_Call]) -> str:
    """The calls, the latest, each with its reasons: no text of a prompt is in them."""
    lines: list[str] = []
    for call in calls[-_MOST_TOLD:]:
        decision = call.decision
        if decision is None:
            lines.append(f"  {call.tier}, {usd(call.cost)}")
            continue
        where = f"{decision.route}: " if decision.route else ""
        state = f"{call.tier} ({decision.model})" if _sent(call) else "refused"
        asked = f", {usd(decision.classifier_cost)} of it for a verdict" if decision.classifier_cost else ""
        lines.append(f"  {where}{state}, chosen by {decision.source}, {usd(call.cost)}{asked}")
        lines += [f"    - {reason}" for reason in decision.reasons]
    return "".join(f"\n{line}" for line in lines)
