"""Another policy to try on recorded decisions: what `tierline simulate --policy` reads from TOML.

min_confidence = 0.6              # as Router(min_confidence=…); so is learn_after

[ladder]                          # cheapest first; without it, the default one
haiku = "claude-haiku-5-5"
opus = "claude-opus-5-5"

[labels]                          # as Ladder(labels=…)
moderate = "opus"

[policy]                          # holds for every call
quality = 0.9
escalate = true                   # or { noticed = 0.7, false_alarms = 0.1 }: the rates that are assumed of its checks
speculate = true

[routes."/contracts/*"]           # as the table of the middleware
floor = "opus"

[[budgets]]
amount = "$5/day"
per = "tenant"
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tierline.budgets import Budget, check_budgets
from tierline.choice import LEARN_AFTER
from tierline.classify.base import check_confidence
from tierline.errors import ConfigurationError
from tierline.evaluation.strategies import Assumed
from tierline.ladder import DEFAULT_LADDER, Ladder, Tier
from tierline.policies import Policy, combine
from tierline.routes import Route, RouteTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierline.policies import Effective

_TOP: Final = ("min_confidence", "learn_after", "ladder", "labels", "policy", "routes", "budgets")
_POLICY: Final = ("floor", "ceiling", "tier", "critical", "label", "quality", "explicit_model", "escalate", "speculate")
_RATES: Final = ("noticed", "false_alarms")
_BUDGET: Final = ("amount", "per", "name", "hard", "downgrade_at", "cheapest_at", "timezone")
_MOST_ROUTES: Final = 10_000


@dataclass(frozen=True)
class Scenario:
    """A whole policy: what is not in it does not hold, also where the app has it in its code.

    - `ladder`: the tiers; decisions are matched by the names of their tiers
    - `policy`, `routes`: what holds for every call, and by patterns of routes
    - `budgets`: for all, or per tenant, route or run
    - `min_confidence`, `learn_after`: as of a Router

    Escalation is simulated at assumed rates: see `tierline.evaluation.strategies.Assumed`.

    ConfigurationError for what cannot work, for a budget per request (the log does not say which calls are of one), and
    for `speculate="auto"` (nor what an attempt would gain).
    """

    ladder: Ladder = DEFAULT_LADDER
    policy: Policy | None = None
    routes: Mapping[str, Policy] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()
    min_confidence: float = 0.6
    learn_after: int = LEARN_AFTER
    _table: RouteTable = field(init=False, repr=False, compare=False)
    _known: dict[str | None, Effective] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_confidence("min_confidence", self.min_confidence)
        if isinstance(self.learn_after, bool) or not isinstance(self.learn_after, int) or self.learn_after < 1:
            raise ConfigurationError(f"learn_after is {self.learn_after!r:.60}; write a number of outcomes above 0")
        if self.policy is not None:
            self.policy.check(self.ladder, "policy")
        for each in (*((self.policy,) if self.policy else ()), *self.routes.values()):
            if each.speculate == "auto":
                raise ConfigurationError('speculate is "auto": a log does not tell what is gained; write true or false')
        check_budgets(self.budgets)
        for budget in self.budgets:
            if budget.per == "request" or callable(budget.per):
                raise ConfigurationError(
                    f"budget {budget.name!r}: a log does not tell requests apart, nor what a function would say; write "
                    'per="tenant", "route", "run" or nothing'
                )
        object.__setattr__(self, "_table", RouteTable(self.routes, self.ladder))

    def policy_for(self, route: str | None) -> Effective:
        """What holds on a route."""
        known = self._known.get(route)
        if known is None:
            found = () if route is None else self._table.policies_for(None, Route("", route))
            if len(self._known) >= _MOST_ROUTES:
                self._known.clear()
            known = self._known[route] = combine((*((self.policy,) if self.policy else ()), *found), self.ladder)
        return known


def read_scenario(path: str | Path) -> Scenario:
    """The scenario of a TOML file. ConfigurationError, with the file and the key, for what cannot be."""
    try:
        return scenario_of(tomllib.loads(Path(path).read_text("utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def scenario_of(table: Mapping[str, Any]) -> Scenario:
    """The scenario that a TOML table describes. ConfigurationError, with the key, for what cannot be."""
    _check_keys("", table, _TOP)
    budgets = table.get("budgets", [])
    if not isinstance(budgets, list):
        raise ConfigurationError("budgets is no list: write [[budgets]] above each")
    return Scenario(
        ladder=_ladder(table),
        policy=_policy("policy", table["policy"]) if "policy" in table else None,
        routes={name: _policy(f"routes.{name!r}", rule) for name, rule in _table(table, "routes").items()},
        budgets=tuple(_budget(f"budgets, number {number}", each) for number, each in enumerate(budgets, 1)),
        **{name: table[name] for name in ("min_confidence", "learn_after") if name in table},
    )


def _ladder(table: Mapping[str, Any]) -> Ladder:
    rungs, labels = _table(table, "ladder"), _table(table, "labels")
    if not rungs:
        return Ladder(*DEFAULT_LADDER, labels=labels) if labels else DEFAULT_LADDER
    tiers = []
    for name, model in rungs.items():
        if not isinstance(model, str):
            raise ConfigurationError(f'ladder.{name} is {model!r:.60}; write {name} = "claude-…"')
        tiers.append(Tier(name, model))
    return Ladder(*tiers, labels=labels)


def _policy(where: str, rule: object) -> Policy:
    if not isinstance(rule, dict):
        raise ConfigurationError(f"{where} is {rule!r:.60}; write a table, such as [{where}] and floor = …")
    _check_keys(f"{where}.", rule, _POLICY)
    try:
        return Policy(**{**rule, **({"escalate": _escalate(rule["escalate"])} if "escalate" in rule else {})})
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _escalate(rule: object) -> bool | Assumed:
    if isinstance(rule, bool):
        return rule
    if not isinstance(rule, dict):
        raise ConfigurationError(
            f"escalate is {rule!r:.60}; write true, false or {{ noticed = 0.7, false_alarms = 0.1 }}"
        )
    _check_keys("escalate.", rule, _RATES)
    return Assumed(**rule)


def _budget(where: str, budget: object) -> Budget:
    if not isinstance(budget, dict) or "amount" not in budget:
        raise ConfigurationError(f'{where}: write [[budgets]] and amount = "$5/day"')
    _check_keys(f"{where}: ", budget, _BUDGET)
    # TOML has no null: false is how a threshold is left out.
    fields: dict[str, Any] = {
        name: None if value is False and name.endswith("_at") else value for name, value in budget.items()
    }
    for name, kind in (("amount", str), ("name", str), ("timezone", str), ("hard", bool)):
        if name in fields and not isinstance(fields[name], kind):
            raise ConfigurationError(f"{where}: {name} is {fields[name]!r:.60}, which is no {kind.__name__}")
    try:
        return Budget(**fields)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _table(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"{name} is {found!r:.60}; write a table: [{name}]")
    return found


def _check_keys(where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = [f"{where}{name}" for name in table if name not in known]
    if unknown:
        raise ConfigurationError(f"{', '.join(unknown)} cannot be simulated; there are {', '.join(known)}")
