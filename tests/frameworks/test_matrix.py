"""Every framework and version, over sockets: floors in every place, budgets, streams, clients that leave."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.frameworks.common import PLACES
from tests.frameworks.conftest import DEADLINE, until
from tests.frameworks.overlays import VERSIONS
from tierline.testing import Fault

if TYPE_CHECKING:
    from tests.frameworks.conftest import Served

OPUS = "claude-opus-5-5"
TIMING = (
    r'tierline;dur=\d+\.\d\d;desc="haiku, fixed", tierline-classify;dur=\d+\.\d\d;desc="fixed", '
    r'tierline-attempt;dur=\d+\.\d\d;desc="haiku, first, ok", tierline-rest;dur=\d+\.\d\d'
)
DEPENDENCIES = (
    "dependency of a route", "dependency of a router", "dependency of an app", "dependency of a def endpoint",
    "dependency, for a streaming body",
)  # fmt: skip
CLASSES = ("decorator of a class", "decorator of a method")
MOUNTS = ("in the table, for a route of a mount", "the Router's")
THREADS = ("in the table, for a def endpoint", "decorator of a def endpoint")
WITHOUT: dict[str, dict[str, tuple[str, ...]]] = {
    "fastapi": {},
    "starlette": {
        "it has no dependencies": DEPENDENCIES,
        "it has no decorators of its own": ("decorator outside",),
    },
    "litestar": {
        "its dependencies are not FastAPI's": DEPENDENCIES,
        "a policy marks functions, and its decorators make objects of them": ("decorator outside", *CLASSES),
        "its body is made by the handler: the stream in a block is there": ("decorator, for a streaming body",),
        "a mount hides its route: all that the table says holds there": MOUNTS,
        "its threads are not AnyIO's": THREADS,
    },
    "quart": {
        "it has no dependencies": DEPENDENCIES,
        "it registers the function that its own decorator is given": ("decorator outside",),
        "its threads are not AnyIO's": THREADS,
        "its body is made by the handler: the stream in a block is there": ("decorator, for a streaming body",),
        "its classes are functions by then": CLASSES,
        "it has no mounts": MOUNTS,
    },
    "django": {
        "it has no dependencies": DEPENDENCIES,
        "it has no decorators of its own": ("decorator outside", "decorator of a class"),
        "it has no background tasks": ("in the table, for a background task",),
        "its body is made by the view: the stream in a block is there": ("decorator, for a streaming body",),
        "it has no mounts": MOUNTS,
    },
}
"""Cells that a framework cannot have, with the reason."""


def cells() -> list[object]:
    return [
        pytest.param(name, place, id=f"{name}-{place}")
        for name, found in VERSIONS.items()
        for place in PLACES
        if not any(place in without for without in WITHOUT[found["framework"]].values())
    ]


everywhere = pytest.mark.parametrize("served", VERSIONS, indirect=True)


@pytest.mark.parametrize(
    ("served", "install"),
    [pytest.param(name, found["install"], id=name) for name, found in VERSIONS.items() if found["install"]],
    indirect=["served"],
)
def test_the_versions_are_those_that_are_named(served: Served, install: list[str]) -> None:
    """What is laid over the environment is what its processes import."""
    names = [spec.split("==")[0] for spec in install]
    code = f"from importlib.metadata import version; print(*(f'{{n}}=={{version(n)}}' for n in {names}))"
    asked = [sys.executable, "-c", code]
    found = subprocess.run(asked, env=served.environment, capture_output=True, text=True, check=True)  # noqa: S603
    assert found.stdout.split() == install


@pytest.mark.parametrize(("served", "place"), cells(), indirect=["served"])
def test_a_floor_holds_in_every_place(served: Served, place: str) -> None:
    """Wherever a floor stands, an easy request goes to its tier, and the route is told by its whole template."""
    path, template = PLACES[place]
    before = len(served.fake.requests)
    response = served.http.get(path)
    assert response.status_code == 200, response.text
    until(lambda: served.models[before:] and served.models[-1])
    assert served.models[before:] == [OPUS]
    if "json" in response.headers.get("content-type", "") and (found := response.json()):
        assert found["tier"] == "opus"
        if served.framework in ("fastapi", "starlette") and place != "the Router's":
            assert found["route"] == template


@everywhere
def test_no_floor_where_none_stands(served: Served) -> None:
    """A route that is not in the table goes to the cheapest tier: the floors of the others are not its own."""
    assert served.http.get("/free").json()["tier"] == "haiku"
    assert served.models[-1] == "claude-haiku-5-5"


@everywhere
def test_a_budget_that_renews(served: Served) -> None:
    """When it is used up, the client is told to come back: 429 with Retry-After, as a problem, and nothing is sent."""
    tenant = uuid.uuid4().hex
    for _ in range(20):
        response = served.http.get("/renews", headers={"x-tenant": tenant})
        if response.status_code != 200:
            break
    sent = len(served.models)
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/problem+json"
    assert 1 <= int(response.headers["retry-after"]) <= 3600
    assert response.json()["status"] == 429
    assert tenant not in response.text
    assert len(served.models) == sent
    assert served.balance(tenant, "renews")["spent"] > 0
    assert served.balance(tenant, "renews")["held"] == 0
    # Another tenant's is its own.
    assert served.http.get("/renews", headers={"x-tenant": uuid.uuid4().hex}).status_code == 200


@everywhere
def test_a_budget_that_does_not_renew(served: Served) -> None:
    """402, as a problem, and not one byte of the framework's own page."""
    before = len(served.models)
    response = served.http.get("/total")
    assert response.status_code == 402
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert set(response.json()) == {"type", "title", "status"}
    assert len(served.models) == before


@everywhere
def test_what_a_response_says_of_its_call(served: Served) -> None:
    """Tier, source, cost and time where the call has ended; where nothing was sent, or it goes on, no tier is said."""
    response = served.http.get("/free")
    assert (response.headers["x-tierline-tier"], response.headers["x-tierline-source"]) == ("haiku", "fixed")
    assert response.headers["x-tierline-cost-usd"] == f"{served.fake.requests[-1].billed / 1e9:.9f}"
    assert re.fullmatch(TIMING, response.headers["server-timing"])
    refused = served.http.get("/total")
    assert "x-tierline-tier" not in refused.headers
    assert 'desc="nothing sent"' in refused.headers["server-timing"]
    assert "server-timing" not in served.http.get("/stream").headers


@everywhere
def test_a_refusal_in_an_event_stream(served: Served) -> None:
    """Events that have begun end with an error event, and not with a broken connection."""
    first, error, end = served.http.get("/events").text.split("\n\n")
    assert (first, end) == ("data: first", "")
    name, data = error.split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["status"] == 402


@everywhere
def test_a_stream(served: Served) -> None:
    """A streamed answer arrives whole, on the tier of its floor, and is charged as the API billed it."""
    tenant = uuid.uuid4().hex
    assert served.http.get("/stream", headers={"x-tenant": tenant}).text == "word " * 50
    received = served.fake.requests[-1]
    assert (received.model, received.ended) == (OPUS, "complete")
    assert served.settled(tenant) == received.billed > 0


@everywhere
def test_a_client_that_leaves(served: Served) -> None:
    """A browser that vanishes in mid-stream ends the upstream stream too, and its tenant pays for what was used."""
    tenant = uuid.uuid4().hex
    served.fake.always(None, Fault.hang(after=8))
    with served.http.stream("GET", "/stream", headers={"x-tenant": tenant}) as response:
        pieces = response.iter_raw()  # kept: without it the connection would be closed at once
        assert next(pieces).startswith(b"word")
        assert served.balance(tenant)["held"] > 0
    received = served.fake.requests[-1]
    until(lambda: received.ended != "open")
    assert received.ended == "disconnected"
    assert served.settled(tenant) >= received.billed > 0


SPELLINGS = (
    "/table/", "/TABLE", "/table%2F", "//table", "/table%0A", "/table%20", "/%74able", "/./table", "/free/../table",
    "/table;free", "/table?/free", "http://free.example/table", "HTTP://free.example//table/",
)  # fmt: skip


@everywhere
@pytest.mark.parametrize("target", SPELLINGS)
def test_no_spelling_of_a_path_gets_around_a_floor(served: Served, target: str) -> None:
    """However a client writes a path, what its endpoint asks has the floor, or there is no endpoint."""
    before = len(served.models)
    url = served.http.base_url
    # Over a bare socket: browsers tidy up what they send.
    with socket.create_connection((url.host, url.port or 0), DEADLINE) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nhost: free.example\r\nconnection: close\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            status = answer.read().split(b" ", 2)[1]
    models = served.models[before:]
    assert models == [OPUS] if status == b"200" else models == []
