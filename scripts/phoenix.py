"""Takes the picture of a trace in Arize Phoenix for the documentation: `python -m scripts.phoenix`.

The example app, offline, sends its spans to a Phoenix of its own; real Chromium looks at the trace of one contract.
`make soak` installs Phoenix; a path as the argument names another one.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
from playwright.async_api import async_playwright

from tests.browser.site import FLAGS, chromium_path
from tests.traces.test_phoenix import PHOENIX, free_port, process, spans_in, wait_for

PICTURE: Final = Path(__file__).parent.parent / "docs" / "images" / "phoenix.png"
ASKED: Final = {"text": "Review: the lessee pays all repairs and waives every claim."}
KEY: Final = {"authorization": "Bearer desk-acme"}


def trace_in(url: str) -> str:
    """The id of the trace of a request, when all of it has come."""
    for span in spans_in(url):
        if span["name"].startswith("POST /"):
            return str(span["context"]["trace_id"])
    return ""


async def take(url: str, trace: str) -> None:
    """Look at the attributes of its decision."""
    async with async_playwright() as chromium:
        browser = await chromium.chromium.launch(executable_path=chromium_path(), args=[*FLAGS])
        page = await browser.new_page(viewport={"width": 1200, "height": 760}, color_scheme="light")
        await page.add_init_script("localStorage.setItem('arize-phoenix-theme', 'light')")
        await page.goto(f"{url}/redirects/traces/{trace}")
        await page.get_by_text("route sonnet").first.click()
        await page.get_by_role("tab", name="Attributes").click()
        await page.get_by_text("tierline.decision.tier").first.wait_for()
        await page.get_by_role("dialog").screenshot(path=PICTURE)
        await browser.close()


def main(phoenix: Path) -> None:
    """Ask the desk one thing, and take the picture of what came of it."""
    port, grpc, desk = free_port(), free_port(), free_port()
    url, app = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{desk}"
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(
            process(
                str(phoenix), "serve", until=f"{url}/healthz", PHOENIX_WORKING_DIR=place,
                PHOENIX_HOST="127.0.0.1", PHOENIX_PORT=str(port), PHOENIX_GRPC_PORT=str(grpc),
                PHOENIX_TELEMETRY_ENABLED="false",
            )
        )  # fmt: skip
        wait_for(grpc)
        stack.enter_context(
            process(
                sys.executable, "-m", "uvicorn", "--factory", "example_app.main:build", "--port", str(desk),
                until=f"{app}/ready", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf", OTEL_EXPORTER_OTLP_ENDPOINT=url,
            )
        )  # fmt: skip
        httpx.post(f"{app}/contracts", json=ASKED, headers=KEY, timeout=60).raise_for_status()
        while not (trace := trace_in(url)):
            time.sleep(0.5)
        asyncio.run(take(url, trace))
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PHOENIX)
