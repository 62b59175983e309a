"""What is known of a call before it is read: what holds for it, who pays for it, where and for whom it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.budgets import check_budgets
from tierline.classify.base import fingerprint_of
from tierline.policies import combine, marks_of
from tierline.routes import route_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.binding import Binding, Context
    from tierline.budgets import Budget, Line
    from tierline.ladder import Ladder
    from tierline.policies import Effective, Policy
    from tierline.routes import Route

_MOST_COMBINATIONS: Final = 1_000
_MOST_ADMISSIONS: Final = 1_000


class Admission(NamedTuple):
    """What is known of a call before it is read. `version` changes with what a verdict may depend on."""

    policy: Effective
    version: str
    lines: tuple[Line, ...]
    route: str | None
    tenant: str | None


class _InForce(NamedTuple):
    """What some policies come to, together with what the app says everywhere.

    `known` has what calls are admitted with, by route and tenant; None where a budget asks the app on every call, or
    has an account for each request.
    """

    policy: Effective
    version: str
    budgets: tuple[Budget, ...]
    known: dict[tuple[str | None, str | None], Admission] | None


class Rules:
    """What an app allows everywhere: its ladder, its budgets, its outermost policy. Combines them with the rest."""

    def __init__(self, ladder: Ladder, budgets: Sequence[Budget], policy: Policy | None) -> None:
        self.ladder = ladder
        self.budgets = tuple(budgets)
        self.apart: tuple[Budget, ...] = ()
        """Budgets that no call of the app's is charged to: for work of Tierline's own."""
        self.policy = policy
        self.hard: set[str] = set()
        """Names of the hard budgets that are known at start-up: those of the app and of its routes."""
        self._combined: dict[tuple[Policy, ...], _InForce] = {}
        self._now = (self.budgets, policy, self._combined)
        """What a call is admitted by: read, and exchanged, as one."""
        self._checked: dict[str, Budget] = {}
        self._check()

    def replace(self, budgets: Sequence[Budget], policy: Policy | None) -> None:
        """Let other budgets and another outermost policy hold, from the next call on: all of it, or nothing.

        ConfigurationError where they cannot be; what held holds on then.
        """
        if policy is not None:
            policy.check(self.ladder, "policy")
        before = {*self.budgets, *(self.policy.budgets if self.policy is not None else ())}
        of_routes = {budget for budget in self._checked.values() if budget not in (*before, *self.apart)}
        everywhere = (*budgets, *(policy.budgets if policy is not None else ()))
        check_budgets((*everywhere, *of_routes), self.apart)
        self.budgets, self.policy, self._combined = tuple(budgets), policy, {}
        self._checked = {budget.name: budget for budget in of_routes}
        self._check()
        self._now = (self.budgets, policy, self._combined)

    def check(self, rule: Policy) -> None:
        """ConfigurationError where the budgets of a policy and the app's own have one name."""
        self._check(rule)

    def keep_apart(self, budget: Budget) -> None:
        """Know a budget that no call of the app's is charged to. ConfigurationError where one of those has its name."""
        self.apart = (*self.apart, budget)
        self._check()

    def _check(self, *rules: Policy) -> None:
        rules = (*((self.policy,) if self.policy is not None else ()), *rules)
        budgets = (*self.budgets, *(budget for rule in rules for budget in rule.budgets))
        check_budgets(budgets, self.apart)
        budgets += self.apart
        self.hard |= {budget.name for budget in budgets if budget.hard}
        self._checked.update((budget.name, budget) for budget in budgets)

    def known(self) -> dict[str, Budget]:
        """Every budget that is known by now, by name: of the Router, of policies that it has seen."""
        lately = (budget for found in tuple(self._combined.values()) for budget in found.budgets)
        return self._checked | {budget.name: budget for budget in lately}

    def policy_of(self, now: Context, binding: Binding) -> Effective:
        """What a call may do here."""
        return self._in_force(now, binding, _route_of(binding)).policy

    def admission(self, now: Context, binding: Binding) -> Admission:
        """All that a call from here is known to be. Errors as for `combine` and `Budget.line`."""
        scope, route = binding.scope, _route_of(binding)
        policy, version, budgets, known = self._in_force(now, binding, route)
        name = binding.fixed_route or (route.name if route is not None else None)
        tenant = binding.tenant
        if known is not None and not binding.accounts:
            if (found := known.get((name, tenant))) is not None:
                return found
            lines = [budget.line(budget.account_of(scope, tenant=tenant, route=name, request="")) for budget in budgets]
            if len(known) >= _MOST_ADMISSIONS:
                known.clear()
            found = known[name, tenant] = Admission(policy, version, tuple(lines), name, tenant)
            return found
        run, lines = binding.run, []
        for budget in budgets:
            if (account := binding.accounts.get(budget.name)) is not None:
                lines.append(budget.line(account))
                continue
            request = binding.id if budget.per == "request" or (budget.per == "run" and run is None) else ""
            line = budget.line(budget.account_of(scope, tenant=tenant, route=name, request=request, run=run))
            if request:
                binding.request_lines.add(line)
                if spent := binding.left_behind:
                    # A task that outlives its request begins no new account with the whole limit.
                    line = replace(line, limit=max(1, line.limit - spent))
            lines.append(line)
        return Admission(policy, version, tuple(lines), name, tenant)

    def rules_in(self, now: Context, binding: Binding) -> tuple[Policy, ...]:
        """The policies that hold here beside the Router's own, outermost first."""
        return _rules_in(now, binding, _route_of(binding))

    def _in_force(self, now: Context, binding: Binding, route: Route | None) -> _InForce:
        """All policies that hold here as one, the version of it, and all budgets."""
        everywhere, outermost, combined = self._now
        rules = (*((outermost,) if outermost is not None else ()), *_rules_in(now, binding, route))
        known = combined.get(rules)
        if known is None:
            policy = combine(rules, self.ladder)
            check_budgets((*everywhere, *policy.budgets), self.apart)
            version = fingerprint_of(policy.floor, policy.ceiling, policy.task, policy.expected_output)
            if len(combined) >= _MOST_COMBINATIONS:
                combined.clear()
            budgets = tuple(dict.fromkeys((*everywhere, *policy.budgets)))
            told = all(budget.told for budget in budgets)
            known = combined[rules] = _InForce(policy, version, budgets, {} if told else None)
        return known


def _rules_in(now: Context, binding: Binding, route: Route | None) -> tuple[Policy, ...]:
    scope = binding.scope
    return (
        *binding.by_route(route),
        *binding.narrowed,
        *(marks_of(scope.get("endpoint")) if scope is not None else ()),
        *(rule for rule, _ in tuple(binding.blocks.values())),
        *(rule for rule, _ in now.blocks),
    )


def _route_of(binding: Binding) -> Route | None:
    return route_of(binding.scope, binding.app) if binding.scope is not None else None
