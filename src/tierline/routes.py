"""Which route runs, told from the scope when Claude is called, and the table of policies by route.

No framework is imported: what FastAPI, Starlette and Litestar leave in the scope is read as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tierline.errors import ConfigurationError
from tierline.policies import Policy, marks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tierline.budgets import Scope
    from tierline.ladder import Ladder

LONGEST_PATH: Final = 1_000
"""Most characters of a raw path that are matched against patterns: a longer one gets the strictest floor."""
DEEPEST_MOUNT: Final = 20
"""Most mounts in each other that are looked into: apps may be mounted in a circle."""
_PARAMETER: Final = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True, slots=True)
class Route:
    """A route's template as the framework gives it; `mounted` is the part before it, in actual values."""

    mounted: str
    template: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    mount: str = ""
    """The template of what is `mounted`, where the app tells it."""

    @property
    def name(self) -> str:
        """The whole template, for accounts, traces and reports.

        What a client wrote in the path of a mount is no part of it, or everybody could have an account of their own.
        """
        if not self.mounted or self.mount:
            return f"{self.mount}{self.template}"
        # A mount may have a parameter of the same name as the route: only without any its path is the app's own.
        return f"/{{mount}}{self.template}" if self.parameters else f"{self.mounted}{self.template}"

    @property
    def segments(self) -> tuple[tuple[str, ...], int]:
        """The parts between slashes, and how many of them are the mount's: a parameter's value is one of them."""
        mounted = self.mounted
        for name, value in self.parameters.items():
            # One of the template stands behind the mount: what a client writes there changes nothing of it. And what
            # stands before the value may read like it.
            if "/" in (text := str(value)) and f"{{{name}}}" not in self.template:
                head, found, tail = mounted.rpartition(f"/{text}")
                mounted = f"{head}/{{}}{tail}" if found else mounted
        before = _segments(mounted)
        return (*before, *_segments(self.template)), len(before)


def route_of(scope: Scope, app: object = None) -> Route | None:
    """The route that handles this request, or None where it cannot be told. `app` is the outermost one, if known."""
    mounted, parameters = _mounted(scope)
    mount = (mount_of(app, mounted) or "") if mounted else ""
    if "litestar_app" in scope:
        template = scope.get("path_template")
        if template is None or getattr(scope.get("route_handler"), "is_mount", False):
            # A mount cuts the path for what runs below, and has no template of its own.
            return None
        return Route(mounted, template, parameters, mount)
    route, endpoint = scope.get("route"), scope.get("endpoint")
    fastapi = scope.get("fastapi")
    effective = fastapi.get("effective_route_context") if isinstance(fastapi, dict) else None
    # It goes stale below a mount, where another route has taken its place.
    if effective is not None and route is not None and getattr(effective, "original_route", None) is route:
        return Route(mounted, effective.path_format, parameters, mount)
    if route is not None and endpoint is not None and getattr(route, "endpoint", None) is endpoint:
        return Route(mounted, getattr(route, "path_format", None) or route.path, parameters, mount)
    if endpoint is not None:
        # Plain Starlette routes leave no `route` on some releases: find the one that owns the endpoint.
        found = {
            candidate.path_format
            for candidate in _routes_within(scope.get("router"))
            if getattr(candidate, "endpoint", None) is endpoint and hasattr(candidate, "path_format")
        }
        if len(found) == 1:
            return Route(mounted, found.pop(), parameters, mount)
    return None


def mount_of(app: object, path: str, depth: int = 0) -> str | None:
    """The template of the mounts of an app that a path leads through, as routing takes them: the first that match."""
    direct = getattr(app, "app", None)
    # A mount may be mounted itself, and not in a router.
    inside: Iterable[Any] = (direct,) if hasattr(direct, "path_regex") else getattr(app, "routes", None) or ()
    for route in inside:
        if not hasattr(route, "app") or hasattr(route, "endpoint") or depth > DEEPEST_MOUNT:
            continue
        if (pattern := getattr(route, "path_regex", None)) is None:  # of a host
            if (inner := mount_of(route, path, depth + 1)) is not None:
                return inner
            continue
        if (found := pattern.match(f"{path}/")) is None:
            continue
        template = str(route.path_format).removesuffix("/{path}")
        rest = f"/{found['path']}".rstrip("/")
        inner = mount_of(route, rest, depth + 1) if rest else ""
        if inner is not None:
            return template + inner
    return None


def outermost(app: object) -> object:
    """The app with routes in this one: itself, or what its middlewares are around."""
    for _ in range(DEEPEST_MOUNT):
        if app is None or getattr(app, "routes", None):
            return app
        app = getattr(app, "app", None)
    return None


def _routes_within(router: object, depth: int = 0) -> Iterator[Any]:
    """The routes of a router, and of what is mounted in it."""
    for route in getattr(router, "routes", None) or ():
        yield route
        if depth < DEEPEST_MOUNT:
            yield from _routes_within(route, depth + 1)


def segments_before(scope: Scope) -> int:
    """How many segments of the path stand before an app that is called with this scope: those of the mounts around."""
    mounted, parameters = _mounted(scope)
    return Route(mounted, "", parameters).segments[1] if mounted else 0


def _mounted(scope: Scope) -> tuple[str, Mapping[str, Any]]:
    root = scope.get("root_path", "")
    # Only mounts leave `app_root_path`: without one, the root path is the server's, and no part of any template.
    return root.removeprefix(scope.get("app_root_path", root)), scope.get("path_params", {})


class RouteTable:
    """Policies by route: `{"/checkout/*": policy(floor="sonnet")}`.

    A pattern is a route's template with all its prefixes, as written in the app. `{name}` stands for any
    parameter (its name and type do not matter) or for one segment of a mount's path; a final `*` is the rest,
    none included; a `*` before that is one segment. All patterns that match hold together.
    """

    __slots__ = ("_generous", "_narrowest", "_rows", "_strictest")

    def __init__(self, rules: Mapping[str, Policy], ladder: Ladder) -> None:
        self._rows: list[tuple[str, tuple[str, ...], Policy]] = []
        self._generous: list[tuple[re.Pattern[str], Policy]] = []
        for pattern, rule in rules.items():
            if not isinstance(pattern, str) or not pattern.startswith("/"):
                raise ConfigurationError(f"routes: a pattern begins with '/', got {pattern!r}")
            if any("*" in part and part != "*" for part in _segments(pattern)):
                raise ConfigurationError(f"routes[{pattern!r}]: a '*' stands alone between slashes")
            if not isinstance(rule, Policy):
                raise ConfigurationError(f"routes[{pattern!r}] must be a policy(…), got {type(rule).__name__}")
            rule.check(ladder, f"routes[{pattern!r}]")
            self._rows.append((pattern, _segments(pattern), rule))
            self._generous.append((_generously(pattern), rule))
        self._strictest, self._narrowest = _strictest([rule for *_, rule in self._rows], ladder)

    def matching(self, route: Route, before: int = 0) -> Iterator[tuple[str, Policy]]:
        """The patterns that match a route, each with its policy: see `policies_for`."""
        actual, mounted = route.segments
        ways = [(actual, mounted)]
        if 0 < before <= mounted:
            ways.append((actual[before:], mounted - before))
        return ((pattern, rule) for pattern, row, rule in self._rows if any(_matches(row, *way) for way in ways))

    def policies_for(
        self, scope: Scope | None, route: Route | None, before: int = 0, entered: str = ""
    ) -> tuple[Policy, ...]:
        """The policies of the table that hold for this request, whose path was `entered` when it came in.

        A middleware below a mount has `before` segments of the path before it. Its patterns match with them and
        without: an app keeps its floors wherever it is mounted.
        """
        if not self._rows:
            return ()
        if route is not None:
            return tuple(rule for _, rule in self.matching(route, before))
        if scope is None:
            return ()
        if "app" in scope or "router" in scope:
            # A framework ran and yet hides its route: no floor and no budget of the table may be lost.
            return (self._strictest,)
        path, root = str(scope.get("path", "")) or "/", str(scope.get("root_path", ""))
        # A mount may have cut the path that came in.
        found = {path, entered or path}
        if any(len(candidate) > LONGEST_PATH or not candidate.startswith("/") for candidate in found):
            # Somebody wrote this path (`GET http://…` among them): it must not be a way around what the table says.
            return (self._narrowest,)
        # Some servers leave their root path in front, some do not.
        found |= {f"/{candidate.removeprefix(root)}" for candidate in found}
        paths = {re.sub(r"/+", "/", candidate) for candidate in found}
        return tuple(rule for pattern, rule in self._generous if any(map(pattern.fullmatch, paths)))


def _strictest(rules: list[Policy], ladder: Ladder) -> tuple[Policy, Policy]:
    """The highest floor and all budgets of a table; and the same with its lowest ceiling and `max_tokens`."""

    def place(name: str) -> int:
        return ladder.index(name, "routes")

    floors = [name for rule in rules for name in (rule.floor, rule.tier) if name]
    ceilings = [rule.ceiling for rule in rules if rule.ceiling]
    floor = max(floors, key=place, default=None)
    budgets = tuple(dict.fromkeys(budget for rule in rules for budget in rule.budgets))
    limits = [rule.max_tokens for rule in rules if rule.max_tokens is not None]
    ceiling = min(ceilings, key=place, default=None)
    narrowest = Policy(floor=floor, ceiling=ceiling, max_tokens=min(limits, default=None), budgets=budgets)
    return Policy(floor=floor, budgets=budgets), narrowest


def _segments(pattern: str) -> tuple[str, ...]:
    """The parts between slashes, with every `{parameter}` as `{}`."""
    return tuple(_PARAMETER.sub("{}", part) for part in pattern.strip("/").split("/") if part)


def _matches(pattern: tuple[str, ...], actual: tuple[str, ...], mounted: int) -> bool:
    for place, part in enumerate(pattern):
        if part == "*" and place == len(pattern) - 1:
            return True
        if place >= len(actual):
            return False
        if part == "*" or part == actual[place] or (part == "{}" and place < mounted):
            continue
        return False
    return len(pattern) == len(actual)


def _generously(pattern: str) -> re.Pattern[str]:
    """A pattern for raw paths, where no framework told the template: rather too much than too little.

    What a wildcard stands for ends where the text behind it is first found, and no other place is tried (`(?>…)`): if
    any fits, that one does. With all of them tried, a path of many short segments would take hours.
    """
    segments = _segments(pattern)
    rest = segments[-1:] == ("*",)
    fixed, wild = [""], []
    for part in segments[:-1] if rest else segments:
        head, *tail = [""] * 2 if part == "*" else re.escape(f"/{part}").split(r"\{\}")
        fixed[-1] += head
        for text in tail:
            wild.append(".*" if part == "*" else ".+")
            fixed.append(text)
    # Only behind the last wildcard all places are tried: there the end of the path decides.
    body = fixed[0] + "".join(f"(?>{any_}?{text})" for any_, text in zip(wild[:-1], fixed[1:-1], strict=True))
    body += "".join(wild[-1:] + fixed[1:][-1:])
    return re.compile(f"{body}{'(?:/.*)?' if rest else ''}/?", re.IGNORECASE | re.DOTALL)


def policies_in(app: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Policy]]:
    """Every policy that is written in an app's routes, with its place: decorators and dependencies.

    For the check at start-up; what cannot be seen here is checked when it is met.
    """
    if depth > DEEPEST_MOUNT:
        return
    for dependency in _dependencies(app):
        yield f"dependencies of {prefix or 'the app'}", dependency
    for route in getattr(app, "routes", None) or ():
        place = f"{prefix}{getattr(route, 'path', '')}"
        for rule in marks_of(getattr(route, "endpoint", None)):
            yield f"endpoint of {place}", rule
        for rule in _dependencies(route):
            yield f"dependencies of {place}", rule
        for inner in (getattr(route, "app", None), getattr(route, "original_router", None)):
            if inner is not None and getattr(inner, "routes", None):
                yield from policies_in(inner, place, depth + 1)


def _dependencies(owner: Any) -> Iterator[Policy]:
    """The policies among the dependencies of an app, a router or a route, and among those that these depend on."""
    places = (owner, getattr(owner, "router", None), getattr(owner, "include_context", None))
    open_ends = [item for place in places for item in getattr(place, "dependencies", None) or ()]
    open_ends += getattr(getattr(owner, "dependant", None), "dependencies", None) or ()
    seen: dict[Policy, None] = {}
    while open_ends:
        item = open_ends.pop()
        rule = getattr(item, "dependency", None) or getattr(item, "call", None)
        if rule is Policy:
            raise ConfigurationError("Depends(policy) has nothing to allow: write Depends(policy(floor=…))")
        if isinstance(rule, Policy):
            seen[rule] = None
        open_ends += getattr(item, "dependencies", None) or ()
    yield from seen
