"""FakeClaude on a real socket, the real SDK in front of it, Routers, and apps served by a real server."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import httpx
import hypothesis
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tests.canaries import Watch, watching
from tests.serving import serving
from tierline import Router
from tierline.attempts import Timing
from tierline.classify import FixedClassifier
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from starlette.types import ASGIApp


# A slow machine is no defect.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _canaries(request: pytest.FixtureRequest) -> Iterator[Watch]:
    """No prompt and no key comes out where nobody asked for it: see `tests.canaries`."""
    files = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    with watching() as watch:
        yield watch
    if request.node.get_closest_marker("texts") is None:
        assert watch.leaks(files) == []


@pytest.fixture
def fake() -> FakeClaude:
    """The offline API."""
    return FakeClaude()


@pytest.fixture
async def fake_url(fake: FakeClaude) -> AsyncIterator[str]:
    """Where `fake` listens."""
    async with fake.serve() as url:
        yield url


@pytest.fixture
async def sdk(fake: FakeClaude, fake_url: str) -> AsyncIterator[AsyncAnthropic]:
    """The app's own client: not routed, with the SDK's two retries."""
    async with AsyncAnthropic(api_key=fake.api_key, base_url=fake_url) as client:
        yield client


@pytest.fixture
def waits() -> list[float]:
    """Seconds that Routers were asked to wait: none of them passes."""
    return []


@pytest.fixture
def defaults(waits: list[float]) -> dict[str, Any]:
    """What Routers are made with unless a test says otherwise: everything is `moderate`, and no time passes."""

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    return {"classifier": FixedClassifier("moderate"), "timing": Timing(sleep=sleep, jitter=lambda: 0.5)}


@pytest.fixture
async def make_router(sdk: AsyncAnthropic, defaults: dict[str, Any]) -> AsyncIterator[Callable[..., Router]]:
    """Make Routers of `sdk`; everything is `moderate` unless a classifier is given."""
    made: list[Router] = []

    def make(client: Any = sdk, **options: Any) -> Router:
        made.append(Router(client, **defaults | options))
        return made[-1]

    yield make
    for router in made:
        await router.aclose()


@pytest.fixture
async def router(make_router: Callable[..., Router]) -> Router:
    """A Router without budgets for which everything is `moderate`."""
    return make_router()


@pytest.fixture
def thread_url(fake: FakeClaude) -> Iterator[str]:
    """Where `fake` listens on a loop of its own, for those who block theirs or have none."""
    with fake.serve_in_thread() as url:
        yield url


@pytest.fixture
def sync_sdk(fake: FakeClaude, thread_url: str) -> Iterator[Anthropic]:
    """A synchronous client of an app: not routed, with the SDK's two retries."""
    with Anthropic(api_key=fake.api_key, base_url=thread_url) as client:
        yield client


@pytest.fixture
def make_sync_router(sync_sdk: Anthropic, defaults: dict[str, Any]) -> Iterator[Callable[..., Router]]:
    """Make Routers of `sync_sdk` for code without a loop; everything is `moderate` unless a classifier is given."""
    made: list[Router] = []

    def make(sync_client: Any = sync_sdk, **options: Any) -> Router:
        made.append(Router(sync_client=sync_client, **defaults | options))
        return made[-1]

    yield make
    for router in made:
        asyncio.run(router.aclose())


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[ASGIApp], Awaitable[httpx.AsyncClient]]]:
    """Serve an app with uvicorn on a free port, its lifespan included, and give a browser for it."""
    async with AsyncExitStack() as stack:

        async def start(app: ASGIApp) -> httpx.AsyncClient:
            url = await stack.enter_async_context(serving(app))
            return await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))

        yield start


_modules = 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Modules stay, so that collecting garbage after a test need not look at them again each time.

    Before any fixture is made: what is frozen here is not collected any more.
    """
    global _modules  # noqa: PLW0603
    if len(sys.modules) > _modules:
        _modules = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _few_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trust one authority instead of all: clients read the list when they are made, and no test leaves this machine."""
    end = "-----END CERTIFICATE-----\n"
    first, found, _ = Path(certifi.where()).read_text("utf-8").partition(end)
    path = tmp_path_factory.mktemp("authorities") / "one.pem"
    path.write_text(first + found, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail where asyncio, OpenTelemetry or the server logged an error: lost tasks, detached contexts, crashed apps."""
    caplog.set_level(logging.WARNING)
    yield
    gc.collect()
    noisy = ("asyncio", "opentelemetry", "uvicorn")
    records = [*caplog.get_records("call"), *caplog.get_records("teardown")]
    assert [r.getMessage() for r in records if r.name.startswith(noisy)] == []
