"""`tierline routes`: what holds on every route of an app, and where that is written."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tierline.cli.loading import Factory, loaded
from tierline.cli.stores import plain_text
from tierline.cli.survey import survey
from tierline.errors import ConfigurationError
from tierline.policies import Policy
from tierline.routes import Route, RouteTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tierline.budgets import Budget
    from tierline.cli.survey import Survey, Surveyed
    from tierline.router import Router

_LONGEST_ROUTE: Final = 34
"""Characters of a route; a longer one has several lines."""


def routes(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, from where it starts: main:app.")],
    factory: Factory = False,
    require_floor: Annotated[
        str, typer.Option(metavar="TIER", help="Exit with 1 where a route has no floor, or one below this tier.")
    ] = "",
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Leave out routes like /health or /operator/*. May be given again."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON.")] = False,
) -> None:
    """Show every route of an app with the floor, the ceiling and the budgets that hold on it, and why.

    The app is imported, and not started.
    What a `with policy(…)` block narrows is not seen: it is known when it runs.
    """
    found = survey(loaded("routes", app, factory=factory))
    if not found.routers:
        raise ConfigurationError(
            f"{app} has no TierlineMiddleware: write app.add_middleware(TierlineMiddleware, router=…)"
        )
    rows = [each for each in found.routes if not _matches(ignore or [], each, found)]
    low = [each for each in rows if require_floor and _is_low(each, require_floor, found.routers)]
    console = Console()
    if as_json:
        told = {"routes": [_as_json(each, found) for each in rows], "left_out": found.left_out}
        told |= {"without_floor": [_name(each) for each in low]} if require_floor else {}
        console.file.write(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    else:
        _show(console, app, rows, found)
    if low:
        names = "".join(f"\n  {plain_text(_name(each))}" for each in low)
        many = f"{len(low)} route{'' if len(low) == 1 else 's'}"
        typer.echo(f"{many} without a floor of {require_floor} or above:{names}", err=True)
        raise typer.Exit(1)


def _matches(patterns: Sequence[str], each: Surveyed, found: Survey) -> bool:
    if not patterns:
        return False
    table = RouteTable(dict.fromkeys(patterns, Policy()), found.routers[0].ladder)
    return any(table.matching(Route("", each.path)))


def _is_low(each: Surveyed, tier: str, routers: Sequence[Router[Any]]) -> bool:
    """Whether no floor of that tier is written for a route. ConfigurationError for one that is not on its ladder."""
    place = (each.router or routers[0]).ladder.index(tier, "--require-floor")
    policy = each.policy
    return policy is None or not (policy.floored or policy.pinned) or policy.floor < place


def _name(each: Surveyed) -> str:
    return f"{' '.join(each.methods)} {each.path}"


def _show(console: Console, app: str, rows: Sequence[Surveyed], found: Survey) -> None:
    table = Table(
        title=f"{len(rows)} route{'' if len(rows) == 1 else 's'} of {plain_text(app)}",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("route", overflow="fold", max_width=_LONGEST_ROUTE)
    table.add_column("floor", no_wrap=True)
    table.add_column("ceiling", no_wrap=True)
    table.add_column("what is written, and where", overflow="fold")
    for each in rows:
        place = found.routers.index(each.router) if each.router is not None else 0
        of = f" (Router {place + 1})" if place else ""
        route = Text(plain_text(f"{_name(each)}{of}"))
        policy = each.policy
        if each.router is None or policy is None:
            table.add_row(route, "-", "-", Text("no TierlineMiddleware is around it", style="yellow"))
            continue
        ladder = each.router.ladder
        floor = Text(ladder[policy.floor].name, style="" if policy.floored or policy.pinned else "dim")
        ceiling = Text(ladder[policy.ceiling].name, style="" if policy.capped or policy.pinned else "dim")
        lines = [Text(plain_text(line)) for line in (*_written(each), *policy.reasons)]
        table.add_row(
            route, floor, ceiling, Text("\n").join(lines) if lines else Text("nothing: defaults", style="dim")
        )
    console.print(table)
    for line in _budgets(found.routers):
        console.print(plain_text(line), markup=False, highlight=False)
    if found.left_out:
        console.print(
            f"{found.left_out} routes of the frameworks' own, such as documentation, are left out", style="dim"
        )


def _written(each: Surveyed) -> Iterator[str]:
    for one in each.written:
        at = f", {one.at}" if one.at else ""
        yield f"{in_words(one.policy)} ({one.by}{at})"


def _budgets(routers: Sequence[Router[Any]]) -> Iterator[str]:
    for place, router in enumerate(routers):
        of = f" of Router {place + 1}" if len(routers) > 1 else ""
        told = "; ".join(budget_in_words(budget) for budget in router.budgets)
        yield f"Every call{of} is charged to: {told}" if told else f"No budget{of} holds on all routes"


def in_words(policy: Policy) -> str:
    """What a policy says, in a line."""
    told = []
    for name, value in _said(policy).items():
        if value is True:
            told.append(name)
        elif name == "budgets":
            told.append(f"budget {', '.join(budget_in_words(budget) for budget in policy.budgets)}")
        elif name == "tags":
            told.append(f"tags {', '.join(f'{key}={text}' for key, text in value)}")
        else:
            told.append(f"{name} {value!r}" if name == "task" else f"{name} {_plain(value)}")
    return ", ".join(told) or "nothing"


def budget_in_words(budget: Budget) -> str:
    """A budget, in a line: `plan, by account for each tenant`."""
    amount = "by account" if callable(budget.amount) else budget.amount
    whose = "" if budget.per is None else f" for each {_per(budget)}"
    name = "" if budget.name.startswith(amount) else f"{budget.name}: "
    return f"{name}{amount}{whose}{'' if budget.hard else ' (soft)'}"


def _per(budget: Budget) -> str:
    return budget.per if isinstance(budget.per, str) else f"{getattr(budget.per, '__name__', 'account')}(scope)"


def _said(policy: Policy) -> dict[str, Any]:
    """The fields of a policy that say something."""
    found = {each.name: getattr(policy, each.name) for each in fields(policy)}
    return {
        name: value
        for name, value in found.items()
        if value not in (None, (), "") and (name, value) != ("critical", False)
    }


def _plain(value: object) -> Any:
    """A value as JSON has it: a classifier by its name, what else is no text or number as it is written."""
    if isinstance(value, (str, bool, int, float)):
        return value
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else repr(value)


def _as_json(each: Surveyed, found: Survey) -> dict[str, Any]:
    head: dict[str, Any] = {"route": each.path, "methods": list(each.methods), "endpoint": each.at}
    policy = each.policy
    if each.router is None or policy is None:
        return head | {"router": None, "floor": None, "ceiling": None, "policies": [], "budgets": [], "reasons": []}
    ladder = each.router.ladder
    return head | {
        "router": found.routers.index(each.router) + 1,
        "floor": ladder[policy.floor].name,
        "floor_is_default": not (policy.floored or policy.pinned),
        "ceiling": ladder[policy.ceiling].name,
        "ceiling_is_default": not (policy.capped or policy.pinned),
        "pinned": policy.pinned,
        "critical": policy.critical,
        "policies": [{"policy": _policy_as_json(one.policy), "by": one.by, "at": one.at} for one in each.written],
        "budgets": [budget_as_json(budget) | {"by": by} for budget, by in each.budgets],
        "reasons": list(policy.reasons),
    }


def _policy_as_json(policy: Policy) -> dict[str, Any]:
    said = {name: _plain(value) for name, value in _said(policy).items() if name not in ("budgets", "tags")}
    if policy.tags:
        said["tags"] = dict(policy.tags)
    if policy.budgets:
        said["budgets"] = [budget.name for budget in policy.budgets]
    return said


def budget_as_json(budget: Budget) -> dict[str, Any]:
    """A budget as it is written; `amount` is None where the app has a function for it."""
    amount = None if callable(budget.amount) else budget.amount
    per = None if budget.per is None else _per(budget)
    return {"name": budget.name, "amount": amount, "per": per, "hard": budget.hard}
