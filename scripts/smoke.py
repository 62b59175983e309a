"""Walk through an installation as a newcomer would: `python smoke.py`, in an environment that has nothing but Tierline.

With the extras cli, fastapi, redis, testing and tracing, and with pytest. It imports nothing of this repository, says
what it has seen, and fails where that is not what was promised.
"""

from __future__ import annotations

import asyncio
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.metadata import distribution, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2
from anthropic import AsyncAnthropic
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tierline import Budget, Router, policy
from tierline.asgi import TierlineMiddleware
from tierline.classify import LocalClassifier
from tierline.dashboard import dashboard
from tierline.fastapi import Claude
from tierline.testing import FakeClaude, assert_refused, assert_spent, assert_tier, offline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SHOWN: Final = (
    "tierline",
    "anthropic",
    "starlette",
    "fastapi",
    "redis",
    "httpx2",
    "opentelemetry-api",
    "typer",
    "pytest",
)
TOKEN: Final = "smoke-0123456789abcdef"  # noqa: S105  (of a page that lives for a second)
MOST_CALLS: Final = 200
TEST: Final = """
from tierline.testing import assert_spent, assert_tier

def test_it(tierline_router):
    message = tierline_router.sync_claude.messages.create(
        model="auto", max_tokens=300, messages=[{"role": "user", "content": "Are you open on Saturday?"}]
    )
    assert_tier(message, "haiku")
    assert_spent("<$0.01")
"""


def app_of(router: Router[Any]) -> FastAPI:
    """An app with a floor, a stream and the page of an operator."""
    app = FastAPI(lifespan=router.lifespan)
    app.add_middleware(TierlineMiddleware, router=router)
    app.mount("/page", dashboard(router, token=TOKEN))

    @app.post("/contracts", dependencies=[Depends(policy(floor="sonnet"))])
    async def contracts(text: str, claude: Claude) -> str:
        return (await claude.messages.create(**asked(text))).id

    @app.post("/stream")
    async def stream(text: str, claude: Claude) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            async with claude.messages.stream(**asked(text)) as events:
                async for part in events.text_stream:
                    yield part

        return StreamingResponse(body())

    return app


def asked(text: str) -> dict[str, Any]:
    """A request that is routed."""
    return {"model": "auto", "max_tokens": 300, "messages": [{"role": "user", "content": text}]}


async def walk(store: str) -> str:
    """Route an app, stream, set a budget, break it, and read what was done."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    router = Router(
        AsyncAnthropic(),
        store=store,
        budgets=[Budget("$0.05/day", name="plan")],
        tracer_provider=provider,
        traffic=True,
    )
    app = app_of(router)
    transport = httpx2.ASGITransport(app)
    async with router.lifespan(app), httpx2.AsyncClient(transport=transport, base_url="http://app.example") as browser:
        response = await browser.post("/contracts", params={"text": "hi"})
        assert response.status_code == httpx2.codes.OK, response.text
        assert_tier(response, "sonnet")
        streamed = await browser.post("/stream", params={"text": "Are you open on Saturday? Yes or no."})
        assert streamed.text, "the stream said nothing"
        assert_tier(streamed, "haiku")
        for _ in range(MOST_CALLS):
            response = await browser.post("/contracts", params={"text": "hi"})
            if response.status_code != httpx2.codes.OK:
                break
        assert_refused(response, "plan")
        assert_spent("<=$0.05")
        closed = await browser.get("/page/")
        page = await browser.get("/page/", headers={"authorization": f"Bearer {TOKEN}"})
        assert (closed.status_code, page.status_code) == (401, 200), (closed.status_code, page.status_code)
        (balance,) = await router.balances()
        assert 0 < balance.spent <= balance.limit, balance
        calls = router.report().calls
    assert {"route", "attempt"} <= {span.name.split(" ")[0] for span in exporter.get_finished_spans()}
    return f"{store.partition(':')[0]}: {calls} calls, then refused with {response.status_code}"


@contextmanager
def stores(directory: Path) -> Iterator[list[str]]:
    """Every store that can be had here."""
    found = ["memory://", f"sqlite:///{directory / 'tierline.db'}"]
    if (server := shutil.which("redis-server")) is None:
        yield found
        return
    path = directory / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(directory), "--appendonly", "yes"]
    with subprocess.Popen([server, *options], stdout=subprocess.DEVNULL) as process:  # noqa: S603  (found on the path)
        try:
            until = time.monotonic() + 60
            while not path.exists() and time.monotonic() < until:
                time.sleep(0.05)
            yield [*found, f"unix://{path}"]
        finally:
            process.terminate()


def package() -> str:
    """What must be in it beside code."""
    root = files("tierline")
    for name in (
        "py.typed",
        "dashboard/static/index.html",
        "dashboard/static/vendor/preact.js",
        "ledger/lua/reserve.lua",
    ):
        assert root.joinpath(name).is_file(), name
    named = [str(path) for path in distribution("tierline").files or ()]
    assert any("/licenses/" in path for path in named), "no licence"
    assert any("/sboms/" in path for path in named), "no bill of materials"
    assert not [path for path in named if path.startswith("tests")]
    assert LocalClassifier().name
    return f"{len(named)} files"


def command(directory: Path) -> str:
    """The command is there, and explains itself."""
    tierline = Path(sys.executable).parent / "tierline"
    done = subprocess.run([str(tierline), "--help"], capture_output=True, text=True, check=True)  # noqa: S603
    assert "Usage" in done.stdout, done.stdout
    store = f"sqlite:///{directory / 'tierline.db'}"
    report = subprocess.run([str(tierline), "report", "--store", store], capture_output=True, text=True, check=False)  # noqa: S603
    assert report.returncode == 0, report.stdout + report.stderr
    assert "sonnet" in report.stdout, report.stdout
    (directory / "test_smoke.py").write_text(TEST, "utf-8")
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(directory / "test_smoke.py")]
    tests = subprocess.run(run, capture_output=True, text=True, check=False, cwd=directory)  # noqa: S603
    assert tests.returncode == 0, tests.stdout + tests.stderr
    return "the command explains itself and reports, the plugin of pytest works"


def main() -> None:
    """Walk, and say what was seen."""
    print(f"Python {platform.python_version()}:", ", ".join(f"{name} {version(name)}" for name in SHOWN))
    with tempfile.TemporaryDirectory() as name, stores(Path(name)) as found:
        print("  package:", package())
        for store in found:
            with offline(FakeClaude()):
                print("  " + asyncio.run(walk(store)))
        print("  " + command(Path(name)))


if __name__ == "__main__":
    main()
