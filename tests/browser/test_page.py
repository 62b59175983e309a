"""The page in a real browser, over real traffic: numbers, life, hostile names, keyboards, readers, permission."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.needs import need

need("playwright", "axe_playwright_python")

from axe_playwright_python.async_playwright import Axe  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from playwright.async_api import expect  # noqa: E402

from tests.browser.site import PATIENCE, TOKEN, site_of, viewer_of  # noqa: E402
from tierline import Budget  # noqa: E402
from tierline.attempts import Timing  # noqa: E402
from tierline.budgets import LONGEST_NAME  # noqa: E402
from tierline.history import Total  # noqa: E402
from tierline.testing import OK, FakeClaude, Fault  # noqa: E402
from tierline.traffic.meter import MOST_RECORDS  # noqa: E402
from tierline.values import usd  # noqa: E402

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=PATIENCE)

HOSTILE = '<img src=x onerror="hacked=1">'
BACKWARDS = "\u202eemca"
LONG = "x" * LONGEST_NAME
SERIOUS = ("serious", "critical")


async def test_numbers_are_the_ledgers(browser: Browser) -> None:
    """Spend in sum, by tier, route and account, and each budget are the ledger's to the nano-USD."""
    async with site_of("/contracts") as site, viewer_of(browser, site.url) as viewer:
        for tenant, route, text in (
            ("acme", "/answer", "Hello"),
            ("acme", "/contracts", "Is this clause void? " * 40),
            ("globex", "/answer", "How are you?"),
        ):
            await site.ask(text, route=route, tenant=tenant)
        await site.ask("And on the best one?", model="claude-opus-5-5", tenant="globex")
        history = await site.router.history(site.router.timing.now() - 86_400)
        await viewer.sign_in(site)
        page = viewer.page
        await expect(page.locator("#spent")).to_have_text(usd(history.total.cost))
        await expect(page.locator("#calls")).to_have_text("4")
        for what, shown in (("tier", "tier"), ("route", "route"), ("account", "account")):
            found = {
                await row.locator("th .name").inner_text(): int(await row.locator("td data").get_attribute("value"))
                for row in await page.locator(f"#by-{shown} tbody tr").all()
            }
            assert found == {name: total.cost for name, total in history.by(what).items()}
        saved = sum(decision["saved"] for decision in await site.router.decisions(10))
        assert await viewer.text("#saved") == usd(saved)
        assert await viewer.text("#top") == usd(history.total.cost + saved)
        await page.locator("label", has_text="7 days").click()
        await expect(page.locator(".headline .label").first).to_have_text("Spent in 7 days")
        await expect(page.locator("#spent")).to_have_text(usd(history.total.cost))
        await page.locator("#cost-table summary").click()
        heads = (await page.locator("#cost-table thead th").all_inner_texts())[1:]
        values = [int(await each.get_attribute("value")) for each in await page.locator("#cost-table tbody data").all()]
        sums = {head: sum(values[place :: len(heads)]) for place, head in enumerate(heads)}
        assert sums == {tier: history.by("tier").get(tier, Total()).cost for tier in ("haiku", "sonnet", "opus")} | {
            "all on opus": history.total.cost + saved
        }
        balances = {(each.account, each.budget): each for each in await site.router.balances()}
        rows = await page.locator(".budgets tbody tr").all()
        assert len(rows) == len(balances)
        for row in rows:
            name, budget = await row.locator("th .name").all_inner_texts()
            values = [int(await each.get_attribute("value")) for each in await row.locator(".used data").all()]
            assert values == [balances[name, budget].spent, balances[name, budget].limit]


async def test_exact_money(browser: Browser) -> None:
    """What the page's own code makes of nano-USD is what Python makes of it, however much it is."""
    seed = random.Random(4)  # noqa: S311
    amounts = [0, 1, 10, 10**9 - 1, 10**18, *(seed.randrange(10 ** seed.randrange(1, 22)) for _ in range(300))]
    async with site_of() as site, viewer_of(browser, site.url) as viewer:
        await viewer.sign_in(site)
        texts = await viewer.page.evaluate(
            "async (amounts) => { const { exact, nano } = await import(new URL('static/money.js', document.baseURI));"
            " return amounts.map((each) => exact(nano(each))); }",
            [str(amount) for amount in amounts],
        )
    assert texts == [usd(amount) for amount in amounts]


async def test_a_trace_is_a_page_of_the_web(browser: Browser) -> None:
    """The link to a trace has its id in it as text, and runs nothing."""
    provider = TracerProvider()
    async with site_of(tracer_provider=provider) as site, viewer_of(browser, site.url) as viewer:
        wanted = await site.ask()
        trace = next(each["trace_id"] for each in await site.router.decisions(1))
        await viewer.sign_in(site)
        page = viewer.page
        await page.locator(f"[data-id='{wanted}']").click()
        link = page.get_by_role("link", name="open the trace")
        assert await link.get_attribute("href") == f"http://traces.example/trace/{trace}"
        found = await page.evaluate(
            "async (pairs) => { const { traceLink } = await import(new URL('static/decision.js', document.baseURI));"
            " return pairs.map((pair) => traceLink(...pair)); }",
            [
                ["javascript:hacked=1//{trace_id}", "1"],
                ["data:text/html,{trace_id}", "1"],
                ["no address {trace_id}", "1"],
                ["https://traces.example/{trace_id}/x", "a/../?b#c"],
                ["https://traces.example/{trace_id}", ""],
                [None, "1"],
            ],
        )
    assert found == [None, None, None, "https://traces.example/a%2F..%2F%3Fb%23c/x", None, None]


async def test_it_is_live(browser: Browser) -> None:
    """A call appears without a reload; what was open, focused and scrolled to stays so."""
    async with site_of() as site, viewer_of(browser, site.url) as viewer:
        await site.ask("Hello")
        await viewer.sign_in(site)
        page = viewer.page
        await page.evaluate("window.unchanged = true")
        await expect(page.get_by_role("status").first).to_contain_text("live")
        await page.locator("#cost-table summary").click()
        await page.locator("#search").focus()
        await site.ask("Hello again", tenant="globex")
        await expect(page.locator("#calls")).to_have_text("2")
        await expect(page.locator("#spent")).to_have_text(usd(await site.spent()))
        await expect(page.locator(".decisions tbody tr")).to_have_count(2)
        assert await page.evaluate("[window.unchanged, document.activeElement.id]") == [True, "search"]
        assert await page.locator("#cost-table").get_attribute("open") is not None


async def test_a_row_stays_under_the_focus(browser: Browser) -> None:
    """New decisions wait behind a button while somebody is on the list."""
    async with site_of() as site, viewer_of(browser, site.url) as viewer:
        first = await site.ask("Hello")
        await viewer.sign_in(site)
        page = viewer.page
        await page.locator(f"[data-id='{first}']").focus()
        await site.ask("Hello again")
        button = page.get_by_role("button", name="Show 1 newer decision")
        await button.wait_for()
        assert await page.locator(".decisions tbody tr").count() == 1
        await button.click()
        await expect(page.locator(".decisions tbody tr")).to_have_count(2)


async def test_names_are_text(browser: Browser) -> None:
    """Markup in the names of tenants, routes and models is shown as it is and does nothing, however long it is."""
    fake = FakeClaude(aliases={HOSTILE: "claude-haiku-5-5"})
    route, other = "/" + HOSTILE, "/" + BACKWARDS
    async with site_of(route, other, fake=fake, budgets=()) as site, viewer_of(browser, site.url) as viewer:
        await site.ask(tenant=HOSTILE, route=route)
        await site.ask(tenant=LONG, route=other)
        await site.ask(tenant=HOSTILE, model=HOSTILE)
        await viewer.sign_in(site)
        page = viewer.page
        await expect(page.locator(".decisions tbody tr")).to_have_count(3)
        await expect(page.locator("#by-account").get_by_text(HOSTILE, exact=True)).to_be_visible()
        await expect(page.locator("#by-route").get_by_text("/<U+202E>emca", exact=True)).to_be_visible()
        await expect(page.locator("#by-route").get_by_text(route, exact=True)).to_be_visible()
        for width in (1280, 360):
            await page.set_viewport_size({"width": width, "height": 740})
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
        for button in await page.locator(".decisions button.link").all():
            await button.click()
            assert await page.locator("dialog").evaluate("(it) => it.scrollWidth <= it.clientWidth")
            await page.keyboard.press("Escape")
        assert await page.locator("#app img").count() == 0
        assert await page.evaluate("typeof hacked") == "undefined"


async def test_a_decision_opens_by_keyboard(browser: Browser) -> None:
    """Tab leads to it, Enter opens it, Escape closes it, and the focus is where it was."""
    fake = FakeClaude()
    async with site_of(fake=fake) as site, viewer_of(browser, site.url) as viewer:
        fake.script(Fault.overloaded(), OK)
        wanted = await site.ask("Hello")
        decision = next(each for each in await site.router.decisions(5) if each["id"] == wanted)
        await viewer.sign_in(site)
        page = viewer.page
        await page.locator(f"[data-id='{wanted}']").wait_for()
        for _ in range(60):
            await page.keyboard.press("Tab")
            if await page.evaluate("document.activeElement.dataset.id") == wanted:
                break
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        for reason in decision["reasons"]:
            await expect(dialog.locator(".reasons")).to_contain_text(reason)
        attempts = dialog.locator("tbody tr")
        await expect(attempts).to_have_count(len(decision["attempts"]))
        assert len(decision["attempts"]) == 2
        await expect(attempts.first).to_contain_text("overloaded_error")
        await expect(attempts.last).to_contain_text(usd(decision["attempts"][-1]["cost"]))
        assert page.url.endswith(f"#decision={wanted}")
        await page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)
        assert await page.evaluate("document.activeElement.dataset.id") == wanted
        await page.goto(f"{site.home}#decision={wanted}")
        await page.reload()
        await expect(page.get_by_role("dialog")).to_contain_text(wanted)


@pytest.mark.parametrize(
    "window",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"viewport": {"width": 360, "height": 740}, "has_touch": True, "reduced_motion": "reduce"},
    ],
    ids=["light", "dark", "phone"],
)
async def test_readers_of_all_kinds(browser: Browser, window: dict[str, Any]) -> None:
    """Axe finds no serious fault on the page, in a decision, in a question, or where people sign in."""
    async with site_of(may_act=lambda *_: True) as site, viewer_of(browser, site.url, **window) as viewer:
        for tenant in ("acme", "globex"):
            await site.ask(tenant=tenant)
        page = viewer.page
        await page.goto(site.home)
        seen = {"sign in": await _axe(page)}
        await viewer.sign_in(site)
        await page.locator("figure canvas").first.wait_for()
        await page.locator("#cost-table summary").click()
        await page.get_by_role("button", name="Change the limit").first.wait_for()
        seen["page"] = await _axe(page)
        await page.locator(".decisions button.link").first.click()
        seen["decision"] = await _axe(page, "dialog")
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Change the limit").first.click()
        seen["question"] = await _axe(page, "dialog")
        assert {where: faults for where, faults in seen.items() if faults} == {}
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def _axe(page: Any, where: str = "html") -> list[str]:
    found = (await Axe().run(page, where)).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found if each["impact"] in SERIOUS]


async def test_signing_in(browser: Browser) -> None:
    """Without the token there is a form and nothing else; with a wrong one it says so."""
    async with site_of() as site, viewer_of(browser, site.url) as viewer:
        await site.ask(tenant="a-secret-customer")
        page = viewer.page
        await page.goto(site.home)
        await page.get_by_label("Token").fill("not-the-token-at-all")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).not_to_be_empty()
        assert "a-secret-customer" not in await page.content()
        answers = [await viewer.context.request.get(site.home + path) for path in ("api/overview", "static/app.js")]
        assert [each.status for each in answers] == [401, 401]
        await viewer.sign_in(site)
        cookies = await viewer.context.cookies()
        assert [(each["httpOnly"], each["sameSite"]) for each in cookies] == [(True, "Strict")]
        assert TOKEN not in str(cookies)
        await page.get_by_role("button", name="Sign out").click()
        await page.get_by_label("Token").wait_for()
        # A browser tells of each answer that is no success.
        assert [fault for fault in viewer.faults if "401" not in fault] == []
        viewer.faults.clear()


async def test_a_limit_is_changed(browser: Browser) -> None:
    """Who may sets a limit, after a question; what is no amount is told; who may not is shown no button."""
    async with site_of(may_act=lambda *_: True) as site, viewer_of(browser, site.url) as viewer:
        await site.ask()
        await viewer.sign_in(site)
        page = viewer.page
        await page.get_by_role("button", name="Change the limit of acme, $2/hour").click()
        await page.get_by_label("New limit").fill("much")
        await page.get_by_role("button", name="Set the limit").click()
        await expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("amount of dollars")
        await page.get_by_label("New limit").fill("$7.50")
        await page.get_by_role("button", name="Set the limit").click()
        await expect(page.get_by_text("The limit is set.")).to_be_visible()
        await expect(page.locator(".budgets tbody tr").filter(has_text="acme")).to_contain_text("$7.50")
        limits = {each.account: each.limit for each in await site.router.balances()}
        assert limits["acme"] == 7_500_000_000
    async with site_of() as site, viewer_of(browser, site.url) as viewer:
        await site.ask()
        await viewer.sign_in(site)
        await viewer.page.locator(".budgets").wait_for()
        assert await viewer.page.get_by_role("button", name="Change").count() == 0


async def test_breakers_and_verdicts(browser: Browser) -> None:
    """A model that is not called is shown, and called again on an operator's word; verdicts are cleared on another."""
    fake = FakeClaude()
    async with (
        site_of(fake=fake, budgets=(), may_act=lambda *_: True, timing=Timing(sleep=_no_time)) as site,
        viewer_of(browser, site.url) as viewer,
    ):
        fake.always("claude-haiku-5-5", Fault.overloaded())
        for _ in range(12):
            await site.ask()
        fake.clear()
        await viewer.sign_in(site)
        page = viewer.page
        await expect(page.locator("#breakers")).to_contain_text("claude-haiku-5-5")
        await page.get_by_role("button", name="Close the breaker").click()
        await page.get_by_role("button", name="Close it").click()
        await expect(page.get_by_text("The breaker is closed.")).to_be_visible()
        await expect(page.get_by_text("All models are called.")).to_be_visible()
        await page.get_by_role("button", name="Clear the verdict cache").click()
        await page.get_by_role("button", name="Clear it").click()
        await expect(page.get_by_text("The verdict cache is cleared.")).to_be_visible()


async def _no_time(_: float) -> None:
    await asyncio.sleep(0)


async def test_without_events(browser: Browser) -> None:
    """Where the server refuses a stream, the page asks every few seconds, and says so; in a hidden tab it rests."""
    async with site_of() as site, viewer_of(browser, site.url) as viewer:
        page = viewer.page
        await page.route("**/api/events*", lambda route: route.fulfill(status=503))
        await site.ask()
        await viewer.sign_in(site)
        status = page.get_by_role("status").first
        await expect(status).to_contain_text("every 5 s")
        await expect(page.locator("#spent")).to_have_text(usd(await site.spent()))
        await page.evaluate(
            "Object.defineProperty(document, 'hidden', { value: true });"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        await expect(status).to_contain_text("paused")
        assert [fault for fault in viewer.faults if "503" not in fault] == []
        viewer.faults.clear()


async def test_many_accounts(browser: Browser) -> None:
    """Accounts are found by name, and turned over by pages; earlier decisions are asked for."""
    budgets = [Budget("$2/hour", per="tenant")]
    async with site_of(budgets=budgets) as site, viewer_of(browser, site.url) as viewer:
        for number in range(63):
            await site.ask(tenant=f"tenant-{number % 23:02}")
            if number % MOST_RECORDS == 0:
                await site.router.decisions(1)  # they are written down, of which so many are kept at a time
        await viewer.sign_in(site)
        page = viewer.page
        names = page.locator(".budgets tbody th > .name")
        await expect(names).to_have_count(10)
        await page.get_by_label("Order").select_option("name")
        await expect(names.first).to_have_text("tenant-00")
        await page.get_by_role("button", name="Next").click()
        await expect(names.first).to_have_text("tenant-10")
        await page.get_by_role("button", name="Next").click()
        await expect(names).to_have_count(3)
        await page.get_by_label("Search").fill("-07")
        await expect(names).to_have_text(["tenant-07"])
        rows = page.locator(".decisions tbody tr")
        await expect(rows).to_have_count(15)
        for count in (50, 63):
            await page.get_by_role("button", name="Older").click()
            await expect(rows).to_have_count(count)
