"""Takes the pictures of both pages that the documentation shows: `python -m scripts.screenshots`.

A day of real calls, over the offline API and by a clock of its own; real Chromium looks at what became of them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anthropic import AsyncAnthropic
from opentelemetry.sdk.trace import TracerProvider
from playwright.async_api import async_playwright
from starlette.applications import Starlette
from starlette.routing import Mount

from example_app.main import build
from example_app.offline import said, sorted_as
from tests.browser.site import FLAGS, TOKEN, chromium_path
from tests.serving import serving
from tierline import Budget, Router, policy
from tierline.attempts import Timing
from tierline.dashboard import dashboard
from tierline.errors import BudgetExceededError
from tierline.testing import OK, FakeClaude, Fault

if TYPE_CHECKING:
    from playwright.async_api import Browser

ROOT: Final = Path(__file__).parent.parent
IMAGES: Final = ROOT / "docs" / "images"
PROMPTS: Final = ROOT / "example_app" / "prompts.jsonl"
END: Final = datetime(2026, 11, 19, 17, 42, 5, tzinfo=UTC).timestamp()
HOUR: Final = 3_600
HOURS: Final = 31
ROUTES: Final = {
    "/contracts": policy(floor="sonnet", critical=True),
    "/classify": policy(task="classify a support ticket", expected_output=10),
}
PLANS: Final = {"acme": "$0.18/day", "globex": "$0.12/day", "initech": "$0.06/day"}


def plan_of(tenant: str) -> str:
    """What a tenant pays for."""
    return PLANS.get(tenant, "$0.10/day")


class Clock:
    """Time that passes when somebody says so."""

    def __init__(self) -> None:
        self.now = END - HOURS * HOUR

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


async def live_through(router: Router[Any], fake: FakeClaude, clock: Clock) -> None:
    """A day of calls: many at noon, few at night, and now and then a failure."""
    prompts = itertools.cycle(json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines())
    numbers = itertools.count()
    for hour in range(HOURS):
        of_day = (clock.now // HOUR) % 24
        calls = round(4 + 16 * max(0.0, math.sin((of_day - 5) / 15 * math.pi)))
        for _ in range(calls):
            number, prompt = next(numbers), next(prompts)
            if number % 37 == 0:
                fake.script(Fault.overloaded(), Fault.overloaded(), OK)
            nightly = of_day < 5 or number % 9 == 0  # noqa: PLR2004  (at night only jobs are at work)
            run = f"tickets of the {18 + hour // 24}th" if nightly else None
            async with router.bind(tenant=prompt["tenant"], route=prompt["endpoint"], run=run):
                with suppress(BudgetExceededError), ROUTES.get(prompt["endpoint"], policy()):
                    await router.claude.messages.create(
                        model="auto",
                        max_tokens=1_500,
                        messages=[*prompt.get("history", []), {"role": "user", "content": prompt["text"]}],
                    )
            clock.now = min(END, clock.now + HOUR / calls)


async def take(browser: Browser, url: str) -> None:
    """Look at the page as different people do."""
    for name, window in (
        ("page", {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "light"}),
        ("page-dark", {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "dark"}),
        ("page-phone", {"viewport": {"width": 360, "height": 740}, "color_scheme": "light"}),
    ):
        context = await browser.new_context(timezone_id="UTC", locale="en-GB", reduced_motion="reduce", **window)
        page = await context.new_page()
        await page.goto(url)
        await page.get_by_label("Token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await page.locator(".decisions").wait_for()
        await page.locator("figure canvas").first.wait_for()
        await page.screenshot(path=IMAGES / f"{name}.png")
        if name == "page":
            row = page.locator(".decisions tbody tr").filter(has_text="attempts").first
            await row.get_by_role("button").click()
            await page.get_by_role("dialog").screenshot(path=IMAGES / "page-decision.png")
        await context.close()


ASKED: Final = (
    ("agent", "Where is my order 4711, and when can it come?"),
    ("contract", "The supplier may change prices at any time without notice."),
)


async def take_desk(browser: Browser) -> None:
    """Look at the page of the example app, as somebody who has asked two things."""
    fake = FakeClaude(answer=said, verdict=sorted_as)
    async with (
        fake.serve() as api,
        AsyncAnthropic(api_key=fake.api_key, base_url=api) as client,
        serving(build(client)) as url,
    ):
        page = await browser.new_page(viewport={"width": 1100, "height": 960}, color_scheme="light", locale="en-GB")
        await page.goto(url)
        for kind, text in ASKED:
            await page.locator(f"label[for=kind-{kind}]").click()
            await page.locator("#text").fill(text)
            await page.get_by_role("button", name="Ask", exact=True).click()
            await page.locator("#stop").wait_for(state="hidden")
        await page.evaluate("scrollTo(0, 0)")
        await page.screenshot(path=IMAGES / "desk.png")
        await page.close()


async def main() -> None:
    """Live through a day, and take the pictures."""
    clock, fake = Clock(), FakeClaude()

    async def sleep(_: float) -> None:
        await asyncio.sleep(0)

    async with fake.client() as client:
        router: Router[Any] = Router(
            client,
            budgets=[Budget("$0.50/day"), Budget(plan_of, per="tenant", name="plan")],
            tracer_provider=TracerProvider(),
            timing=Timing(now=clock, sleep=sleep, jitter=lambda: 0.5),
        )
        page = dashboard(router, token=TOKEN, trace="http://localhost:16686/trace/{trace_id}")
        app = Starlette(routes=[Mount("/money", page)], lifespan=router.lifespan)
        async with serving(app) as url, async_playwright() as playwright:
            await live_through(router, fake, clock)
            browser = await playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
            IMAGES.mkdir(exist_ok=True)
            await take(browser, f"{url}/money/")
            await take_desk(browser)
            await browser.close()
    for path in sorted(IMAGES.glob("*.png")):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    asyncio.run(main())
