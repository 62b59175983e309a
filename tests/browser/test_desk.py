"""The example app's page in a real browser: answers, streams, refusals, hostile texts, keyboards, readers."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from anthropic import AsyncAnthropic
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from example_app.front import HEADERS, STATIC
from example_app.main import build
from example_app.offline import said, sorted_as
from example_app.people import KEYS, PLANS
from tests.browser.site import PATIENCE, viewer_of
from tests.serving import serving
from tierline.ladder import DEFAULT_LADDER
from tierline.testing import FakeClaude, Fault
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

    from tests.browser.site import Viewer
    from tierline import Router

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=PATIENCE)

HOSTILE = '<img src=x onerror="hacked=1"><script>hacked=1</script>'
ORDER = '{"item": "brake pads", "quantity": 2}'
SERIOUS = ("serious", "critical")


@asynccontextmanager
async def desk_of(browser: Browser, fake: FakeClaude, **options: Any) -> AsyncIterator[tuple[Viewer, Router]]:
    """The app on a socket, and somebody who has its page before them."""
    async with fake.serve() as api, AsyncAnthropic(api_key=fake.api_key, base_url=api) as client:
        app = build(client)
        async with serving(app) as url, viewer_of(browser, url, **options) as viewer:
            await viewer.page.goto(f"{url}/")
            await expect(viewer.page.locator("#plan-text")).to_contain_text("left of")
            yield viewer, app.state.router


async def ask(page: Page, text: str, kind: str = "answer", who: str = "acme") -> None:
    await page.locator(f"label[for=who-{who}]").click()
    await page.locator(f"label[for=kind-{kind}]").click()
    await page.locator("#text").fill(text)
    await page.get_by_role("button", name="Ask", exact=True).click()


def told(viewer: Viewer, status: int) -> None:
    """The browser has told of an answer that is no success, and of nothing else."""
    assert len(viewer.faults) == 1
    assert f"status of {status}" in viewer.faults.pop()


async def test_an_answer_shows_its_decision(browser: Browser) -> None:
    """Tier, cost, what was saved and the reasons are those of the call; the plan has so much less."""
    async with desk_of(browser, FakeClaude()) as (viewer, router):
        page = viewer.page
        async with page.expect_response("**/contracts") as response:
            await ask(page, "hi", "contract", "globex")
        why = (await (await response.value).json())["why"]
        article = page.get_by_role("article").first
        await expect(article.locator(".tier")).to_have_text("sonnet")
        report = router.report()
        assert set(report.by_tier) == {"sonnet"}
        await expect(article.locator(".cost")).to_have_text(usd(report.cost))
        await expect(article.locator(".saved")).to_have_text(usd(report.saved))
        await expect(article.locator(".top")).to_have_text(usd(report.cost + report.saved))
        assert await article.locator(".reasons li").all_inner_texts() == why["reasons"]
        assert "raised to the floor sonnet" in why["reasons"]
        (balance,) = await router.balances("globex")
        await expect(page.locator("#plan-text")).to_have_text(f"{usd(balance.limit - report.cost)} left of $0.06")
        await expect(page.get_by_role("status").first).to_have_text(f"sonnet answered, for {usd(report.cost)}.")
        await article.get_by_role("button", name="Good answer").click()
        await expect(article.locator(".said")).to_contain_text("this route learns from it")
        assert await article.get_by_role("button", name="Poor answer").is_disabled()


async def test_a_chat_comes_piece_by_piece(browser: Browser) -> None:
    """What has come is there before the rest, may be stopped, and a chat knows what was said in it."""
    words = " ".join(f"word{number}." for number in range(300))
    fake = FakeClaude(answer=lambda _: words)
    fake.script(Fault.hang(after=80))
    async with desk_of(browser, fake) as (viewer, _):
        page = viewer.page
        await ask(page, "Are you open on Saturday?", "chat")
        text = page.locator(".text").first
        await expect(text).to_contain_text("word1.")
        assert await text.get_attribute("aria-busy") == "true"
        assert "word299." not in await text.inner_text()
        assert await page.locator(".facts").count() == 0
        await page.get_by_role("button", name="Stop").click()
        await expect(page.get_by_role("article").first).to_contain_text("Stopped.")
        for turns in (1, 3):
            await ask(page, "Are you open on Saturday?", "chat")
            await expect(page.locator(".facts")).to_have_count((turns + 1) // 2)
            assert len(fake.requests[-1].body["messages"]) == turns
        await expect(text).to_have_text(words)
        await page.get_by_role("button", name="Begin a new chat").click()
        assert await page.get_by_role("button", name="Begin a new chat").is_hidden()


async def test_an_order_is_read(browser: Browser) -> None:
    """What was read is told in words; where the cheapest tier reads none, both attempts are shown."""
    fake = FakeClaude(answer=lambda request: "Two, I think." if "haiku" in request.model else ORDER)
    async with desk_of(browser, fake) as (viewer, _):
        page = viewer.page
        await ask(page, "Two brake pads, please.", "order")
        await expect(page.locator(".text").first).to_have_text("2 × brake pads")
        rows = await page.locator("article tbody tr").all_inner_texts()
        assert [row.split("\t")[:3] for row in rows] == [["haiku", "first", "ok"], ["sonnet", "escalation", "ok"]]


async def test_every_stop_of_the_tour(browser: Browser) -> None:
    """Whatever can be asked is answered, shows what it is about, and offers examples that are answered too."""
    fake = FakeClaude(answer=said, verdict=sorted_as)
    async with desk_of(browser, fake) as (viewer, router):
        page = viewer.page
        kinds = await page.locator("input[name=kind]").evaluate_all("found => found.map((each) => each.value)")
        assert len(kinds) == 14
        for number, kind in enumerate(kinds, 1):
            await page.locator(f"label[for=kind-{kind}]").click()
            assert len(await page.locator("#note").inner_text()) > 20
            await page.locator("#examples button").first.click()
            await page.get_by_role("button", name="Ask", exact=True).click()
            await expect(page.get_by_role("article")).to_have_count(number)
            await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_enabled()
            article = page.get_by_role("article").first
            assert await article.locator(".refusal").count() == 0, await article.inner_text()
            assert await article.locator(".tier, .note").count() >= 1, await article.inner_text()
        asked = {received.path for received in fake.requests}
        assert {"/v1/messages", "/v1/messages/batches"} <= asked
        spent = sum(balance.spent for balance in await router.balances("acme"))
        assert spent == fake.billed


STEPS = [["look_up_order", "haiku"], ["delivery_slots", "haiku"], ["nothing: it answers", "haiku"]]
TWICE = ["I was charged twice", "billing"]


@pytest.mark.parametrize(
    ("kind", "text", "rows"),
    [
        ("agent", "Where is my order 4711?", STEPS),
        (
            "sort",
            "I was charged twice\n\n  My parcel never came\nI was charged twice",
            [TWICE, ["My parcel never came", "delivery"], TWICE],
        ),
        ("job", "My brakes squeak.\nThank you!", [["My brakes squeak.", "haiku"], ["Thank you!", "haiku"]]),
    ],
)
async def test_what_is_more_than_one_call(browser: Browser, kind: str, text: str, rows: list[list[str]]) -> None:
    """Steps, labels and drafts come as a table, a line for each."""
    async with desk_of(browser, FakeClaude(answer=said, verdict=sorted_as)) as (viewer, _):
        page = viewer.page
        await ask(page, text, kind)
        await expect(page.locator("article .note")).to_contain_text("$0.")
        shown = await page.locator("article .texts tbody tr").all_inner_texts()
        assert [row.split("\t")[:2] for row in shown] == rows


async def test_a_socket_is_refused_in_words(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a WebSocket closes with a refusal the page says what it means, as for any other question."""
    monkeypatch.setitem(PLANS, "acme", "$0.0001/day")
    async with desk_of(browser, FakeClaude()) as (viewer, _):
        await ask(viewer.page, "Compare two bikes for me, please.", "talk")
        await expect(viewer.page.locator(".refusal")).to_contain_text("no room for this in the plan of acme")


async def test_behind_the_desk(browser: Browser) -> None:
    """A plan runs out and is given back, the refusal is explained with its numbers, and the desk may only watch."""
    async with desk_of(browser, FakeClaude()) as (viewer, router):
        page, seen, done = viewer.page, viewer.page.locator("#seen"), viewer.page.locator("#done")
        for view, words in (
            ("Balances", "Nothing was charged yet."), ("Last refusal", "refused nothing yet"), ("Shadows", "None yet"),
            ("In flight", "nothing is in flight"), ("Report", '"calls": 0'), ("Metrics", "target_info"),
        ):  # fmt: skip
            await page.get_by_role("button", name=view).click()
            await expect(page.locator("#seen-title")).to_have_text(view)
            if view == "Last refusal":
                told(viewer, 404)
            await expect(seen).to_contain_text(words)
        await page.get_by_role("button", name="Let this plan run out").click()
        await expect(done).to_contain_text("The plan of acme is $0.002 a day now")
        await expect(page.locator("#plan-text")).to_have_text("$0.002 left of $0.002")
        await ask(page, "hi", "contract")
        await expect(page.locator(".refusal")).to_contain_text("402")
        told(viewer, 402)
        await page.get_by_role("button", name="Last refusal").click()
        await expect(seen).to_contain_text("refused by budget 'plan', account 'acme'")
        await page.get_by_label("Mode").select_option("observe")
        await expect(done).to_contain_text("It only watches")
        assert router.mode == "observe"
        await ask(page, "hi", "contract")
        await expect(page.locator(".observed").first).to_have_text("(would have been refused)")
        await page.get_by_role("button", name="Give it back").click()
        await expect(done).to_contain_text("is what it was")
        await expect(page.locator("#plan-text")).to_contain_text("of $0.50")
        assert await router.limits() == {}


async def test_refusals_are_told_in_words(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spent plan, a question too dear for it, and a busy API: what it means, and whether to come back."""
    fake = FakeClaude()
    async with desk_of(browser, fake) as (viewer, _):
        page, first = viewer.page, viewer.page.locator(".refusal").first
        monkeypatch.setitem(PLANS, "acme", "$0.0001/day")
        await ask(page, "Review this clause.", "contract")
        await expect(first).to_contain_text("402 There is no room for this in the plan of acme")
        told(viewer, 402)
        await ask(page, "Compare two bikes.", "chat")
        await expect(page.locator(".refusal")).to_have_count(2)
        await expect(first).to_contain_text("Nothing was sent" if "429" in await first.inner_text() else "402")
        fake.always(None, Fault.overloaded())
        await ask(page, "Are you open?", "answer", "initech")
        await expect(first).to_contain_text("503 The model is busy. It is not about your question. Come back in")
        told(viewer, 503)
        fake.clear()
        monkeypatch.setitem(PLANS, "initech", "$0.002/day")
        for _ in range(20):
            before = await page.get_by_role("article").count()
            await ask(page, "Are you open on Saturday?", "answer", "initech")
            await expect(page.get_by_role("article")).to_have_count(before + 1)
            await expect(page.get_by_role("button", name="Ask", exact=True)).to_be_enabled()
            if viewer.faults:
                break
        told(viewer, 429)
        await expect(first).to_contain_text(
            re.compile(r"initech has used up its plan.*Come back in \d+ (hours|minutes|s)")
        )


async def test_hostile_texts_are_inert(browser: Browser) -> None:
    """Markup in a question, an answer and an order is shown as it is and does nothing, however long it is."""
    fake = FakeClaude(answer=lambda _: HOSTILE + "x" * 5_000)
    async with desk_of(browser, fake, viewport={"width": 360, "height": 740}) as (viewer, _):
        page = viewer.page
        for number, kind in enumerate(("answer", "chat"), 1):
            await ask(page, HOSTILE, kind)
            await expect(page.locator(".facts")).to_have_count(number)
            await expect(page.locator(".text").first).to_contain_text(HOSTILE)
            await expect(page.locator(".question").first).to_have_text(HOSTILE)
        assert await page.evaluate("[typeof hacked, document.documentElement.scrollWidth]") == ["undefined", 360]
        assert await page.locator("article img, article script").count() == 0


async def test_without_a_mouse(browser: Browser) -> None:
    """Who asks, what for, and the question: by keyboard alone."""
    async with desk_of(browser, FakeClaude()) as (viewer, _):
        page = viewer.page
        await page.keyboard.press("Tab")
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("Tab")
        for _ in range(4):
            await page.keyboard.press("ArrowRight")
        await page.keyboard.press("Tab")
        await page.keyboard.type("hi")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator("article .head")).to_have_text("globex · contract")
        await expect(page.locator(".tier")).to_have_text("sonnet")


async def test_everybody_can_use_it(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Axe finds no serious fault with answers and a refusal on the page: in light, in the dark, and on a phone."""
    async with desk_of(browser, FakeClaude()) as (viewer, _):
        page = viewer.page
        await ask(page, "Are you open on Saturday?")
        await expect(page.locator(".facts")).to_have_count(1)
        monkeypatch.setitem(PLANS, "initech", "$0.0001/day")
        await ask(page, "Review this.", "contract", "initech")
        await expect(page.locator(".refusal")).to_have_count(1)
        told(viewer, 402)
        await page.locator(".thumbs button").first.click()
        await expect(page.locator(".said").first).not_to_be_empty()
        await ask(page, "\n".join(["A mail of some length that says nothing much at all, twice."] * 3), "job")
        await expect(page.locator(".texts")).to_be_visible()
        await page.get_by_role("button", name="Spent").click()
        await expect(page.locator("#seen")).to_contain_text("/answer")
        for scheme, width in (("light", 1_200), ("dark", 1_200), ("dark", 360), ("light", 360)):
            await page.emulate_media(color_scheme=scheme)
            await page.set_viewport_size({"width": width, "height": 740})
            found = (await Axe().run(page)).response["violations"]
            assert [fault["id"] for fault in found if fault["impact"] in SERIOUS] == []
            assert await page.evaluate("document.documentElement.scrollWidth") == width


async def test_what_the_page_may_do() -> None:
    """It comes with a policy that lets it run what is beside it alone; its files name no other host, tiers, or keys."""
    transport = httpx.ASGITransport(build(AsyncAnthropic(api_key="test")))
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as http:
        page = await http.get("/")
        files = [await http.get(f"/static/{path.name}") for path in sorted(STATIC.iterdir())]
        assert (await http.get("/static/../main.py")).status_code == 404
    assert {name: page.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in page.headers["content-security-policy"]
    assert [file.status_code for file in files] == [200] * len(files)
    code = "".join(file.text for file in files)
    assert set(re.findall(r"https?://[^/\"' ]+", page.text + code)) <= {"http://www.w3.org"}
    assert [
        sink for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(") if sink in code
    ] == []
    (keys,) = re.findall(r"const KEYS = \{(.*?)\};", code)
    assert {key: who for who, key in re.findall(r'(\w+): "([\w-]+)"', keys)} == KEYS
    (tiers,) = re.findall(r"const TIERS = (\[.*?\]);", code)
    assert json.loads(tiers) == [tier.name for tier in DEFAULT_LADDER]
