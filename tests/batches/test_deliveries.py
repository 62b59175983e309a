"""Answers that were deferred, on their way to whoever waits: functions, signed webhooks, and clients that ask."""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request  # noqa: TC002  (a framework reads annotations)
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from tests.batches.test_queue import answer, request
from tests.batches.world import params, world
from tierline import Budget
from tierline.asgi import TierlineMiddleware
from tierline.batches import BatchRequest, Queue
from tierline.batches.queue.delivery import SCHEDULE
from tierline.batches.webhooks import Webhook, WebhookSignatureError, new_secret, signed, verify
from tierline.errors import ConfigurationError
from tierline.starlette import accepted, answered
from tierline.testing._serve import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.batches.world import World
    from tierline import Router
    from tierline.batches import Deferred

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def delivered(router: Router, handle: str) -> Deferred:
    """A request when its answer has been delivered, or cannot be."""
    keeper = router.batches._deferring.keeper()
    while (found := await router.batches.deferred(handle)) is not None and found.delivery not in (
        "delivered",
        "failed",
    ):
        await keeper.turned()
    assert found is not None
    return found


# Functions of the app


async def test_an_answer_is_given_to_a_function() -> None:
    """Once, with all that an app needs to know."""
    async with world() as it:
        router = it.router(queue=Queue(max_wait="1m"))
        came: list[Deferred] = []

        async def mail(found: Deferred) -> None:
            came.append(found)

        router.batches.deliver_to("mail", mail)
        handle = await router.batches.defer(request("r1", tenant="acme"), to="mail")
        found = await delivered(router, handle)
        (told,) = came
        assert (told.handle, told.custom_id, told.tenant, told.state) == (handle, "r1", "acme", "answered")
        assert told.result == found.result
        assert told.result is not None
        assert told.result.message is not None


async def test_a_function_that_raises_is_called_again(caplog: pytest.LogCaptureFixture) -> None:
    """Until it takes the answer; what it raised may have one in it, and is not logged."""
    async with world() as it:
        router = it.router(queue=Queue(max_wait="1m"))
        came: list[str] = []

        async def mail(found: Deferred) -> None:
            came.append(found.custom_id)
            if len(came) < 4:
                assert found.result is not None
                raise RuntimeError(found.result.raw)

        router.batches.deliver_to("mail", mail)
        found = await delivered(router, await router.batches.defer(request("r1"), to="mail"))
        assert (came, found.delivery) == (["r1"] * 4, "delivered")
        assert "RuntimeError" in caplog.text
        assert "msg_" not in caplog.text


def test_answers_are_tried_to_be_delivered_for_three_days() -> None:
    """Ten times, as Standard Webhooks propose it."""
    assert len(SCHEDULE) == 9
    assert sum(SCHEDULE) == 75 * 3600 + 35 * 60 + 5


async def test_a_function_that_never_takes_it_is_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last try; the answer is still there for who asks."""
    schedule = (5.0, 20.0, 90.0)
    monkeypatch.setattr("tierline.batches.queue.delivery.SCHEDULE", schedule)
    async with world() as it:
        router = it.router(queue=Queue(max_wait="1m"))
        came: list[float] = []

        async def mail(found: Deferred) -> None:
            came.append(it.clock.now)
            raise RuntimeError

        router.batches.deliver_to("mail", mail)
        found = await delivered(router, await router.batches.defer(request("r1"), to="mail"))
        assert found.delivery == "failed"
        assert found.result is not None
        assert len(came) == 4
        assert all(later - sooner >= wait for sooner, later, wait in zip(came, came[1:], schedule, strict=False))
        assert [each.levelno for each in caplog.records if "cannot be delivered" in each.message] == [logging.ERROR]


async def test_who_has_no_such_function_leaves_it_to_others() -> None:
    """The process that has it delivers, whichever collected the answer."""
    async with world() as it:
        router = it.router(queue=Queue(max_wait="1m"))
        came: list[str] = []

        async def mail(found: Deferred) -> None:
            came.append(found.custom_id)

        router.batches.deliver_to("mail", mail)
        handle = await router.batches.defer(request("r1"), to="mail")
        targets = router.batches._deferring._targets
        kept = targets.pop("mail")
        assert (await answer(router, handle)).delivery == "waiting"
        assert came == []
        targets["mail"] = kept
        assert (await delivered(router, handle)).delivery == "delivered"


@pytest.mark.parametrize("target", [None, print, lambda found: None, "https://example.org"])
def test_what_cannot_be_delivered_to(target: Any) -> None:
    """A plain function would block the loop; a URL alone signs nothing."""
    from tierline import Router

    with pytest.raises(ConfigurationError, match="async function"):
        Router().batches.deliver_to("x", target)


# Webhooks


class Receiver:
    """Somebody's server, which checks what it is sent."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.elsewhere = 0
        self.app = Starlette(
            routes=[
                Route("/hook", self.hook, methods=["POST"]),
                Route("/elsewhere", self.other, methods=["GET", "POST"]),
            ]
        )

    async def hook(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.body())
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 307:
            return RedirectResponse("/elsewhere")
        return Response(status_code=status)

    async def other(self, request: Request) -> Response:
        self.elsewhere += 1
        return Response()


@asynccontextmanager
async def hooked(*statuses: int) -> AsyncIterator[tuple[World, Router, Receiver]]:
    """A Router that sends to a receiver on a real socket."""
    receiver = Receiver(*statuses)
    async with world() as it, serving(receiver.app) as url:
        router = it.router(queue=Queue(max_wait="1m"))
        router.batches.deliver_to("crm", Webhook(f"{url}/hook", SECRET))
        yield it, router, receiver


async def test_a_webhook_is_signed() -> None:
    """Its receiver knows who sent it, and what it says is the answer."""
    async with hooked() as (it, router, receiver):
        handle = await router.batches.defer(request("r1"), to="crm")
        found = await delivered(router, handle)
        (headers,), (body,) = receiver.headers, receiver.bodies
        said = verify(SECRET, headers, body, now=it.clock.now)
        assert said["type"] == "deferred.answered"
        assert (said["data"]["handle"], said["data"]["custom_id"]) == (handle, "r1")
        assert found.result is not None
        assert said["data"]["message"] == json.loads(found.result.raw or "")
        assert headers["webhook-id"] == f"msg_{handle}"
        assert headers["content-type"] == "application/json"


async def test_a_webhook_is_sent_again_with_the_same_id(caplog: pytest.LogCaptureFixture) -> None:
    """And another timestamp, so that its receiver handles it once; neither URL nor answer is in the log."""
    async with hooked(500, 429, 307) as (it, router, receiver):
        found = await delivered(router, await router.batches.defer(request("r1"), to="crm"))
        assert found.delivery == "delivered"
        assert len(receiver.bodies) == 4
        assert len(set(receiver.bodies)) == 1
        assert len({each["webhook-id"] for each in receiver.headers}) == 1
        assert len({each["webhook-timestamp"] for each in receiver.headers}) == 4
        verify(SECRET, receiver.headers[-1], receiver.bodies[-1], now=it.clock.now)
        assert receiver.elsewhere == 0, "a redirect was followed"
        mine = [each.getMessage() for each in caplog.records if each.name == "tierline"]
        assert not any("127.0.0.1" in text or "msg_" in text for text in mine)


async def test_a_webhook_that_is_not_wanted_any_more_is_not_sent_again() -> None:
    """410 says so."""
    async with hooked(410) as (_, router, receiver):
        found = await delivered(router, await router.batches.defer(request("r1"), to="crm"))
        assert found.delivery == "failed"
        assert len(receiver.bodies) == 1


async def test_the_address_of_a_webhook_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Often it is a secret itself, and the client that sends it logs each request at INFO."""
    came: list[str] = []

    async def hook(request: Request) -> Response:
        came.append(f"{request.url.path}?{request.url.query} {request.headers['authorization']}")
        return Response()

    caplog.set_level(logging.DEBUG)
    async with serving(Starlette(routes=[Route("/t0ken", hook, methods=["POST"])])) as url:
        target = url.replace("://", "://me:pa55@")
        sent = await Webhook(f"{target}/t0ken?k=k3y", SECRET).send("msg_1", b"{}", 0.0)
    assert (sent.good, came) == (True, ["/t0ken?k=k3y Basic bWU6cGE1NQ=="])
    client = [record.getMessage() for record in caplog.records if record.name.startswith(("httpx", "httpcore"))]
    assert any("HTTP Request: POST" in line for line in client)
    assert not [line for line in client if "t0ken" in line or "pa55" in line or "k3y" in line]


async def test_a_receiver_that_is_not_there() -> None:
    """Is no reason to lose an answer."""
    sent = await Webhook("http://127.0.0.1:9/hook", SECRET).send("msg_1", b"{}", 0.0)
    assert (sent.good, sent.gone) == (False, False)


def test_a_signature_is_that_of_the_standard() -> None:
    """The example that its libraries are tested with."""
    webhook = Webhook("https://example.org", SECRET)
    headers = signed(webhook._keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert verify(SECRET, headers, b'{"test": 2432232314}', now=1614265330) == {"test": 2432232314}


def test_secrets_can_be_changed() -> None:
    """Both sign meanwhile, and a receiver may know either, or both."""
    old, new = new_secret(), new_secret()
    headers = signed(Webhook("https://example.org", (new, old))._keys, "msg_1", 1000, b"{}")
    for known in (old, new, (old, new), (new_secret(), new)):
        assert verify(known, headers, b"{}", now=1000) == {}
    with pytest.raises(WebhookSignatureError):
        verify(new_secret(), headers, b"{}", now=1000)


@pytest.mark.parametrize(
    ("changed", "body", "now"),
    [
        ({"webhook-id": "msg_2"}, b"{}", 1000),
        ({"webhook-timestamp": "1001"}, b"{}", 1000),
        ({"webhook-timestamp": "soon"}, b"{}", 1000),
        ({"webhook-timestamp": "9" * 5000}, b"{}", 1000),
        ({"webhook-timestamp": ""}, b"{}", 1000),
        ({"webhook-signature": ""}, b"{}", 1000),
        ({"webhook-signature": "v1,"}, b"{}", 1000),
        ({"webhook-signature": "v1,ü"}, b"{}", 1000),
        ({"webhook-signature": "v1a,AAAA"}, b"{}", 1000),
        ({}, b"{ }", 1000),
        ({}, b"{}", 1301),
        ({}, b"{}", 699),
    ],
)
def test_what_is_not_signed_as_it_must_be_is_refused(changed: dict[str, str], body: bytes, now: float) -> None:
    """Another id, another time, another body, too late, too early, nonsense: and it says no more than that."""
    headers = {**signed(Webhook("https://example.org", SECRET)._keys, "msg_1", 1000, b"{}"), **changed}
    with pytest.raises(WebhookSignatureError) as raised:
        verify(SECRET, headers, body, now=now)
    assert raised.value.http_status == 401
    assert set(raised.value.problem) == {"type", "title", "status"}


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_is_missing_is_told(missing: str) -> None:
    """By its name."""
    headers = signed(Webhook("https://example.org", SECRET)._keys, "msg_1", 1000, b"{}")
    del headers[missing]
    with pytest.raises(WebhookSignatureError, match=missing):
        verify(SECRET, headers, b"{}", now=1000)


def test_what_is_signed_and_is_no_object() -> None:
    """Somebody else shares the secret, and sends something else."""
    headers = signed(Webhook("https://example.org", SECRET)._keys, "msg_1", 1000, b"[]")
    with pytest.raises(WebhookSignatureError, match="JSON"):
        verify(SECRET, headers, b"[]", now=1000)


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("http://example.org/hook", SECRET),
        ("ftp://example.org", SECRET),
        ("https://", SECRET),
        ("https://[::1", SECRET),
        ("example.org", SECRET),
        (None, SECRET),
        ("http://127.0.0.1.example.org/", SECRET),
        ("https://example.org/hook\n", SECRET),
        ("https://example\x00.org", SECRET),
        ("https://example.org", "whsec_short"),
        ("https://example.org", "whsec_" + "A" * 200),
        ("https://example.org", ""),
        ("https://example.org", ()),
        ("https://example.org", None),
        ("https://example.org", (SECRET, 3)),
    ],
)
def test_webhooks_that_cannot_be(url: Any, secret: Any) -> None:
    """Are refused when they are made, and neither URL nor secret is said."""
    with pytest.raises(ConfigurationError) as raised:
        Webhook(url, secret)
    assert "MfKQ" not in str(raised.value)
    assert "example.org" not in str(raised.value)


def test_a_webhook_is_not_shown() -> None:
    """A URL may have a token in it."""
    assert repr(Webhook("https://example.org/t0ken", SECRET)) == "Webhook()"
    for url in ("http://localhost:80/a", "http://[::1]:80/", "http://127.0.0.1/"):
        Webhook(url, SECRET)


# Clients that ask


@asynccontextmanager
async def asking(it: World, router: Router) -> AsyncIterator[httpx.AsyncClient]:
    """An app that defers, and tells of answers, with tenants by a header that it trusts."""

    async def ask(request: Request) -> Response:
        text = (await request.json())["text"]
        handle = await router.batches.defer(BatchRequest("q", params(text)))
        return accepted(request.url_for("later", handle=handle), retry_after=7)

    async def later(request: Request) -> Response:
        return await answered(router, request.path_params["handle"], retry_after=7)

    app = Starlette(
        routes=[Route("/later", ask, methods=["POST"]), Route("/later/{handle}", later, name="later")],
        lifespan=router.lifespan,
    )
    app.add_middleware(
        TierlineMiddleware,
        router=router,
        tenant=lambda scope: dict(scope["headers"]).get(b"x-tenant", b"").decode() or None,
    )
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        yield http


async def test_a_client_asks_until_it_is_answered() -> None:
    """202 with the place of the answer, 202 while there is none, 200 with it."""
    async with world() as it:
        router = it.router(queue=Queue(max_wait="10m"))
        async with asking(it, router) as http:
            acme = {"x-tenant": "acme"}
            it.clock.stopped = True
            first = await http.post("/later", json={"text": "hi"}, headers=acme)
            assert (first.status_code, first.json()["state"], first.headers["retry-after"]) == (202, "pending", "7")
            place = first.headers["location"]
            second = await http.get(place, headers=acme)
            assert (second.status_code, second.json(), second.headers["retry-after"]) == (
                202,
                {"state": "pending"},
                "7",
            )
            it.clock.go()
            await answer(router, place.rpartition("/")[2])
            third = await http.get(place, headers=acme)
            assert (third.status_code, third.json()["outcome"]) == (200, "succeeded")
            assert third.json()["message"]["content"][0]["type"] == "text"
            assert third.headers["cache-control"] == "no-store"


async def test_a_client_is_given_what_is_no_utf8() -> None:
    """An answer may have half of a surrogate pair in it, where it was cut off or was asked for it."""
    async with world(answer=lambda _: "half \ud83d") as it:
        router = it.router(queue=Queue(max_wait="10m"))
        async with asking(it, router) as http:
            place = (await http.post("/later", json={"text": "hi"})).headers["location"]
            await answer(router, place.rpartition("/")[2])
            told = await http.get(place)
        assert told.status_code == 200
        assert told.json()["message"]["content"][0]["text"] == "half \ud83d"


async def test_a_client_is_told_nothing_of_others() -> None:
    """Another tenant, nobody, and whoever guesses, are told that there is no such request."""
    async with world() as it:
        router = it.router(queue=Queue(max_wait="10m"))
        async with asking(it, router) as http:
            place = (await http.post("/later", json={"text": "hi"}, headers={"x-tenant": "acme"})).headers["location"]
            for headers in ({"x-tenant": "globex"}, {}):
                found = await http.get(place, headers=headers)
                assert (found.status_code, found.headers["content-type"]) == (404, "application/problem+json")
            unknown = await http.get(f"{place[:-1]}x", headers={"x-tenant": "acme"})
            assert unknown.json() == found.json()


async def test_a_client_is_not_told_why_there_was_no_money() -> None:
    """That is between the app and its budgets."""
    async with world() as it:
        router = it.router(queue=Queue(max_wait="1m"), budgets=[Budget("$0.000001", name="secret plan")])
        async with asking(it, router) as http:
            place = (await http.post("/later", json={"text": "hi"})).headers["location"]
            await answer(router, place.rpartition("/")[2])
            found = await http.get(place)
            assert found.json() == {"state": "answered", "outcome": "refused", "message": None}
