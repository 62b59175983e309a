"""The example app: every endpoint, over a socket, as a person would try it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from example_app import demo
from example_app.main import build
from example_app.offline import said
from example_app.people import PAGE_TOKEN, PLANS
from tierline.testing import FakeClaude, Received
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import ASGIApp

ORDER = '{"item": "brake pads", "quantity": 2}'
ACME = {"authorization": "Bearer desk-acme"}
ENDLESS = Received("/v1/messages", {}, {"tools": [{}], "messages": [{"role": "user", "content": "Where is 4711?"}]})
OPERATOR = {"authorization": "Bearer desk-operator"}


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """The app as it starts without a key, and somebody who calls it."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    app = build()
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://desk", headers=ACME) as http,
    ):
        yield http


async def test_easy_work_goes_to_the_cheapest_tier(desk: httpx.AsyncClient) -> None:
    """Sorting a ticket is simple by what the route is for, and nobody is asked."""
    why = (await desk.post("/classify", json={"text": "I was charged twice for my brake pads"})).json()["why"]
    assert (why["tier"], why["source"]) == ("haiku", "keyword")


async def test_contracts_hold_their_floor(desk: httpx.AsyncClient) -> None:
    """Even a greeting is reviewed by the tier that the route demands."""
    why = (await desk.post("/contracts", json={"text": "hi"})).json()["why"]
    assert why["tier"] == "sonnet"
    assert "raised to the floor sonnet" in why["reasons"]


async def test_an_order_is_read_again_where_it_is_none() -> None:
    """What the cheapest tier reads goes to the app where it is an order by its form; else the next tier reads it."""
    cheap = [ORDER, "Two brake pads, I think."]
    fake = FakeClaude(answer=lambda request: cheap.pop(0) if "haiku" in request.model else ORDER)
    async with fake.client() as client:
        app = build(client)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://desk", headers=ACME) as http,
        ):
            read = [(await http.post("/order", json={"text": "Two brake pads, please."})).json() for _ in range(2)]
    assert [answer["order"] for answer in read] == [json.loads(ORDER)] * 2
    assert [answer["why"]["tier"] for answer in read] == ["haiku", "sonnet"]
    assert "escalation from haiku to sonnet" in read[1]["why"]["reasons"]


async def test_the_stand_in_reads_orders(desk: httpx.AsyncClient) -> None:
    """Without a key too a mail with an order is read by the cheapest tier, and one without by the next."""
    for text, order, tier in (
        ("Two brake pads for my bike, please.", {"item": "brake pads", "quantity": 2}, "haiku"),
        ("Please send 3 inner tubes.", {"item": "inner tubes", "quantity": 3}, "haiku"),
        ("Can I still order by mail?", {"item": "nothing", "quantity": 0}, "sonnet"),
    ):
        read = (await desk.post("/order", json={"text": text})).json()
        assert (read["order"], read["why"]["tier"]) == (order, tier)


async def test_a_chat_streams_and_ends_with_its_reasons(desk: httpx.AsyncClient) -> None:
    """Text comes as server-sent events; the last one tells tier and cost."""
    history = [{"role": "user", "content": "How do I reset the display?"}, {"role": "assistant", "content": "Hold it."}]
    response = await desk.post("/chat", json={"text": "and in French?", "history": history})
    frames = response.text.strip().split("\n\n")
    assert len(frames) > 2
    assert frames[-1].startswith("event: why\ndata: ")
    assert json.loads(frames[-1].partition("data: ")[2])["cost"] != "$0.00"


async def test_an_answer_is_graded_once(serve: Callable[[ASGIApp], Awaitable[httpx.AsyncClient]]) -> None:
    """Whoever saw it sends a thumb with its handle; a second one, and one of somebody's own making, do not count."""
    http = await serve(build())
    why = (await http.post("/answer", json={"text": "Are you open on Saturday?"}, headers=ACME)).json()["why"]
    sent = [{"handle": why["handle"], "good": False}] * 2 + [{"handle": f"{why['handle']}A", "good": True}]
    told = [await http.post("/grade", json=thumb, headers=ACME) for thumb in sent]
    assert [response.json() for response in told] == [{"counted": True}, {"counted": False}, {"counted": False}]
    chat = await http.post("/chat", json={"text": "And on Sunday?"}, headers=ACME)
    handle = json.loads(chat.text.strip().rpartition("data: ")[2])["handle"]
    assert (await http.post("/grade", json={"handle": handle, "good": True}, headers=ACME)).json() == {"counted": True}


async def test_a_summary_is_made_by_a_synchronous_endpoint(desk: httpx.AsyncClient) -> None:
    """A plain `def` asks with the synchronous client; the response shows the tier in its headers."""
    response = await desk.post("/summary", json={"text": "The brakes squeak."})
    assert (response.json()["why"]["tier"], response.json()["why"]["source"]) == ("haiku", "label")
    assert response.headers["x-tierline-tier"] == "haiku"
    assert (await desk.get("/operator/report", headers=OPERATOR)).json()["by_tag"]["feature=summary"]["calls"] == 1


async def test_a_summary_that_may_come_later(desk: httpx.AsyncClient) -> None:
    """202 with its place at once; there it is in the end, for the tenant who asked, and for nobody else."""
    first = await desk.post("/later", json={"text": "The brakes squeak."})
    assert (first.status_code, first.json()["state"]) == (202, "pending")
    place = first.headers["location"]
    assert (await desk.get(place, headers={"authorization": "Bearer desk-globex"})).status_code == 404
    router = desk._transport.app.state.router  # type: ignore[attr-defined]
    while (found := await desk.get(place)).status_code == 202:
        await router.batches._deferring.keeper().turned()
    assert (found.status_code, found.json()["outcome"]) == (200, "succeeded")
    assert found.json()["message"]["model"].startswith("claude-")


@pytest.mark.parametrize(("path", "tier", "source"), [("/expert", "opus", "pin"), ("/old", "haiku", "local")])
async def test_a_route_says_what_holds(desk: httpx.AsyncClient, path: str, tier: str, source: str) -> None:
    """A pin goes where it says, however easy the question; a model id in old code is only the most that it gets."""
    why = (await desk.post(path, json={"text": "Are you open on Saturday?"})).json()["why"]
    assert (why["tier"], why["source"]) == (tier, source)


async def test_the_cheapest_tier_answers_while_it_is_asked(desk: httpx.AsyncClient) -> None:
    """Where nobody is sure, the first attempt is a speculation; it answers where the verdict says that it may."""
    why = (await desk.post("/quick", json={"text": "hi"})).json()["why"]
    assert (why["source"], why["attempts"][0]["tier"], why["attempts"][0]["role"]) == ("claude", "haiku", "speculative")


async def test_an_agent_has_steps_and_a_budget(desk: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step tells where it went; all of a run are one account, and a run that would cost too much is refused."""
    question = {"text": "Where is my order 4711?"}
    found = (await desk.post("/agent", json=question)).json()
    assert [step["tools"] for step in found["steps"]] == [["look_up_order"], ["delivery_slots"], []]
    assert "Bergen: Monday" in found["text"]
    router = desk._transport.app.state.router  # type: ignore[attr-defined]
    (balance,) = await router.balances(f"acme/{found['run']}")
    assert (balance.budget, usd(balance.spent)) == ("one run of the agent", found["cost"])
    await router.set_limit("one run of the agent", limit="$0.0001")
    assert (await desk.post("/agent", json=question)).status_code == 402


async def test_an_agent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that would call tools for ever may call none at its last step."""
    fake = FakeClaude(answer=lambda asked: None if asked.body["tool_choice"]["type"] == "none" else said(ENDLESS))
    async with fake.client() as client:
        app = build(client)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://desk", headers=ACME) as http,
        ):
            found = (await http.post("/agent", json={"text": "Where is it?"})).json()
    assert len(found["steps"]) == 6
    assert found["steps"][-1]["tools"] == []
    assert found["text"]


async def test_many_mails_are_sorted(desk: httpx.AsyncClient) -> None:
    """Each has a label of the shop's, in order; what stood before is not asked for again."""
    texts = ["I was charged twice", "The parcel never came", "I was charged twice"]
    first = (await desk.post("/sort", json={"texts": texts})).json()
    assert first["labels"] == ["billing", "delivery", "billing"]
    assert (len(first["labels"]), first["asked"], first["cached"], first["requests"]) == (3, 2, 1, 1)
    again = (await desk.post("/sort", json={"texts": texts})).json()
    assert (again["labels"], again["cost"]) == (first["labels"], "$0.00")
    assert (await desk.post("/sort", json={"texts": []})).status_code == 422


async def test_a_job_comes_back(desk: httpx.AsyncClient) -> None:
    """Drafts for many mails, in a batch at half the price: for the tenant who asked, and for nobody else."""
    job = (await desk.post("/jobs", json={"texts": ["My brakes squeak.", "Thank you!"]})).json()
    assert job["submitted"] == 2
    place = f"/jobs/{job['id']}"
    for headers in ({"authorization": "Bearer desk-globex"}, {"authorization": ""}):
        assert (await desk.get(place, headers=headers)).status_code in (401, 404)
    router = desk._transport.app.state.router  # type: ignore[attr-defined]
    await router.batches.wait(job["id"])
    found = (await desk.get(place)).json()
    assert (found["state"], found["succeeded"]) == ("ended", 2)
    assert [result["outcome"] for result in found["results"]] == ["succeeded"] * 2
    assert all(result["text"] for result in found["results"])
    report = await router.batches.report(job["id"])
    assert usd(report.total.cost) == found["cost"]
    assert 2 * report.total.cost <= report.total.plain + 2


async def test_the_desk_may_only_watch(desk: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator switches what is enforced: then nothing is refused, and an answer says what would have been."""
    monkeypatch.setitem(PLANS, "acme", "$0.0001/day")
    question = {"text": "Review this clause."}
    assert (await desk.post("/contracts", json=question)).status_code == 402
    assert (await desk.put("/operator/mode", params={"mode": "observe"})).status_code == 401
    told = (await desk.put("/operator/mode", params={"mode": "observe"}, headers=OPERATOR)).json()
    assert told == (await desk.get("/operator/mode", headers=OPERATOR)).json() | {"mode": "observe"}
    answer = (await desk.post("/contracts", json=question)).json()
    assert answer["why"]["observed"] == ""
    assert (await desk.get("/operator/report", headers=OPERATOR)).json()["observed"]["refused"] == 1
    assert (await desk.put("/operator/mode", params={"mode": "loud"}, headers=OPERATOR)).status_code == 422


async def test_the_desk_is_ready(desk: httpx.AsyncClient) -> None:
    """A probe needs no key, and is told no more than that all is well."""
    response = await desk.get("/ready", headers={"authorization": ""})
    assert (response.status_code, response.json()) == (200, [])


def test_a_conversation_over_a_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message on a socket is a call of its own for the tenant of its handshake."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with TestClient(build()) as browser:
        with browser.websocket_connect("/live", headers=ACME) as socket:
            for text in ("Are you open on Saturday? Yes or no.", "Thanks!"):
                socket.send_text(text)
                assert json.loads(socket.receive_text())["why"]["tier"] == "haiku"
        # A browser can send no header with a socket: it offers the key as a protocol, and is answered with the other.
        with browser.websocket_connect("/live", subprotocols=["desk", "desk-key.desk-acme"]) as socket:
            assert socket.accepted_subprotocol == "desk"
            socket.send_text("Are you open on Sunday? Yes or no.")
            assert json.loads(socket.receive_text())["text"]
        assert browser.get("/operator/report", headers=OPERATOR).json()["by_account"]["acme"]["calls"] == 3
        with pytest.raises(WebSocketDisconnect), browser.websocket_connect("/live", subprotocols=["desk-key.guess"]):
            pass
        with pytest.raises(WebSocketDisconnect), browser.websocket_connect("/live"):
            pass


async def test_an_operator_sees_the_money_and_changes_a_limit(
    desk: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused call is explained with its numbers; a higher limit lets the next one pass at once."""
    assert (await desk.get("/operator/refusal", headers=OPERATOR)).status_code == 404
    monkeypatch.setitem(PLANS, "acme", "$0.0001/day")
    question = {"text": "Review this clause."}
    refused = await desk.post("/contracts", json=question)
    assert refused.status_code in (402, 429)
    why = (await desk.get("/operator/refusal", headers=OPERATOR)).text
    assert why.startswith("refused by budget 'plan', account 'acme'")
    assert question["text"] not in why
    for limit, status in (("a lot", 422), ("$1", 204)):
        changed = await desk.put("/operator/plans/acme", params={"limit": limit}, headers=OPERATOR)
        assert changed.status_code == status
    assert (await desk.post("/contracts", json=question)).status_code == 200
    history = (await desk.get("/operator/history", headers=OPERATOR)).text
    assert "  /contracts" in history
    balances = (await desk.get("/operator/balances", headers=OPERATOR)).json()
    assert {b["account"]: b["limit"] for b in balances}["acme"] == 10**9
    assert (await desk.get("/operator/holds", headers=OPERATOR)).text == "nothing is in flight\n"
    assert (await desk.put("/operator/plans/acme", headers=OPERATOR)).status_code == 204
    assert (await desk.post("/contracts", json=question)).status_code in (402, 429)


@pytest.mark.parametrize("page", ["balances", "holds", "history", "refusal", "report"])
async def test_tenants_do_not_see_the_money_of_others(desk: httpx.AsyncClient, page: str) -> None:
    """The operator's pages need the operator's key."""
    assert (await desk.get(f"/operator/{page}")).status_code == 401
    assert (await desk.put("/operator/plans/acme", params={"limit": "$9"})).status_code == 401


async def test_nobody_gets_in_without_a_key(desk: httpx.AsyncClient) -> None:
    """The app checks the tenant itself; what a client claims otherwise counts for nothing."""
    for headers in ({"authorization": ""}, {"authorization": "Bearer guess", "x-tenant": "acme"}):
        assert (await desk.post("/answer", json={"text": "hi"}, headers=headers)).status_code == 401


async def test_a_tenant_sees_its_own_plan(desk: httpx.AsyncClient) -> None:
    """What is left is the plan's limit without what the tenant spent; nobody else's, and nothing without a key."""
    assert (await desk.get("/plan")).json() == {"left": "$0.50", "limit": "$0.50", "share": 0.0}
    await desk.post("/answer", json={"text": "Are you open on Saturday?"})
    cost = (await desk.get("/operator/report", headers=OPERATOR)).json()["by_account"]["acme"]["cost"]
    assert (await desk.get("/plan")).json() == {
        "left": usd(500_000_000 - cost), "limit": "$0.50", "share": cost / 500_000_000,
    }  # fmt: skip
    globex = {"authorization": "Bearer desk-globex"}
    assert (await desk.get("/plan", headers=globex)).json()["left"] == "$0.06"
    await desk.put("/operator/plans/globex", params={"limit": "$2"}, headers=OPERATOR)
    assert (await desk.get("/plan", headers=globex)).json()["left"] == "$2.00"
    assert (await desk.get("/plan", headers={"authorization": ""})).status_code == 401


async def test_a_spent_plan_is_refused_with_a_problem(desk: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that has no room answers 402 or 429 as `problem+json`, and sends nothing."""
    monkeypatch.setitem(PLANS, "acme", "$0.0001/day")
    response = await desk.post("/contracts", json={"text": "Review this clause."})
    assert response.status_code in (402, 429)
    assert response.headers["content-type"] == "application/problem+json"
    report = (await desk.get("/operator/report", headers=OPERATOR)).json()
    assert (report["refusals"], report["calls"]) == (1, 0)
    monkeypatch.undo()
    await desk.post("/classify", json={"text": "charged twice"})
    assert (await desk.get("/operator/report", headers=OPERATOR)).json()["by_tier"]["haiku"]["calls"] == 1


def test_the_prompts_are_what_the_demo_says() -> None:
    """Two hundred prompts, each once, for every endpoint and tenant, with a person's choice of tier."""
    prompts: list[dict[str, Any]] = [json.loads(line) for line in demo.PROMPTS.read_text("utf-8").splitlines()]
    assert len({prompt["id"] for prompt in prompts}) == 200
    assert {prompt["endpoint"] for prompt in prompts} == {"/classify", "/answer", "/contracts", "/chat"}
    assert {prompt["tenant"] for prompt in prompts} == {"acme", "globex", "initech"}
    tiers = Counter(prompt["tier"] for prompt in prompts)
    assert set(tiers) == {"haiku", "sonnet", "opus"}
    assert not any(p["tier"] == "haiku" for p in prompts if p["endpoint"] == "/contracts")


async def test_the_tier_above_answers_too_where_the_desk_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator sees what the tier above would have made of an answer, and no customer waits for that."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setenv("TIERLINE_SHADOW", "1")
    app = build()
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://desk", headers=ACME) as http,
        asyncio.timeout(10),
    ):
        tier = (await http.post("/answer", json={"text": "Hi there, are you open?"})).json()["why"]["tier"]
        while not (shadows := (await http.get("/operator/shadows", headers=OPERATOR)).json()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert [(shadow["tier"], shadow["route"], shadow["texts"]) for shadow in shadows] == [(tier, "/answer", None)]


async def test_an_operator_has_a_page(desk: httpx.AsyncClient) -> None:
    """It shows what the desk spent to who has its token, and to no tenant and no key of the other pages."""
    await desk.post("/classify", json={"text": "charged twice"})
    for headers in (ACME, OPERATOR):
        assert (await desk.get("/operator/page/api/overview", headers=headers)).status_code == 401
    headers = {"authorization": f"Bearer {PAGE_TOKEN}"}
    shown = (await desk.get("/operator/page/api/overview", headers=headers)).json()
    (row,) = (
        row for row in (await desk.get("/operator/balances", headers=OPERATOR)).json() if row["account"] == "acme"
    )
    assert (shown["total"]["calls"], shown["total"]["cost"]) == (1, str(row["spent"]))
    assert shown["actions"] == ["limit", "breaker", "verdicts"]
    assert shown["trace"].format(trace_id="1") == "http://localhost:16686/trace/1"


async def test_the_demo_runs_to_its_end(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves the app on a socket, sends real requests, shows tiers, money and reasons, and ends by itself.

    One at a time: of several at once a small plan may have no room for all that they hold, and refuse one.
    """
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setattr(demo, "AT_ONCE", 1)
    await demo.main(most=20)
    shown = capsys.readouterr().out
    for words in (
        "calls by tier",
        "all on opus",
        "saved",
        "verdict cache",
        "downgrades",
        "agreement",
        "the last calls",
        "overhead  estimated",
        "nothing was refused",
    ):
        assert words in shown
    assert "20/20" in shown


async def test_a_refused_chat_is_told_in_the_stream(desk: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that had begun ends with the problem, and the demo reads it as one."""
    monkeypatch.setitem(PLANS, "acme", "$0.0001/day")
    response = await desk.post("/chat", json={"text": "Compare two bikes for me, please."})
    assert response.text.startswith("event: error\ndata: ")
    assert demo.why_of(response)["tier"] is None
    assert "budget" in demo.why_of(response)["reasons"][0]
