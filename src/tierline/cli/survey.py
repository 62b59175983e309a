"""Every route of an app, and what is written for it: in the Router, in middlewares, dependencies and decorators.

What `with policy(…)` blocks narrow is not in it: it is known when they run.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tierline.cli.loading import middlewares_of, shown_path
from tierline.errors import ConfigurationError
from tierline.policies import Policy, combine, marks_of
from tierline.routes import DEEPEST_MOUNT, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tierline.asgi import TierlineMiddleware
    from tierline.budgets import Budget
    from tierline.policies import Effective
    from tierline.router import Router

_FRAMEWORKS: Final = ("fastapi", "starlette", "tierline")
"""Packages whose own endpoints, such as a page of documentation, call no Claude for the app."""
_VERBS: Final = ("get", "post", "put", "patch", "delete", "head", "options")
_HIDDEN: Final = {"app": True}
"""A scope of a framework that does not tell its route."""


@dataclass(frozen=True)
class Written:
    """A policy, and where it is written.

    `by` is what it is written with, such as `decorator`; `at` is a file and a line, empty where none is known.
    """

    policy: Policy
    by: str
    at: str = ""


@dataclass(frozen=True)
class Surveyed:
    """A route: `methods` are those of HTTP, or `WEBSOCKET`, or `MOUNT` for an app whose routes cannot be seen.

    `router` is None where no TierlineMiddleware is around it: nothing of Tierline holds there. `written` is in the
    order in which it is combined. `at` is where its endpoint is.
    """

    path: str
    methods: tuple[str, ...]
    at: str
    router: Router[Any] | None
    written: tuple[Written, ...] = ()

    @property
    def policy(self) -> Effective | None:
        """All of it as one. ConfigurationError for tiers that are not on the ladder."""
        if self.router is None:
            return None
        return combine([each.policy for each in self.written], self.router.ladder)

    @property
    def budgets(self) -> tuple[tuple[Budget, str], ...]:
        """What calls here are charged to, each with where it is written."""
        if self.router is None:
            return ()
        found = dict.fromkeys(self.router.budgets, "Router(budgets=…)")
        for each in self.written:
            for budget in each.policy.budgets:
                found.setdefault(budget, each.by)
        return tuple(found.items())


@dataclass(frozen=True)
class Survey:
    """The routes of an app, in its order, and how many of the frameworks' own were left out."""

    routes: tuple[Surveyed, ...]
    left_out: int

    @property
    def routers(self) -> tuple[Router[Any], ...]:
        """Every Router that is around one."""
        return tuple(dict.fromkeys(each.router for each in self.routes if each.router is not None))


def survey(app: object) -> Survey:
    """Every route of a Starlette or FastAPI app, or of what is wrapped around one.

    ConfigurationError for an app of another kind: its routes cannot be seen.
    """
    found = list(_walk(app, "", (), {}, 0))
    if not found:
        raise ConfigurationError(
            f"the routes of {type(app).__name__} cannot be seen: only those of Starlette and FastAPI can"
        )
    kept = tuple(each for each, own in found if not own)
    return Survey(kept, len(found) - len(kept))


def _walk(
    app: Any,
    mount: str,
    around: tuple[tuple[TierlineMiddleware, int], ...],
    outer: dict[Policy, str],
    depth: int,
) -> Iterator[tuple[Surveyed, bool]]:
    """The routes of an app that is mounted at `mount`, each with whether it is a framework's own.

    `around` are the middlewares, each with how many segments of the path stand before it; `outer` are policies that
    are written for many routes at once, and where.
    """
    if depth > DEEPEST_MOUNT:
        return
    before = Route(mount, "").segments[1]
    around = (*around, *((each, before) for each in middlewares_of(app)))
    inner = _innermost(app)
    outer = _of_all(getattr(inner, "router", inner), "dependency of the app") | outer
    for route in getattr(inner, "routes", None) or ():
        yield from _of_route(route, mount, around, outer, depth)


def _of_route(
    route: Any, mount: str, around: tuple[tuple[TierlineMiddleware, int], ...], outer: dict[Policy, str], depth: int
) -> Iterator[tuple[Surveyed, bool]]:
    candidates = getattr(route, "effective_candidates", None)
    if candidates is not None:  # a router that FastAPI has included, and not copied
        by = "dependency of a router"
        told = _of_all(route.original_router, by) | _of_all(getattr(route, "include_context", None), by) | outer
        for each in candidates():
            yield from _of_route(getattr(each, "starlette_route", None) or each, mount, around, told, depth)
        return
    endpoint = getattr(route, "endpoint", None)
    here = (*around, *((each, Route(mount, "").segments[1]) for each in middlewares_of(getattr(route, "app", None))))
    if endpoint is not None:
        template = str(getattr(route, "path_format", "") or getattr(route, "path", ""))
        for methods, marks in _ways(route, endpoint):
            for router in _routers(here):
                written = tuple(_written(Route(mount, template), here, router, _run_by(route), marks, outer, endpoint))
                yield Surveyed(f"{mount}{template}", methods, place_of(endpoint), router, written), _is_own(endpoint)
        return
    inner = getattr(route, "app", None)
    if inner is None:
        return
    prefix = str(getattr(route, "path_format", "")).removesuffix("/{path}")
    within = list(_walk(inner, f"{mount}{prefix}", around, outer, depth + 1))
    if within:
        yield from within
        return
    for router in _routers(here):
        written = tuple(_hidden(here, router))
        yield Surveyed(f"{mount}{prefix}/*", ("MOUNT",), place_of(inner), router, written), _is_own(inner)


def _innermost(app: Any) -> Any:
    """The app with routes inside of what is wrapped around it."""
    for _ in range(DEEPEST_MOUNT):
        if app is None or getattr(app, "routes", None):
            return app
        app = getattr(app, "app", None)
    return None


def _routers(around: Iterable[tuple[TierlineMiddleware, int]]) -> tuple[Router[Any] | None, ...]:
    """The Routers around a route: calls may go through each of them."""
    return tuple(dict.fromkeys(each.router for each, _ in around)) or (None,)


def _written(
    route: Route,
    around: Iterable[tuple[TierlineMiddleware, int]],
    router: Router[Any] | None,
    dependencies: Iterable[Policy],
    marks: Iterable[Policy],
    outer: dict[Policy, str],
    endpoint: object,
) -> Iterator[Written]:
    """What is written for a route, in the order in which `Rules` combines it."""
    if router is None:
        return
    if router.policy is not None:
        yield Written(router.policy, "Router(policy=…)")
    for each, before in around:
        if each.router is router:
            for pattern, rule in each.routes.matching(route, before):
                yield Written(rule, f"middleware, routes[{pattern!r}]")
    at = place_of(endpoint)
    for rule in dict.fromkeys(dependencies):
        by = outer.get(rule)
        yield Written(rule, by or "dependency", "" if by else at)
    for rule in marks:
        yield Written(rule, "decorator", at)


def _hidden(around: Iterable[tuple[TierlineMiddleware, int]], router: Router[Any] | None) -> Iterator[Written]:
    """What is known to hold for an app that does not tell its routes."""
    if router is None:
        return
    if router.policy is not None:
        yield Written(router.policy, "Router(policy=…)")
    for each, _ in around:
        if each.router is router:
            for rule in each.routes.policies_for(_HIDDEN, None):
                if rule != Policy():
                    yield Written(rule, "middleware, the strictest of its routes")


def _of_all(owner: Any, by: str) -> dict[Policy, str]:
    """The policies among the dependencies of an app or a router."""
    rules = (getattr(each, "dependency", None) for each in getattr(owner, "dependencies", None) or ())
    return {rule: by for rule in rules if isinstance(rule, Policy)}


def _run_by(route: Any) -> Iterator[Policy]:
    """The policies among the dependencies of a route, and of those that these depend on, as FastAPI runs them."""
    open_ends = list(reversed(getattr(getattr(route, "dependant", None), "dependencies", None) or ()))
    found: list[Policy] = []
    seen: set[int] = set()
    while open_ends:
        each = open_ends[-1]
        if id(each) not in seen:  # what it depends on runs first
            seen.add(id(each))
            open_ends += reversed(getattr(each, "dependencies", None) or ())
            continue
        open_ends.pop()
        if isinstance(rule := getattr(each, "call", None), Policy):
            found.append(rule)
    yield from found


def _ways(route: Any, endpoint: Any) -> Iterator[tuple[tuple[str, ...], tuple[Policy, ...]]]:
    """The methods of a route, those together that have the same marks; a class may have a mark on each of its own."""
    marks = marks_of(endpoint)
    if not hasattr(route, "methods"):
        inside = marks_of(getattr(endpoint, "on_receive", None)) if inspect.isclass(endpoint) else ()
        yield ("WEBSOCKET",), (*marks, *inside)
        return
    if route.methods:
        yield tuple(sorted(route.methods - {"HEAD"} or route.methods)), marks
        return
    verbs = [verb for verb in _VERBS if inspect.isclass(endpoint) and hasattr(endpoint, verb)]
    if not verbs:
        yield ("ANY",), marks
    by_marks: dict[tuple[Policy, ...], list[str]] = {}
    for verb in verbs:
        by_marks.setdefault((*marks, *marks_of(getattr(endpoint, verb))), []).append(verb.upper())
    for each, names in by_marks.items():
        yield tuple(names), each


def _is_own(endpoint: object) -> bool:
    return str(getattr(_code_of(endpoint), "__module__", "")).partition(".")[0] in _FRAMEWORKS


def place_of(endpoint: object) -> str:
    """The file and the line of an endpoint, as it is written from here; empty where that cannot be told."""
    code = _code_of(endpoint)
    try:
        file = inspect.getsourcefile(code)
        line = code.__code__.co_firstlineno if hasattr(code, "__code__") else inspect.getsourcelines(code)[1]
    except (TypeError, OSError):
        return ""
    return f"{shown_path(file)}:{line}" if file else ""


def _code_of(endpoint: Any) -> Any:
    """The function or the class that an endpoint is made of."""
    for _ in range(DEEPEST_MOUNT):
        inner = endpoint.func if isinstance(endpoint, partial) else getattr(endpoint, "__wrapped__", None)
        if inner is None:
            break
        endpoint = inner
    return endpoint if inspect.isroutine(endpoint) or inspect.isclass(endpoint) else type(endpoint)
