"""The page about deferred requests shows what works."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from starlette.applications import Starlette
from starlette.routing import Route

from tests.batches.test_queue import answer, request
from tests.batches.world import world
from tests.pages import parsed
from tierline.batches import Queue
from tierline.batches.webhooks import Webhook, new_secret, signed

if TYPE_CHECKING:
    import pytest
    from starlette.requests import Request
    from starlette.responses import Response

DEFERRED = Path(__file__).parents[2] / "docs" / "deferred.md"


async def test_the_page_of_deferred_requests_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The app answers 202 and then 200, the function is told, and the receiver takes a signed webhook, once."""
    document = parsed(DEFERRED)
    for example in document.examples():
        example.evaluate()
    names = document.namespace
    async with world() as it:
        router = it.router(queue=Queue(max_wait="1m"))
        app = names["app_of"](router)
        transport = httpx.ASGITransport(app)
        async with router.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://app") as http:
            first = await http.post("/later", json={"text": "hi"})
            assert first.status_code == 202
            place = first.headers["location"]
            await answer(router, place.rpartition("/")[2])
            assert (await http.get(place)).json()["outcome"] == "succeeded"
            assert (await http.get("/later/unknown")).status_code == 404
        router.batches.deliver_to("mail", names["mail"])
        await names["mail"](await answer(router, await router.batches.defer(request("r1"), to="mail")))
        assert "to the owner of r1 succeeded" in capsys.readouterr().out
    secret, seen = new_secret(), set[str]()
    body = b'{"data": {"custom_id": "r1", "outcome": "succeeded"}}'
    headers = signed(Webhook("https://example.org", secret)._keys, "msg_1", int(time.time()), body)

    async def endpoint(incoming: Request) -> Response:
        taken: Response = await names["answers"](incoming, secret, seen)
        return taken

    receiver = Starlette(routes=[Route("/answers", endpoint, methods=["POST"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(receiver), base_url="http://crm") as http:
        for _ in range(2):
            assert (await http.post("/answers", content=body, headers=headers)).status_code == 204
        assert (await http.post("/answers", content=body + b" ", headers=headers)).status_code == 401
    assert capsys.readouterr().out == "r1 succeeded\n"
