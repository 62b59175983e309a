from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request  # noqa: TC002  (FastAPI reads annotations)
from starlette.responses import JSONResponse
from starlette.routing import Host, Mount, Router, WebSocketRoute
from starlette.routing import Route as Plain
from starlette.testclient import TestClient

from tierline import Budget, Ladder, Policy, policy
from tierline.errors import ConfigurationError
from tierline.routes import LONGEST_PATH, RouteTable, mount_of, outermost, policies_in, route_of
from tierline.routes import Route as Told

LADDER = Ladder.of(a="m1", b="m2", c="m3")
B, C = policy(floor="b"), policy(floor="c")


def told(scope: Any) -> dict[str, Any]:
    route = route_of(scope, scope.get("outermost"))
    return {"name": route.name if route else None, "mounted": route.mounted if route else None}


async def where(request: Request) -> JSONResponse:
    return JSONResponse(told(request.scope))


class View(HTTPEndpoint):
    async def get(self, request: Request) -> JSONResponse:
        return JSONResponse(told(request.scope))


def known(app: Any) -> Any:
    """The app, for routes that know which one is the outermost: as the middleware lets them."""

    async def around(scope: Any, receive: Any, send: Any) -> None:
        scope["outermost"] = outermost(app)
        await app(scope, receive, send)

    return around


def ask(app: Any, path: str, **options: Any) -> dict[str, Any]:
    root = options.pop("root_path", "")
    answer = TestClient(known(app), root_path=root).get(path, **options)
    assert answer.status_code == 200, (path, answer.status_code, answer.text)
    return answer.json()  # type: ignore[no-any-return]


async def endpoint(request: Request) -> dict[str, Any]:
    return told(request.scope)


def fastapi_app() -> FastAPI:
    inner = APIRouter(prefix="/inner")
    inner.get("/items/{item:int}")(endpoint)
    inner.get("/files/{path:path}")(endpoint)
    middle = APIRouter(prefix="/middle/{team}")
    middle.include_router(inner, prefix="/deep")
    app = FastAPI()
    app.include_router(middle, prefix="/v1")
    app.get("/plain")(endpoint)
    app.get("/{anything}")(endpoint)
    sub = FastAPI()
    sub.get("/plain")(endpoint)
    sub.include_router(inner, prefix="/sub")
    app.mount("/mounted/{tenant}", sub)
    return app


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/plain", "/plain"),
        ("/else", "/{anything}"),
        ("/v1/middle/blue/deep/inner/items/5", "/v1/middle/{team}/deep/inner/items/{item}"),
        ("/v1/middle/blue/deep/inner/files/a/b/c", "/v1/middle/{team}/deep/inner/files/{path}"),
        ("/mounted/acme/plain", "/mounted/{tenant}/plain"),
        ("/mounted/acme/sub/inner/files/mounted", "/mounted/{tenant}/sub/inner/files/{path}"),
        ("/mounted/acme/sub/inner/items/5", "/mounted/{tenant}/sub/inner/items/{item}"),
    ],
)
@pytest.mark.parametrize("root", ["", "/proxy", "/proxy/v2"])
def test_routes_of_fastapi(path: str, name: str, root: str) -> None:
    """The template has every prefix of routers and mounts, and nothing of the server's own root path."""
    assert ask(fastapi_app(), root + path, root_path=root)["name"] == name


def test_the_root_path_of_an_app_is_in_no_template() -> None:
    """`FastAPI(root_path=…)` is what a proxy has taken away: it is no part of a route."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        app = FastAPI(root_path="/proxy")
    app.get("/checkout")(endpoint)
    assert ask(app, "/checkout") == {"name": "/checkout", "mounted": ""}
    assert ask(app, "/proxy/checkout") == {"name": "/checkout", "mounted": ""}


def starlette_app() -> Starlette:
    sub = Router([Plain("/x", where), Plain("/y/{n:int}", View)])
    return Starlette(
        routes=[
            Plain("/x", where),
            Plain("/files/{p:path}", View),
            Mount("/m/{tenant}", app=Mount("/n", app=sub)),
            Mount("/deep", routes=[Mount("/er", routes=[Plain("/x", where)])]),
            Host("api.example.org", app=Router([Plain("/hosted", where)])),
        ]
    )


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x", "/x"),
        ("/files/a/../b", "/files/{p}"),
        ("/m/acme/n/x", "/m/{tenant}/n/x"),
        ("/m/acme/n/y/3", "/m/{tenant}/n/y/{n}"),
        ("/deep/er/x", "/deep/er/x"),
    ],
)
@pytest.mark.parametrize("root", ["", "/proxy"])
def test_routes_of_starlette(path: str, name: str, root: str) -> None:
    """Plain routes, endpoint classes and nested mounts are told, with the parameters of mounts by their names."""
    assert ask(starlette_app(), root + path, root_path=root)["name"] == name


def test_a_host_adds_nothing() -> None:
    """A route below a Host is told by its path."""
    app = starlette_app()
    answer = TestClient(app, base_url="http://api.example.org").get("/hosted")
    assert answer.json()["name"] == "/hosted"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "x/free?"},
        {"host": "x/free#"},
        {"x-forwarded-prefix": "/free", "x-original-url": "/free", "x-forwarded-path": "/free"},
        {"forwarded": "host=free;path=/free"},
    ],
)
def test_headers_say_nothing_about_the_route(headers: dict[str, str]) -> None:
    """Whatever a client writes in its headers, the route that runs is the one that is told."""
    app = Starlette(routes=[Plain("/free", where), Plain("/dear", where, name="d"), Plain("/view", View)])
    assert ask(app, "/view", headers=headers)["name"] == "/view"
    fast = FastAPI()
    fast.get("/free")(endpoint)
    fast.get("/dear/{x}")(endpoint)
    assert ask(fast, "/dear/1", headers=headers)["name"] == "/dear/{x}"


def test_a_websocket_has_a_route() -> None:
    """The route of a WebSocket is told as any other."""

    async def talk(websocket: Any) -> None:
        await websocket.accept()
        await websocket.send_json(told(websocket.scope))
        await websocket.close()

    app = Starlette(routes=[Mount("/ws", routes=[WebSocketRoute("/{room}", talk)])])
    with TestClient(known(app)).websocket_connect("/ws/5") as websocket:
        assert websocket.receive_json() == {"name": "/ws/{room}", "mounted": "/ws"}


@pytest.mark.parametrize(
    ("path", "status", "name"), [("/nowhere", 404, None), ("/x/", 307, None), ("/only", 405, "/only")]
)
def test_no_route_that_could_be_wrong(path: str, status: int, name: str | None) -> None:
    """Where nothing was found or only a slash is missing there is no route; a wrong method has one."""
    seen: list[Any] = []

    class Watch:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)
            if scope["type"] == "http":
                seen.append(told(scope)["name"])
                assert "app" in scope

    app = Starlette(routes=[Plain("/x", where), Plain("/only", where, methods=["POST"])])
    app.add_middleware(Watch)  # type: ignore[arg-type]
    answer = TestClient(app, follow_redirects=False).get(path)
    assert answer.status_code == status
    assert seen in ([name], [None])


def test_a_copied_scope_hides_the_route() -> None:
    """A middleware that hands on a copy leaves the outer scope without a route, and so under the strictest floor."""
    app = Starlette(routes=[Plain("/x", where)])
    scope = {"type": "http", "path": "/x", "root_path": "", "app": app}
    assert route_of(scope) is None
    assert RouteTable({"/x": B, "/y": C}, LADDER).policies_for(scope, None) == (policy(floor="c"),)


def test_a_stale_context_is_not_believed() -> None:
    """What FastAPI left in the scope for another route than the one that runs is passed over."""

    class Left:
        path_format = "/free"
        original_route = object()

    route = Plain("/dear", where)
    scope = {"fastapi": {"effective_route_context": Left()}, "route": route, "endpoint": where, "root_path": ""}
    assert route_of(scope) == Told("", "/dear")
    assert route_of({**scope, "route": object(), "endpoint": object()}) is None
    assert route_of({**scope, "fastapi": None, "endpoint": None}) is None


def test_an_endpoint_is_looked_up_only_where_it_stands_once() -> None:
    """Where no route is left in the scope, one endpoint on two routes tells neither: the floor of either may hold."""
    once = Router([Plain("/a", where), Plain("/b", View)])
    twice = Router([Plain("/free", where), Plain("/dear", where)])
    assert route_of({"router": once, "endpoint": View}) == Told("", "/b")
    assert route_of({"router": once, "endpoint": View, "root_path": "/r/m", "app_root_path": "/r"}) == Told("/m", "/b")
    assert route_of({"router": twice, "endpoint": where}) is None
    assert route_of({"router": once, "endpoint": len}) is None


# The table


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("/a", ["/a"], ["/b", "/a/b", "/"]),
        ("/a/", ["/a"], ["/a/b"]),
        ("/a/*", ["/a", "/a/b", "/a/{x}/c"], ["/ab", "/b/a"]),
        ("/*", ["/", "/a", "/a/{b}"], []),
        ("/a/{x}", ["/a/{y}"], ["/a/b", "/a", "/a/{x}/b"]),
        ("/a/{x:int}", ["/a/{x}"], ["/a/5"]),
        ("/a/{p:path}", ["/a/{p}"], ["/a/b"]),
        ("/a/*/c", ["/a/{x}/c", "/a/b/c"], ["/a/c", "/a/b/d/c"]),
        ("/a/{x}.json", ["/a/{name}.json"], ["/a/{name}.xml"]),
        ("/A", ["/A"], ["/a"]),
    ],
)
def test_patterns_of_templates(pattern: str, matching: list[str], others: list[str]) -> None:
    """A pattern is a template: parameters match parameters by any name, `*` one segment or the rest."""
    table = RouteTable({pattern: B}, LADDER)
    for template in matching:
        assert table.policies_for({"app": 1}, Told("", template)) == (B,), template
    for template in others:
        assert table.policies_for({"app": 1}, Told("", template)) == (), template


@pytest.mark.parametrize(
    ("mounted", "template", "held"),
    [
        ("/t/acme", "/x/{y}", True),
        ("/t/{weird}", "/x/{y}", True),
        ("/t/%2F", "/x/{y}", True),
        ("/t/*", "/x/{y}", True),
        ("/t", "/{y}/x/{z}", True),
        ("/t", "/acme/x/{y}", False),
        ("/s/acme", "/x/{y}", False),
    ],
)
def test_patterns_reach_into_mounts(mounted: str, template: str, held: bool) -> None:
    """In the part of a mount, whose values are actual ones, a parameter stands for any segment."""
    table = RouteTable({"/t/{tenant}/x/{id}": B}, LADDER)
    assert table.policies_for({"app": 1}, Told(mounted, template)) == ((B,) if held else ())


def test_all_that_match_hold() -> None:
    """Several patterns that match hold together, in their order."""
    table = RouteTable({"/a/*": B, "/a/b": C, "/c": policy()}, LADDER)
    assert table.policies_for({"app": 1}, Told("", "/a/b")) == (B, C)


@pytest.mark.parametrize(
    "path",
    [
        "/pay/5", "/pay/5/", "//pay//5", "/PAY/5", "/pay/a/b/c", "/pay/..%2f", "/pay/\n", "/pay/\ud800",
        "/pay/" + "x/" * LONGEST_PATH,
    ],
)  # fmt: skip
def test_raw_paths_cannot_escape(path: str) -> None:
    """Where no framework tells a route, a path is matched rather too often than too rarely."""
    table = RouteTable({"/pay/{order}": B, "/other": policy(floor="a")}, LADDER)
    assert B in table.policies_for({"type": "http", "path": path}, None)


def test_raw_paths_of_a_proxy() -> None:
    """A root path in front of a raw path hides nothing, and what is elsewhere stays free."""
    table = RouteTable({"/pay/*": B}, LADDER)
    for path, root in [("/proxy/pay/5", "/proxy"), ("/pay/5", "/proxy"), ("/pay", ""), ("/pay/5", "/pay")]:
        assert table.policies_for({"path": path, "root_path": root}, None) == (B,), (path, root)
    assert table.policies_for({"path": "/free"}, None) == ()
    assert table.policies_for({"path": "/payroll"}, None) == ()
    assert table.policies_for(None, None) == ()


segments = st.lists(st.sampled_from(["a", "b", "{x}", "{y}"]), max_size=5)


@given(segments, st.lists(st.text("abc/", min_size=1, max_size=5), min_size=6, max_size=6), st.randoms())
def test_the_generous_match_is_never_stricter_than_the_template(parts: list[str], filled: list[str], dice: Any) -> None:
    """Every path that a framework would send to a route is matched by the route's own pattern."""
    pattern = "/" + "/".join(parts)
    words = [
        f"{part[0]}{word.replace('/', '-')}" if part[0] == "{" else part
        for part, word in zip(parts, filled, strict=False)
    ]
    path = "/" + "/".join(word.upper() if dice.random() < 0.2 else word for word in words)
    table = RouteTable({pattern: B}, LADDER)
    assert table.policies_for({"path": path}, None) == (B,)
    assert table.policies_for({"app": 1}, Told("", pattern)) == (B,)


def test_the_strictest_floor() -> None:
    """Where the framework hides its route, the highest floor or pin of the whole table holds."""
    hidden = {"app": object(), "path": "/free"}
    table = RouteTable({"/a": B, "/b": policy(floor="a", tier="c"), "/free": policy()}, LADDER)
    assert table.policies_for(hidden, None) == (policy(floor="c"),)
    assert table.policies_for({"router": 1}, None) == (policy(floor="c"),)
    assert RouteTable({"/a": policy(ceiling="a")}, LADDER).policies_for(hidden, None) == (policy(),)
    assert RouteTable({}, LADDER).policies_for(hidden, None) == ()


@pytest.mark.parametrize(
    ("rules", "culprit"),
    [
        ({"pay": B}, "'pay'"),
        ({5: B}, "5"),
        ({"/pay*": B}, "stands alone"),
        ({"/pay": "b"}, "/pay"),
        ({"/pay": policy(floor="x")}, "'x'"),
        ({"/pay": policy(floor="c", ceiling="a")}, "/pay"),
    ],
)
def test_tables_that_cannot_work(rules: Any, culprit: str) -> None:
    """A row that can never match, or whose policy cannot be, is refused at start-up and named."""
    with pytest.raises(ConfigurationError, match=culprit):
        RouteTable(rules, LADDER)


def test_a_table_over_a_real_app() -> None:
    """Of nested routers, mounts and path parameters, each request gets the floors of its own route."""
    table = RouteTable(
        {
            "/v1/middle/{t}/deep/inner/items/{i:int}": B,
            "/mounted/{tenant}/*": C,
            "/v1/middle/{x}/deep/inner/files/{p:path}": policy(floor="c", tags={"of": "files"}),
        },
        LADDER,
    )
    app = fastapi_app()
    found: list[tuple[Policy, ...]] = []

    async def watch(request: Request) -> None:
        found.append(table.policies_for(request.scope, route_of(request.scope)))

    watched = FastAPI(dependencies=[Depends(watch)])
    watched.include_router(app.router)
    for path, floors in [
        ("/v1/middle/blue/deep/inner/items/5", ["b"]),
        ("/v1/middle/blue/deep/inner/files/a/b/../c", ["c"]),
        ("/plain", []),
    ]:
        found.clear()
        TestClient(watched).get(path)
        assert [[p.floor for p in rules] for rules in found] == [floors], path


def test_policies_in_an_app() -> None:
    """Policies of decorators and dependencies are found wherever they stand, each with its place."""
    rules = {name: policy(task=name) for name in ("app", "router", "route", "mark", "sub", "class")}
    inner = APIRouter(prefix="/in", dependencies=[Depends(rules["router"])])
    inner.get("/x", dependencies=[Depends(rules["route"])])(rules["mark"](endpoint))

    @rules["class"]
    class Marked(View):
        pass

    sub = FastAPI(dependencies=[Depends(rules["sub"])])
    app = FastAPI(dependencies=[Depends(rules["app"])])
    app.include_router(inner, prefix="/out")
    app.mount("/sub", sub)
    app.mount("/star", Starlette(routes=[Plain("/c", Marked)]))
    found: dict[str | None, set[str]] = {}
    for place, rule in policies_in(app):
        found.setdefault(rule.task, set()).add(place)
    assert set(found) == set(rules)
    assert "dependencies of the app" in found["app"]
    assert any("/star/c" in place for place in found["class"])
    assert any("/in/x" in place for place in found["mark"])
    assert list(policies_in(None)) == []


def test_apps_that_are_mounted_in_each_other_end() -> None:
    """A circle of mounts is walked for a while and left."""
    one, two = Starlette(), Starlette()
    one.mount("/two", two)
    two.mount("/one", one)
    assert list(policies_in(one)) == []


def test_no_path_is_long_enough_to_get_around_the_table() -> None:
    """A raw path that is too long to match has all that the table says: floor, ceiling, output and budgets."""
    budget = Budget("$1/day")
    table = RouteTable({"/*": policy(ceiling="a", max_tokens=100, budgets=[budget]), "/x": policy(floor="a")}, LADDER)
    (found,) = table.policies_for({"path": "/" + "a" * 2_000}, None)
    assert (found.floor, found.ceiling, found.max_tokens, found.budgets) == ("a", "a", 100, (budget,))


@pytest.mark.parametrize("written", ["7", "07", "007"])
def test_a_mount_cannot_be_spelled_into_another_account(written: str) -> None:
    """However the number in a mount's path is written, its routes have one name."""
    sub = Starlette(routes=[Plain("/x", where)])
    app = Starlette(routes=[Mount("/org/{n:int}", app=sub)])
    assert ask(app, f"/org/{written}/x")["name"] == "/org/{n}/x"


@pytest.mark.parametrize("path", ["/a/x/b/y/5", "/x/x/x/y/5", "/x/x/y/y/5", "/5/x/5/y/5", "/y/x/{b}/y/5"])
def test_a_client_cannot_choose_a_name(path: str) -> None:
    """Whatever stands in the parameters of mounts, and however they are called, a route has one name."""
    inner = Starlette(routes=[Plain("/{id}", where)])
    middle = Starlette(routes=[Mount("/{id}/y", app=inner)])
    app = Starlette(routes=[Mount("/never/{z}", app=inner), Mount("/{a}/x", app=middle)])
    assert ask(app, path)["name"] == "/{a}/x/{id}/y/{id}"
    answer = TestClient(app).get(path)
    assert answer.json()["name"] == "/{mount}/{id}"


def test_what_is_around_an_app() -> None:
    """The outermost app is found below middlewares; where there is none with routes, there is none."""
    app = Starlette(routes=[Plain("/x", where)])
    assert outermost(SimpleNamespace(app=SimpleNamespace(app=app))) is app
    assert outermost(app) is app
    loop = SimpleNamespace()
    loop.app = loop
    for nothing in (None, loop, SimpleNamespace(app=None), lambda: None):
        assert outermost(nothing) is None
    assert mount_of(app, "/nowhere") is None
    hosted = Starlette(routes=[Host("{who}.example.org", app=Router([Mount("/m/{t}", app=app)])), Mount("/m", app=app)])
    assert mount_of(hosted, "/m/7") == "/m/{t}"
    assert mount_of(hosted, "/m") == "/m"


def test_a_path_in_a_mount_is_one_segment() -> None:
    """What a client adds to a mount's path parameter does not move the route away from its pattern."""
    table = RouteTable({"/x/{p}/chat": B}, LADDER)
    for value in ("a", "a/b", "a/b/c"):
        assert table.policies_for({}, Told(f"/x/{value}", "/chat", {"p": value})) == (B,)


async def chat_below(request: Request) -> JSONResponse:
    return JSONResponse({"held": len(TABLE_OF_MOUNTS.policies_for(request.scope, route_of(request.scope)))})


TABLE_OF_MOUNTS = RouteTable({"/api/checkout/*": B}, LADDER)


@pytest.mark.parametrize("written", ["x", "x/y", "api/checkout", "api/check", "api/checkout/api/checkout"])
def test_a_path_below_a_mount_does_not_hide_the_mount(written: str) -> None:
    """A client that repeats the mount's path in its own part of the path stays below the mount's policies."""
    app = Starlette(routes=[Mount("/api/checkout", routes=[Plain("/{p:path}", chat_below)])])
    assert ask(app, f"/api/checkout/{written}") == {"held": 1}


@pytest.mark.parametrize("written", ["x", "x/y", "api/api", "api/api/api"])
def test_a_path_in_a_mount_may_read_like_what_stands_before(written: str) -> None:
    """A client that writes the beginning of the path once more as a mount's parameter stays below its policies."""
    table = RouteTable({"/api/{p}/chat": B}, LADDER)
    assert table.policies_for({}, Told(f"/api/{written}", "/chat", {"p": written})) == (B,)


def test_litestar_leaves_a_template() -> None:
    """A route of Litestar is told by its template, with what it is mounted at; in its own mounts there is none."""
    scope = {"app": 1, "litestar_app": 1, "path_template": "/items/{n:int}", "path_params": {"n": 5}}
    assert route_of(scope) == Told("", "/items/{n:int}", {"n": 5})
    below = {**scope, "app_root_path": "/v1", "root_path": "/v1/lite"}
    table = RouteTable({"/lite/items/{any}": B, "/pay": C}, LADDER)
    assert table.policies_for(below, route_of(below)) == (B,)
    mount = SimpleNamespace(is_mount=True)
    for hidden in ({"app": 1, "litestar_app": 1}, {**scope, "route_handler": mount, "endpoint": endpoint}):
        assert route_of(hidden) is None
        assert table.policies_for(hidden, None) == (policy(floor="c"),)


def test_a_path_that_a_mount_has_cut() -> None:
    """Where only the path tells a route, it is also matched as it came in."""
    table = RouteTable({"/v1/pay": B, "/pay": C}, LADDER)
    assert table.policies_for({"path": "/pay"}, None, entered="/v1/pay") == (B, C)
    assert table.policies_for({"path": "", "root_path": "/pay"}, None, entered="/pay") == (C,)
    assert table.policies_for({"path": "/v1/pay"}, None, entered="/v1/pay") == (B,)


@pytest.mark.parametrize("path", ["http://shop.example/pay", "pay", "*", "\\pay"])
def test_a_path_that_is_none(path: str) -> None:
    """What does not begin with a slash is read differently by each framework: the strictest of the table holds."""
    table = RouteTable({"/pay": C}, LADDER)
    assert table.policies_for({"path": path}, None) == (policy(floor="c"),)
    assert table.policies_for({"path": "/free"}, None, entered=path) == (policy(floor="c"),)


def test_a_mounted_route_that_left_no_route() -> None:
    """Up to Starlette 1.0 a route is found by its endpoint, also below mounts, unless several have it."""

    def other() -> None: ...

    inner = [Plain("/in/{x:int}", endpoint), Plain("/one", other), Plain("/two", other)]
    app = Starlette(routes=[Mount("/a/{t}", routes=[Mount("/b", routes=inner)]), Plain("/c", lambda _: None)])
    scope = {"router": app.router, "app_root_path": "", "root_path": "/a/7/b", "endpoint": endpoint}
    assert route_of(scope) == Told("/a/7/b", "/in/{x}")
    assert route_of({**scope, "endpoint": other}) is None
    circle = Starlette()
    circle.mount("/again", circle)
    assert route_of({**scope, "router": circle.router}) is None
