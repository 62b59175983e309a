"""A deferred request as plain data: what it asks, for whom and where it is, and what holds for it.

It outlives the process that took it, so that nothing of it may be an object of that process.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final, Literal

from tierline.batches.calling import length_of
from tierline.batches.queue.values import Deferred
from tierline.batches.values import BatchRequest, BatchResult
from tierline.binding import Binding, Context, context
from tierline.budgets import Budget, run_account
from tierline.errors import ConfigurationError
from tierline.escalation.rules import Escalate
from tierline.policies import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tierline.batches.queue.store import Item
    from tierline.ladder import Ladder
    from tierline.router import Router

_INNERMOST: Final = (
    "label",
    "task",
    "expected_output",
    "explicit_model",
    "sticky",
    "per_step",
    "speculate",
    "escalate",
)


def written(router: Router[Any], request: BatchRequest) -> tuple[str, str | None]:
    """A request with all that holds for it here, as JSON; and its tenant.

    ConfigurationError for what is no request, and for what cannot be kept: functions, classifiers and checks.
    """
    if isinstance(wrong := length_of(request), str):
        raise ConfigurationError(f"defer: {wrong}")
    if request.params.get("speed"):
        raise ConfigurationError("defer: a batch takes no speed: leave it out")
    now = context()
    outer = now.binding_of(router)
    tenant, route = request.tenant, request.route
    if outer is not None and tenant is None:
        tenant = outer.tenant
    binding = Binding(router, tenant=tenant, route=route, outer=outer)
    own = (request.policy,) if request.policy is not None else ()
    here = Context(binding, (*now.blocks, *((rule, 0) for rule in own)))
    admission = router.rules.admission(here, binding)
    policy = merged(router.rules.rules_in(here, binding), router.ladder)
    data = {
        "params": dict(request.params),
        "tenant": admission.tenant,
        "route": admission.route,
        "policy": _policy_data(policy),
        "accounts": {**_accounts(router, policy, binding, admission.route), **(request.accounts or {})},
    }
    return json.dumps(data, separators=(",", ":")), admission.tenant


def request_of(handle: str, text: str) -> BatchRequest:
    """The request that was written. Its name in a job is its handle."""
    data = json.loads(text)
    policy = _policy_of(data["policy"])
    return BatchRequest(handle, data["params"], data["tenant"], data["route"], policy, data["accounts"])


def result_text(
    outcome: str,
    *,
    raw: str | None = None,
    error: str | None = None,
    tier: str = "",
    model: str = "",
    cost: int = 0,
    estimated: bool = False,
    tries: int = 0,
) -> str:
    """What became of a request, as JSON. See `BatchResult`."""
    data = {
        "outcome": outcome, "raw": raw, "error": error, "tier": tier, "model": model, "cost": cost,
        "estimated": estimated, "tries": tries,
    }  # fmt: skip
    return json.dumps(data, separators=(",", ":"))


def result_of(name: str, text: str) -> BatchResult:
    """The result that was written, of the request of this name."""
    return BatchResult(custom_id=name, place=0, **json.loads(text))


def merged(rules: Sequence[Policy], ladder: Ladder) -> Policy:
    """Several policies, outermost first, as one that means the same. See `tierline.policies.combine`."""
    found: dict[str, Any] = {}
    for rule in rules:
        if rule.classifier is not None:
            raise ConfigurationError(
                f"defer: {rule!r:.200} has a classifier, and an object of this process is not kept"
            )
        found |= {name: value for name in _INNERMOST if (value := getattr(rule, name)) is not None}
    floors = [ladder.index(rule.floor, f"{rule!r}: floor") for rule in rules if rule.floor]
    ceilings = [ladder.index(rule.ceiling, f"{rule!r}: ceiling") for rule in rules if rule.ceiling]
    limits = [rule.max_tokens for rule in rules if rule.max_tokens is not None]
    shares = [rule.quality for rule in rules if rule.quality is not None]
    return Policy(
        floor=ladder[max(floors)].name if floors else None,
        ceiling=ladder[min(ceilings)].name if ceilings else None,
        tier=next((rule.tier for rule in rules if rule.tier), None),
        critical=any(rule.critical for rule in rules),
        max_tokens=min(limits, default=None),
        quality=max(shares, default=None),
        budgets=tuple(dict.fromkeys(budget for rule in rules for budget in rule.budgets)),
        tags={name: value for rule in rules for name, value in dict(rule.tags).items()},
        **found,
    )


def _accounts(router: Router[Any], policy: Policy, binding: Binding, route: str | None) -> dict[str, str]:
    """The accounts that only this process can tell: of budgets by a function of the scope, and of an agent run."""
    found = dict(binding.accounts)
    for budget in (*router.budgets, *policy.budgets):
        if callable(budget.per) and binding.scope is not None:
            found[budget.name] = budget.account_of(binding.scope, tenant=binding.tenant, route=route, request="")
        elif budget.per == "run" and binding.run is not None:
            found[budget.name] = run_account(binding.tenant, binding.run)
    return found


def _policy_data(policy: Policy) -> dict[str, Any]:
    data = {each.name: getattr(policy, each.name) for each in fields(policy)}
    if isinstance(policy.escalate, Escalate):
        if policy.escalate.check is not None:
            raise ConfigurationError("defer: escalate has a check, and a function of this process is not kept")
        data["escalate"] = asdict(policy.escalate)
    data["budgets"] = [_budget_data(budget) for budget in policy.budgets]
    return {name: value for name, value in data.items() if value is not None and value not in ((), [])}


def _budget_data(budget: Budget) -> dict[str, Any]:
    if callable(budget.amount):
        raise ConfigurationError(
            f"defer: the amount of budget {budget.name!r} is a function, and one of a policy is not kept: "
            "give the budget to the Router"
        )
    data = {each.name: getattr(budget, each.name) for each in fields(budget) if each.init}
    if callable(budget.per):
        raise ConfigurationError(
            f"defer: budget {budget.name!r} is per a function, and one of a policy is not kept: "
            "give the budget to the Router"
        )
    return data


def _policy_of(data: Mapping[str, Any]) -> Policy:
    found = dict(data)
    if isinstance(found.get("escalate"), dict):
        escalate = found["escalate"]
        found["escalate"] = Escalate(**{**escalate, "phrases": tuple(escalate["phrases"])})
    found["budgets"] = tuple(
        Budget(**{**each, "alert_at": tuple(each["alert_at"])}) for each in found.get("budgets", ())
    )
    found["tags"] = dict(found.get("tags", ()))
    return Policy(**found)


def deferred_of(item: Item) -> Deferred:
    """A request as an app sees it."""
    result = None if item.result is None else result_of(item.name, item.result)
    state: Literal["pending", "answered"] = "pending" if result is None else "answered"
    return Deferred(item.handle, item.name, item.tenant or None, state, item.deadline, item.delivery, result)
