"""Where a `with policy(…)` block holds: tasks, threads, generators, context managers, requests beside each other."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from tests.apps import ask
from tierline import policy
from tierline.asgi import TierlineMiddleware
from tierline.binding import Binding, Context, context, enter
from tierline.fastapi import Claude  # noqa: TC001  (FastAPI reads annotations)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from anthropic import AsyncAnthropic

    from tests.apps import Serve
    from tierline import Policy, Router

pytestmark = pytest.mark.usefixtures("quiet")

OPUS = policy(floor="opus")
HAIKU = policy(tier="haiku")
TIER = {"claude-haiku-5-5": "haiku", "claude-sonnet-5-5": "sonnet", "claude-opus-5-5": "opus"}


class Owner:
    claude = None


@pytest.fixture(params=["request", "script"])
def binding(request: pytest.FixtureRequest) -> Iterator[Binding | None]:
    """Inside of a request and outside of any."""
    found = Binding(Owner(), {"type": "http"}) if request.param == "request" else None
    enter(Context(found))
    yield found
    enter(Context())


def holding() -> tuple[Policy, ...]:
    """The blocks that would hold for a call made here."""
    now = context()
    kept = now.binding.blocks.values() if now.binding is not None else ()
    return (*(rule for rule, _ in kept), *(rule for rule, _ in now.blocks))


@contextmanager
def strict() -> Iterator[str]:
    with OPUS:
        yield "strict"


@asynccontextmanager
async def astrict() -> AsyncIterator[str]:
    with OPUS:
        await asyncio.sleep(0)
        yield "strict"


@contextmanager
def wrapped() -> Iterator[None]:
    with strict():
        yield


@asynccontextmanager
async def awrapped() -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        stack.enter_context(strict())
        await stack.enter_async_context(astrict())
        yield


# Context managers


@pytest.mark.parametrize("manager", [strict, wrapped])
def test_a_block_in_a_context_manager(binding: Binding | None, manager: Any) -> None:
    """A block in a `@contextmanager` holds inside of its `with`, and nowhere else."""
    with manager():
        assert holding() == (OPUS,)
    assert holding() == ()
    with pytest.raises(KeyError), manager():
        raise KeyError
    assert holding() == ()
    with ExitStack() as stack:
        stack.enter_context(manager())
        assert holding() == (OPUS,)
    assert holding() == ()


@pytest.mark.parametrize("manager", [strict, wrapped, astrict, awrapped])
async def test_a_context_manager_never_leaks_into_a_sibling(binding: Binding | None, manager: Any) -> None:
    """Of the tasks of one request, only the one that entered it is held by it."""
    enter(Context(binding))
    inside, checked = asyncio.Event(), asyncio.Event()

    async def one() -> None:
        entered = manager()
        async with contextlib.AsyncExitStack() as stack:
            if hasattr(entered, "__aenter__"):
                await stack.enter_async_context(entered)
            else:
                stack.enter_context(entered)
            assert OPUS in holding()
            inside.set()
            await checked.wait()
        assert holding() == ()

    async def other() -> None:
        await inside.wait()
        assert holding() == ()
        checked.set()

    await asyncio.gather(one(), other())
    assert holding() == ()
    if binding is not None:
        assert binding.blocks == {}


async def test_a_context_manager_in_a_generator() -> None:
    """Around the `yield` of a generator that is stepped in copies of the context, it holds as long as a block would."""
    binding = Binding(Owner(), {})
    enter(Context(binding))

    def body() -> Iterator[tuple[Policy, ...]]:
        with strict():
            yield holding()
            yield holding()

    async def abody() -> AsyncIterator[tuple[Policy, ...]]:
        async with astrict():
            yield holding()
            yield holding()

    steps = body()
    for _ in range(2):
        assert contextvars.copy_context().run(next, steps) == (OPUS,)
    assert contextvars.copy_context().run(next, steps, None) is None
    assert binding.blocks == {}
    items = abody()
    for _ in range(2):
        assert await asyncio.create_task(anext(items)) == (OPUS,)  # type: ignore[arg-type]
    await asyncio.create_task(items.aclose())  # type: ignore[attr-defined]
    assert binding.blocks == {}


async def test_a_context_manager_that_is_entered_in_a_thread_of_its_own() -> None:
    """A framework that enters it in a worker thread loses the context of that: the request keeps the block."""
    enter(Context(Binding(Owner(), {})))
    manager = strict()
    await asyncio.to_thread(manager.__enter__)
    assert holding() == (OPUS,)
    await asyncio.to_thread(manager.__exit__, None, None, None)
    assert holding() == ()
    entered = astrict()
    await asyncio.create_task(entered.__aenter__())  # type: ignore[arg-type]
    assert holding() == (OPUS,)
    await asyncio.create_task(entered.__aexit__(None, None, None))  # type: ignore[arg-type]
    assert holding() == ()


def test_a_context_manager_that_is_dropped_inside_another_block() -> None:
    """Garbage collection may close one inside of an equal block of somebody else's: that one stands."""
    mine, theirs = contextvars.Context(), contextvars.Context()
    kept: list[Any] = [strict()]
    mine.run(kept[0].__enter__)

    def inside() -> None:
        enter(Context(Binding(Owner(), {})))
        with strict(), OPUS:
            kept.clear()
            gc.collect()
            assert holding() == (OPUS, OPUS)
        assert holding() == ()

    theirs.run(inside)


# In an app


async def tier_of(claude: AsyncAnthropic) -> str:
    return TIER[(await claude.messages.create(**ask())).model]


async def test_blocks_in_a_real_app(router: Router, serve: Serve) -> None:
    """Blocks around awaits, in groups, in tasks that outlive the request, and in none of their siblings."""
    late: list[asyncio.Task[str]] = []
    answered = asyncio.Event()
    app = FastAPI()

    @app.get("/group")
    async def group(claude: Claude) -> list[str]:
        async with asyncio.TaskGroup() as tasks:
            plain = tasks.create_task(tier_of(claude))
            with OPUS:
                held = tasks.create_task(tier_of(claude))
            with strict():
                managed = tasks.create_task(tier_of(claude))
            after = tasks.create_task(tier_of(claude))
        return [task.result() for task in (plain, held, managed, after)]

    @app.get("/late")
    async def start(claude: Claude) -> str:
        async def work() -> str:
            await answered.wait()
            return await tier_of(claude)

        with OPUS:
            late.append(asyncio.create_task(work()))
        late.append(asyncio.create_task(work()))
        return await tier_of(claude)

    @app.get("/plain")
    async def plain(claude: Claude) -> str:
        return await tier_of(claude)

    app.add_middleware(TierlineMiddleware, router=router)
    browser = await serve(app)
    assert (await browser.get("/group")).json() == ["sonnet", "opus", "opus", "sonnet"]
    assert (await browser.get("/late")).json() == "sonnet"
    answered.set()
    other, *found = await asyncio.gather(browser.get("/plain"), *late)
    assert other.json() == "sonnet"
    assert found == ["opus", "sonnet"]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("managed", [False, True])
async def test_blocks_in_yield_dependencies_and_bodies(router: Router, serve: Serve, kind: str, managed: bool) -> None:
    """A block in a yield dependency holds in the endpoint, its threads and its body; one in a body from there on."""
    app = FastAPI()

    def lifted() -> Iterator[None]:
        with strict() if managed else OPUS:
            yield

    async def alifted() -> AsyncIterator[None]:
        async with astrict() if managed else contextlib.nullcontext():
            with policy(floor="sonnet") if managed else OPUS:
                yield

    @app.get("/depends", dependencies=[Depends(lifted if kind == "sync" else alifted)])
    def depends(claude: Claude) -> StreamingResponse:
        before = asyncio.run(asyncio.to_thread(lambda: repr(holding())))

        async def body() -> AsyncIterator[str]:
            yield await tier_of(claude) + " "
            yield await asyncio.create_task(tier_of(claude))

        return StreamingResponse(body(), headers={"x-before": before})

    @app.get("/body")
    async def bodies(claude: Claude) -> StreamingResponse:
        loop = asyncio.get_running_loop()

        def now() -> str:
            return asyncio.run_coroutine_threadsafe(tier_of(claude), loop).result()

        def body() -> Iterator[str]:
            yield now() + " "
            with strict() if managed else OPUS:
                yield now() + " "
                yield now() + " "
            yield now()

        async def abody() -> AsyncIterator[str]:
            yield await tier_of(claude) + " "
            async with astrict() if managed else contextlib.nullcontext():
                with policy() if managed else OPUS:
                    yield await tier_of(claude) + " "
                    yield await tier_of(claude) + " "
            yield await tier_of(claude)

        return StreamingResponse(body() if kind == "sync" else abody())

    app.add_middleware(TierlineMiddleware, router=router)
    browser = await serve(app)
    found = await browser.get("/depends")
    assert found.text == "opus opus"
    assert "opus" in found.headers["x-before"]
    assert (await browser.get("/body")).text == "sonnet opus opus sonnet"
