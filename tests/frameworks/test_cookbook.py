"""Every page of the cookbook is a whole app: it is served as it stands, over a socket, with its framework."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.frameworks.conftest import PAGES, until
from tests.pages import DOCS
from tierline.testing import Fault

if TYPE_CHECKING:
    from tests.frameworks.conftest import Served


every_page = pytest.mark.parametrize("served", PAGES, indirect=True)

ACME, UMBRA = {"x-api-key": "key-of-acme"}, {"x-api-key": "key-of-umbra"}
EASY = {"text": "Are you open on Saturday? Yes or no."}


@every_page
@pytest.mark.parametrize(
    ("path", "tier"), [("/ask", "haiku"), ("/contracts/review", "sonnet"), ("/refunds/decide", "opus")]
)
def test_a_page_routes(served: Served, path: str, tier: str) -> None:
    """An easy question goes to the cheapest tier, and to no lower one than its route's floor, wherever that stands."""
    response = served.http.post(path, params=EASY, headers=ACME)
    assert response.status_code < 300, response.text
    assert response.json()["tier"] == tier
    assert served.models[-1] == f"claude-{tier}-5-5"


@every_page
def test_a_page_knows_its_tenants(served: Served) -> None:
    """Whom a request is for comes from the app's authentication; a stranger calls nobody."""
    assert served.http.post("/ask", params=EASY, headers=UMBRA).json()["tenant"] == "umbra"
    sent = len(served.models)
    assert served.http.post("/ask", params=EASY).status_code == 401
    assert len(served.models) == sent


@every_page
def test_a_page_streams(served: Served) -> None:
    """The words of an answer come as they are said."""
    assert served.http.post("/stream", params=EASY, headers=ACME).text == "word " * 50
    assert served.fake.requests[-1].streamed
    served.fake.always(None, Fault.hang(after=8))
    with served.http.stream("POST", "/stream", params=EASY, headers=ACME) as response:
        pieces = response.iter_raw()
        assert next(pieces)
    until(lambda: served.fake.requests[-1].ended == "disconnected")


@every_page
def test_a_page_refuses(served: Served) -> None:
    """A budget that is used up is told over HTTP, to its own tenant only."""
    for _ in range(200):
        response = served.http.post("/trial", params=EASY, headers=ACME)
        if response.status_code >= 300:
            break
    assert response.status_code == 429
    assert response.headers["content-type"].startswith("application/problem+json")
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["status"] == 429
    assert served.http.post("/trial", params=EASY, headers=UMBRA).status_code < 300


@every_page
def test_the_job_of_a_page(served: Served) -> None:
    """Work outside of requests is bound to a tenant and a route, in a process of its own."""
    code = "import asyncio, page; print(asyncio.run(page.nightly()))"
    job = subprocess.run(  # noqa: S603  (our own page)
        [sys.executable, "-c", code], env=served.environment, capture_output=True, text=True, check=True
    )
    assert job.stdout.split() == ["sonnet"]
    assert served.models[-1] == "claude-sonnet-5-5"


def test_each_page_is_tested() -> None:
    """A page that nobody serves may say anything."""
    others = {"libraries.md", "platforms.md"}  # tested where those are
    assert {page.name for page in (DOCS / "cookbook").glob("*.md")} - others == set(PAGES)
