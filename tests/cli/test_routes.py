"""`tierline routes`: what it says of a route is what holds when that route is asked for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from typer.testing import CliRunner

from tests.needs import need
from tierline import Budget, Router, current, policy
from tierline.asgi import TierlineMiddleware
from tierline.binding import context

if TYPE_CHECKING:
    from starlette.requests import Request

need("typer", "rich")

from tierline.cli.app import app as command  # noqa: E402
from tierline.cli.survey import survey  # noqa: E402

SONNET, OPUS, CAP = policy(floor="sonnet"), policy(floor="opus"), policy(ceiling="sonnet")
router = Router(budgets=[Budget("$5/day"), Budget("$1/hour", per="tenant", name="plan")], policy=policy(task="desk"))
strict = Router(policy=OPUS)
TABLE = {
    "/table/{id}": SONNET,
    "/mounted/*": CAP,
    "/rest/*": policy(floor="haiku", budgets=[Budget("$0.10", name="rest")]),
}


def held() -> dict[str, Any]:
    """What holds here, as a call would be told."""
    binding = current()
    found = binding.owner.rules.admission(context(), binding)  # type: ignore[attr-defined]
    return {
        "floor": found.policy.floor,
        "ceiling": found.policy.ceiling,
        "critical": found.policy.critical,
        "task": found.policy.task,
        "budgets": sorted(line.budget for line in found.lines),
        "route": found.route,
    }


def ask() -> Any:
    """An endpoint of FastAPI, another one each time: a decorator marks the function itself."""

    async def called() -> dict[str, Any]:
        return held()

    return called


def asked() -> Any:
    """The same for Starlette."""

    async def called(_: Request) -> JSONResponse:
        return JSONResponse(held())

    return called


def heard() -> Any:
    """The same for WebSockets."""

    async def called(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json(held())
        await socket.close()

    return called


async def checks(_: Annotated[None, Depends(policy(task="inner"))]) -> None:
    """Narrows the request, by what it depends on."""


class Verbs(HTTPEndpoint):
    async def get(self, _: Request) -> JSONResponse:
        return JSONResponse(held())

    @OPUS
    async def post(self, _: Request) -> JSONResponse:
        return JSONResponse(held())


async def hides(scope: Any, receive: Any, send: Any) -> None:
    """An app that tells no route."""
    await JSONResponse(held())(scope, receive, send)


def fastapi_app() -> FastAPI:
    app = FastAPI(dependencies=[Depends(policy(critical=True))])
    app.add_middleware(TierlineMiddleware, router=router, routes=TABLE)
    for path in ("/plain", "/table/{other}", "/rest/{path:path}"):
        app.get(path)(ask())
    app.post("/depends", dependencies=[Depends(SONNET), Depends(checks)])(ask())
    app.get("/decorated")(OPUS(ask()))
    app.get("/contrary", dependencies=[Depends(OPUS)])(CAP(ask()))
    app.get("/pinned", dependencies=[Depends(policy(tier="sonnet"))])(ask())
    app.websocket("/socket", dependencies=[Depends(SONNET)])(heard())
    app.add_route("/function", asked())
    inner, outer = APIRouter(dependencies=[Depends(SONNET)]), APIRouter(prefix="/outer")
    inner.get("/inside")(ask())
    inner.websocket("/socket")(heard())
    outer.include_router(inner, prefix="/inner", dependencies=[Depends(policy(task="included"))])
    app.include_router(outer, prefix="/api")
    sub = FastAPI(dependencies=[Depends(SONNET)])
    sub.get("/inside")(ask())
    app.mount("/mounted/{tenant}", sub)
    apart = FastAPI()
    apart.add_middleware(TierlineMiddleware, router=router, routes={"/inside": SONNET})
    apart.get("/inside")(ask())
    app.mount("/apart", apart)
    other = FastAPI()
    other.add_middleware(TierlineMiddleware, router=strict)
    other.get("/inside")(ask())
    app.mount("/other", other)
    return app


def starlette_app() -> Any:
    app = Starlette(
        routes=[
            Route("/plain", asked()),
            Route("/decorated", OPUS(asked()), methods=["POST"]),
            Route("/table/{other}", CAP(asked())),
            Route("/verbs", Verbs),
            WebSocketRoute("/socket", SONNET(heard())),
            Mount("/mounted/{tenant}", routes=[Mount("/deep", routes=[Route("/inside", SONNET(asked()))])]),
            Mount("/hidden", app=hides),
            Host("api.test", app=Starlette(routes=[Route("/hosted", OPUS(asked()))])),
        ],
        middleware=[Middleware(TierlineMiddleware, router=router, routes=TABLE)],
    )
    return app  # noqa: RET504  (mypy: an Any)


def answers(app: Any, path: str, method: str) -> dict[str, Any]:
    """What held when the route was asked for."""
    url = re.sub(r"\{.*?\}", "x", path).replace("*", "x")
    host = "http://api.test" if "hosted" in path else "http://desk.test"
    with TestClient(app, base_url=host) as http:
        if method == "WEBSOCKET":
            with http.websocket_connect(url) as socket:
                return dict(socket.receive_json())
        found = http.request("GET" if method in ("ANY", "MOUNT") else method, url)
        assert found.status_code == 200, (path, found.text)
        return dict(found.json())


@pytest.mark.parametrize("make", [fastapi_app, starlette_app])
def test_what_is_said_holds(make: Any) -> None:
    """Floor, ceiling and the rest of each route are those that a request to it meets; none is left out."""
    app = make()
    found = survey(app)
    assert len(found.routes) == {"fastapi_app": 15, "starlette_app": 9}[make.__name__]
    seen = 0
    for each in found.routes:
        for method in each.methods:
            there = answers(app, each.path, method)
            if each.router is strict or "/other/" not in each.path:  # two Routers: the inner one is bound last
                said = each.policy
                assert said is not None
                told = (said.floor, said.ceiling, said.critical)
                assert told == (there["floor"], there["ceiling"], there["critical"]), (each, there)
                budgets = sorted(budget.name for budget, _ in each.budgets)
                assert (said.task, budgets) == (there["task"], there["budgets"]), (each, there)
                if there["route"] is not None and not there["route"].startswith("/{mount}"):
                    assert each.path == there["route"]
                seen += 1
    assert seen >= len(found.routes) - 1


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command, ["routes", *arguments], env={"COLUMNS": "120"})


@pytest.fixture(scope="module")
def lines() -> list[str]:
    done = run("--factory", "tests.cli.test_routes:fastapi_app")
    assert done.exit_code == 0, done.output
    return [" ".join(line.split()) for line in done.output.splitlines()]


@pytest.mark.parametrize(
    "line",
    [
        r"GET /plain haiku opus task 'desk' \(Router\(policy=…\)\)",
        r"GET /table/\{other\} sonnet opus task 'desk' \(Router\(policy=…\)\)",
        r"floor sonnet \(middleware, routes\['/table/\{id\}'\]\)",
        r"POST /depends sonnet opus task 'desk' \(Router\(policy=…\)\)",
        r"critical \(dependency of the app\)",
        r"floor sonnet \(dependency, tests/cli/test_routes.py:\d+\)",
        r"floor opus \(decorator, tests/cli/test_routes.py:\d+\)",
        r"floor opus is above ceiling sonnet: the floor wins",
        r"WEBSOCKET /socket sonnet opus .*",
        r"GET /api/outer/inner/inside sonnet opus .*",
        r"floor sonnet, budget .*|floor haiku, budget rest: \$0.10 .*",
        r"GET /other/inside \(Router 2\) opus opus .*",
        r"Every call of Router 1 is charged to: \$5/day; plan: \$1/hour for each tenant",
        r"20 routes of the frameworks' own, .*",
    ],
)
def test_what_a_person_sees(lines: list[str], line: str) -> None:
    """Every route with what holds on it, and where that is written."""
    assert any(re.fullmatch(line, each) for each in lines), "\n".join(lines)


def test_as_json() -> None:
    """The same for machines, each budget with where it is written."""
    done = run(
        "--factory", "tests.cli.test_routes:fastapi_app", "--json", "--ignore", "/apart/*", "--ignore", "/other/*"
    )
    found = {each["route"]: each for each in json.loads(done.stdout)["routes"]}
    assert len(found) == 12
    assert not any(path.startswith(("/apart", "/other")) for path in found)
    assert found["/plain"]["floor_is_default"] is True
    rest = found["/rest/{path}"]
    assert (rest["floor"], rest["floor_is_default"]) == ("haiku", False)
    assert [(each["name"], each["by"]) for each in rest["budgets"]] == [
        ("$5/day", "Router(budgets=…)"),
        ("plan", "Router(budgets=…)"),
        ("rest", "middleware, routes['/rest/*']"),
    ]
    assert found["/pinned"]["pinned"] is True


def test_a_floor_may_be_required() -> None:
    """1, and the routes that have none; 0 where all have it; 2 for a tier that there is not."""
    named = ("--factory", "tests.cli.test_routes:starlette_app", "--require-floor")
    low = run(*named, "sonnet")
    assert low.exit_code == 1
    assert low.stderr.splitlines() == [
        "2 routes without a floor of sonnet or above:", "  GET /plain", "  GET /verbs",
    ]  # fmt: skip
    spared = ("--ignore", "/plain", "--ignore", "/verbs")
    assert run(*named, "sonnet", *spared).exit_code == 0
    assert run(*named, "opus", *spared, "--json").exit_code == 1
    unknown = run(*named, "gpt")
    assert (unknown.exit_code, "there is no tier 'gpt'" in unknown.stderr) == (2, True)


bare = Starlette(routes=[Route("/plain", asked())])
side = Starlette(routes=[Route("/side", SONNET(asked()))], middleware=[Middleware(TierlineMiddleware, router=router)])
half = Starlette(routes=[Route("/outside", asked()), Mount("/in", side)])


def test_what_is_not_routed() -> None:
    """An app without the middleware is an error; a route outside of it is told, and has no floor."""
    assert "has no TierlineMiddleware" in run("tests.cli.test_routes:bare").stderr
    assert "only those of Starlette and FastAPI" in run("tests.cli.test_routes:TABLE").stderr
    done = run("tests.cli.test_routes:half", "--require-floor", "haiku")
    assert (done.exit_code, "  GET /outside\n" in done.stderr) == (1, True)
    assert re.search(r"GET /outside +- +- +no TierlineMiddleware is around it", done.stdout)
