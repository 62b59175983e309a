"""From a table that has the form of a configuration to ladders, policies and budgets, each error with its key."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tierline.budgets import Budget, check_budgets
from tierline.configuration.checking import Problem
from tierline.configuration.keys import MIDDLEWARE, ROUTER
from tierline.errors import ConfigurationError
from tierline.escalation.rules import Escalate
from tierline.ladder import DEFAULT_LADDER, Ladder, Tier
from tierline.policies import Policy
from tierline.routes import RouteTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tierline.configuration.lines import Path


class Built(NamedTuple):
    """Arguments of a Router and of the middleware, and what was wrong on the way."""

    options: dict[str, Any]
    middleware: dict[str, Any]
    problems: tuple[Problem, ...]


def built(table: Mapping[str, Any]) -> Built:
    """What a table says, where `problems_of` it finds nothing."""
    problems: list[Problem] = []

    def made(path: Path, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ConfigurationError as error:
            problems.append(Problem(culprit(table, path, str(error)), f"{error}"))
            return None

    options = {key.name: table[key.name] for key in ROUTER if key.name in table}
    ladder = made(("ladder",), lambda: _ladder(table)) or DEFAULT_LADDER
    if "ladder" in table or "labels" in table:
        options["ladder"] = ladder
    if "legality" in table:
        options["legality"] = table["legality"]
    policies: dict[Path, Any] = {("policy",): table["policy"]} if "policy" in table else {}
    policies |= {("routes", pattern): rule for pattern, rule in table.get("routes", {}).items()}
    rules: dict[Path, Policy] = {}
    for path, rule in policies.items():
        found = made(path, partial(_policy, path, rule, ladder))
        if found is not None:
            rules[path] = found
    if ("policy",) in rules:
        options["policy"] = rules[("policy",)]
    budgets = [made(("budgets", place), partial(_budget, each)) for place, each in enumerate(table.get("budgets", []))]
    if "budgets" in table:
        options["budgets"] = [budget for budget in budgets if budget is not None]
        everywhere = [*options["budgets"], *(budget for rule in rules.values() for budget in rule.budgets)]
        made(("budgets",), lambda: check_budgets(everywhere))
    middleware = {
        key.name: table["middleware"][key.name] for key in MIDDLEWARE if key.name in table.get("middleware", {})
    }
    routes = {str(path[1]): rule for path, rule in rules.items() if len(path) > 1}
    if routes:
        middleware["routes"] = routes
        made(("routes",), lambda: RouteTable(routes, ladder))
    return Built(options, middleware, tuple(problems))


def _ladder(table: Mapping[str, Any]) -> Ladder:
    labels = table.get("labels") or None
    rungs = [
        Tier(name, each) if isinstance(each, str) else Tier(name, **each)
        for name, each in table.get("ladder", {}).items()
    ]
    return Ladder(*(rungs or DEFAULT_LADDER), labels=labels)


def _policy(path: Path, rule: Mapping[str, Any], ladder: Ladder) -> Policy:
    fields: dict[str, Any] = dict(rule)
    if isinstance(fields.get("escalate"), dict):
        fields["escalate"] = Escalate(**fields["escalate"])
    if "budgets" in fields:
        fields["budgets"] = [_budget(each) for each in fields["budgets"]]
    found = Policy(**fields)
    found.check(ladder, ".".join(map(str, path)))
    return found


def _budget(table: Mapping[str, Any]) -> Budget:
    # TOML has no null: false is how a threshold is left out.
    fields: dict[str, Any] = {
        name: None if value is False and name.endswith("_at") else value for name, value in table.items()
    }
    return Budget(**fields)


def culprit(table: Mapping[str, Any], path: Path, said: str) -> Path:
    """The key that an error speaks of: the one whose name it has, or whose value it quotes; else the whole table."""
    here: Any = table
    for step in path:
        here = here.get(step, {}) if isinstance(here, dict) else here[int(step)]
    fields = here if isinstance(here, dict) else {}
    named = [name for name in fields if f"{name}=" in said]
    quoted = [name for name, value in fields.items() if isinstance(value, str) and repr(value) in said]
    return next(((*path, name) for name in (*named, *quoted)), path)
