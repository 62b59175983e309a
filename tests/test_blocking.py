"""Portals and bridges: scripts that end, processes that fork, threads that are interrupted."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tierline
from tierline.blocking import Bridge, GoneError, Portal, at_once
from tierline.testing import FakeClaude, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Script = Callable[[str], subprocess.Popen[str]]

pytestmark = pytest.mark.usefixtures("quiet")

SCRIPT = """
import asyncio, os, signal, sys, threading
from anthropic import Anthropic
from tierline import Budget, Router, policy
from tierline.anthropic import attach
from tierline.classify import FixedClassifier

ASK = {"model": "auto", "max_tokens": 200, "messages": [{"role": "user", "content": "Why?"}]}
router = Router(classifier=FixedClassifier("moderate"), budgets=[Budget("$5/day")])

def balance():
    (only,) = asyncio.run(router.balances())
    return only.spent, only.held
"""


@pytest.fixture
def script(fake: FakeClaude, thread_url: str) -> Script:
    """Start a script in a process of its own, which calls `fake`."""

    def start(code: str) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603  (our own interpreter)
            # A connection that is kept alive when a script ends is the SDK's; in which order it goes is chance.
            [
                sys.executable,
                "-W",
                "error",
                "-W",
                "ignore:.*fork.*:DeprecationWarning",
                "-W",
                "ignore:unclosed <socket.socket:ResourceWarning",
                "-c",
                SCRIPT + code,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(tierline.__file__).parents[1]),
                "ANTHROPIC_API_KEY": fake.api_key,
                "ANTHROPIC_BASE_URL": thread_url,
            },
        )

    return start


def test_a_script_just_ends(script: Script, fake: FakeClaude) -> None:
    """A script that calls and ends does not hang, and needs to close nothing."""
    process = script(
        """
print(router.sync_claude.messages.create(**ASK).model, *balance())
"""
    )
    out, error = process.communicate(timeout=60)
    assert (out, error, process.returncode) == (f"claude-sonnet-5-5 {fake.billed} 0\n", "", 0)


def test_a_script_settles_what_it_left_open(script: Script, fake: FakeClaude) -> None:
    """What a script holds open when it ends is settled, for those who share its ledger."""
    fake.script(Fault.hang(after=2))
    process = script(
        """
class Telling:
    def __init__(self, ledger):
        self.ledger = ledger
    def __getattr__(self, name):
        return getattr(self.ledger, name)
    async def settle(self, reservation, cost, *, estimated=False):
        print("settled", cost > 0, estimated, flush=True)
        return await self.ledger.settle(reservation, cost, estimated=estimated)

router.books.ledger = Telling(router.ledger)
stream = router.sync_claude.messages.create(**ASK, stream=True)
next(stream)
print("ends", flush=True)
"""
    )
    out, error = process.communicate(timeout=60)
    assert (out, error, process.returncode) == ("ends\nsettled True True\n", "", 0)
    assert fake.requests[0].ended == "disconnected"


@pytest.mark.parametrize("streamed", [False, True])
def test_keyboard_interrupt(script: Script, fake: FakeClaude, streamed: bool) -> None:
    """Ctrl-C in the midst of a call ends it at once, with its money settled."""
    fake.script(Fault.hang(after=2) if streamed else Fault.hang())
    process = script(
        f"""
try:
    answer = router.sync_claude.messages.create(**ASK, stream={streamed})
    list(answer)
except KeyboardInterrupt:
    spent, held = balance()
    print("interrupted", spent > 0, held)
"""
    )
    asyncio.run(fake.until(lambda requests: requests and (not streamed or requests[0].status)))
    if streamed:
        # The thread waits for the third event by then, or is about to.
        asyncio.run(asyncio.sleep(0.5))
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (out, error, process.returncode) == ("interrupted True 0\n", "", 0)


def test_keyboard_interrupt_in_a_wait(script: Script, fake: FakeClaude) -> None:
    """Ctrl-C while the core waits to try again ends the call, and the script with the usual status."""
    fake.always(None, Fault.rate_limit(retry_after=50))
    process = script(
        """
from tierline import policy
with policy(tier="opus"):
    router.sync_claude.messages.create(**ASK)
"""
    )
    asyncio.run(fake.until(lambda requests: requests and requests[0].ended != "open"))
    asyncio.run(asyncio.sleep(0.5))
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert error.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT
    assert len(fake.requests) == 1


def test_fork_after_client_use(script: Script, fake: FakeClaude) -> None:
    """A forked child has a portal of its own, leaves its parent's streams alone, and both end."""
    process = script(
        """
with router.bind() as binding:
    stream = router.sync_claude.messages.create(**ASK, stream=True)
    (attempt,) = binding.open
next(stream)
pid = os.fork()
if not pid:
    with attach(Anthropic(), router) as claude:
        print("child", claude.messages.create(**ASK).model, flush=True)
    asked = len(attempt.loop._ready)
    stream.close()
    assert len(attempt.loop._ready) == asked, "the loop of the parent is asked for something"
    asyncio.run(router.aclose())
    sys.exit(0)
_, status = os.waitpid(pid, 0)
list(stream)
router.sync_claude.messages.create(**ASK)
print("parent", status, *balance())
"""
    )
    out, error = process.communicate(timeout=60)
    first, _, third = fake.requests
    assert error == ""
    assert out == f"child claude-sonnet-5-5\nparent 0 {first.billed + third.billed} 0\n"


# The parts


@pytest.fixture
def portal() -> Iterator[Portal]:
    """A portal with nothing to settle."""
    portal = Portal()
    yield portal
    asyncio.run(portal.aclose(1))


def test_portal_goes_with_its_router(portal: Portal) -> None:
    """A portal that nobody holds any more takes its thread along."""
    other = Portal()
    loop = other.loop()
    assert Bridge(other).run(asyncio.sleep(0, "done")) == "done"
    (worker,) = other._workers.values()
    gone = weakref.ref(other)
    del other
    gc.collect()
    worker._thread.join(20)
    assert (gone(), loop.is_closed(), worker._thread.is_alive()) == (None, True, False)


FULL = """
import os, resource
import anyio.from_thread
from tierline.blocking import Portal

portal = Portal()
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
free = os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, most))
try:
    portal.loop()
except OSError as error:
    failed = error.strerror
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
print(failed, portal.loop().is_running())
"""


def test_portal_where_too_many_files_are_open() -> None:
    """Who needs a loop, and there can be none, is told so and does not wait; the next one may have it."""
    found = subprocess.run(  # noqa: S603  (our own interpreter)
        [sys.executable, "-c", FULL], check=True, timeout=60, capture_output=True, text=True
    )
    assert found.stdout == "Too many open files True\n"


def test_portal_starts_anew(portal: Portal) -> None:
    """After it was closed a portal starts another thread when it is needed."""
    before = threading.enumerate()  # the last test's portals may be among them

    def threads() -> int:
        return sum(thread.name == "tierline" for thread in threading.enumerate() if thread not in before)

    for _ in range(2):
        assert Bridge(portal).run(asyncio.sleep(0, 1)) == 1
        assert threads() == 1
        asyncio.run(portal.aclose(1))
        assert threads() == 0


def test_many_threads_share_one_portal(portal: Portal) -> None:
    """Threads that come at once start one thread between them."""
    start = threading.Barrier(8)
    found: list[object] = []

    def work() -> None:
        start.wait()
        found.append(portal.loop())

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(set(map(id, found))) == 1


def test_bridge_runs_jobs_in_its_thread(portal: Portal) -> None:
    """What the core asks for is done in the thread that called; results and errors go back to the core."""
    bridge = Bridge(portal)

    async def core() -> list[object]:
        found: list[object] = [threading.current_thread(), await bridge.here(threading.current_thread)]
        try:
            await bridge.here(partial(int, "x"))
        except ValueError as error:
            found.append(type(error))
        return found

    core_thread, job_thread, error = bridge.run(core())
    assert core_thread is not threading.current_thread()
    assert job_thread is threading.current_thread()
    assert error is ValueError


def test_bridge_raises_what_the_core_raises(portal: Portal) -> None:
    """An error of the core is raised where the call was made."""

    async def core() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        Bridge(portal).run(core())


def test_result_that_comes_too_late(portal: Portal) -> None:
    """A result that the core does not wait for any more is given to `late`, so that it can be closed."""
    bridge = Bridge(portal)
    given_up, late = threading.Event(), []

    def slow() -> str:
        assert given_up.wait(20)
        return "answer"

    async def core() -> None:
        waiting = asyncio.ensure_future(bridge.here(slow, late.append))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        given_up.set()
        await bridge.here(lambda: None)

    bridge.run(core())
    assert late == ["answer"]


def test_interrupted_thread_ends_the_core(portal: Portal) -> None:
    """Where the thread is interrupted in a job, the core ends first, and who shares its work does not wait for ever."""
    bridge = Bridge(portal)
    ended: list[str] = []
    shared: list[asyncio.Task[Any]] = []

    def interrupted() -> None:
        raise KeyboardInterrupt

    async def core() -> None:
        shared.append(asyncio.ensure_future(bridge.here(interrupted)))
        try:
            await asyncio.wait(shared)
        finally:
            ended.append("core")

    with pytest.raises(KeyboardInterrupt):
        bridge.run(core())
    assert ended == ["core"]

    async def look() -> object:
        await asyncio.wait(shared)
        return shared[0].exception()

    assert isinstance(Bridge(portal).run(look()), GoneError)

    async def after() -> None:
        await bridge.here(lambda: None)

    with pytest.raises(GoneError):
        Bridge(portal).run(after())


def test_loop_that_is_closed_under_a_call(portal: Portal) -> None:
    """A thread that waits for a loop which is closed without a word does not wait for ever."""
    loop = asyncio.new_event_loop()
    bridge = Bridge(portal)
    bridge._loop = loop
    waiting = asyncio.sleep(3600)
    threading.Timer(0.1, loop.close).start()
    with pytest.raises(GoneError):
        bridge.run(waiting)
    bridge = Bridge(portal)
    bridge._loop = loop
    with pytest.raises(RuntimeError, match="closed"):
        bridge.run(asyncio.sleep(0))


def test_at_once() -> None:
    """A coroutine that never waits gives its result; one that wants to is a mistake."""

    async def double(number: int) -> int:
        return 2 * number

    async def turn() -> None:
        await asyncio.sleep(0)

    assert at_once(double(4)) == 8
    with pytest.raises(RuntimeError, match="wanted to wait"):
        at_once(turn())
