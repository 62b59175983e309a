"""The server: ready when entered, gone when left."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading

import anthropic
import httpx
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tierline.errors import ConfigurationError
from tierline.testing import FakeClaude, Fault
from tierline.testing._serve import RESET

ASK = {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_leaves_nothing_behind() -> None:
    """When left, the port is closed and no task is left, even with an open connection."""
    fake = FakeClaude()
    before = asyncio.all_tasks()
    async with fake.serve() as url:
        assert is_open(port_of(url))
        client = AsyncAnthropic(api_key=fake.api_key, base_url=url)
        await client.messages.create(**ASK)
    assert not is_open(port_of(url))
    assert asyncio.all_tasks() == before
    await client.close()


async def test_a_caller_of_a_server_that_closes_gets_a_connection_error() -> None:
    """Who still waits when the server is left is told so at once."""
    fake = FakeClaude()
    fake.always(None, Fault.hang())
    client = AsyncAnthropic(api_key=fake.api_key, max_retries=0)
    async with client:
        async with fake.serve() as url:
            call = asyncio.create_task(client.with_options(base_url=url).messages.create(**ASK))
            await fake.until(lambda requests: requests and requests[0].body)
        with pytest.raises(anthropic.APIConnectionError):
            await call
    await fake.idle()
    assert fake.requests[0].ended == "disconnected"


async def test_two_servers_at_once() -> None:
    """One fake may be served twice, on two ports."""
    fake = FakeClaude()
    async with fake.serve() as one, fake.serve() as two:
        assert one != two
        for url in (one, two):
            async with AsyncAnthropic(api_key=fake.api_key, base_url=url) as client:
                await client.messages.create(**ASK)
    assert len(fake.requests) == 2


def test_in_a_thread_for_sync_programs() -> None:
    """The sync client creates, streams and meets resets; then thread and port are gone."""
    fake = FakeClaude()
    threads = threading.active_count()
    with fake.serve_in_thread() as url, Anthropic(api_key=fake.api_key, base_url=url, max_retries=0) as client:
        assert client.messages.create(**ASK).stop_reason == "end_turn"
        with client.messages.stream(**ASK) as stream:
            assert stream.get_final_message().stop_reason == "end_turn"
        fake.script(Fault.reset())
        with pytest.raises(anthropic.APIConnectionError):
            client.messages.create(**ASK)
    assert threading.active_count() == threads
    assert not is_open(port_of(url))
    assert len(fake.requests) == 3


def test_many_threads_share_a_fake() -> None:
    """Calls from many threads are all logged, each with its own number, and the sum is theirs."""
    fake = FakeClaude()
    with fake.serve_in_thread() as url, Anthropic(api_key=fake.api_key, base_url=url) as client:
        ids: list[str] = []
        workers = [
            threading.Thread(target=lambda: ids.extend(client.messages.create(**ASK).id for _ in range(5)))
            for _ in range(8)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(set(ids)) == 40
    assert fake.billed == sum(entry.billed for entry in fake.requests)


async def test_an_exception_in_the_block_passes() -> None:
    """What is raised inside comes out, after the server is closed."""
    with pytest.raises(KeyError):
        async with FakeClaude().serve() as url:
            raise KeyError(url)
    with pytest.raises(KeyError), FakeClaude().serve_in_thread() as url:
        raise KeyError(url)
    assert not is_open(port_of(url))


async def test_without_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigurationError, match=r'pip install "tierline\[testing\]"'):
        async with FakeClaude().serve():
            pass
    with pytest.raises(ConfigurationError, match="uvicorn"), FakeClaude().serve_in_thread():
        pass


async def test_an_app_that_does_not_listen_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """A server that is left ends its tasks, also those of an app that never asks whether its client is there."""
    from tierline.testing._serve import serving

    entered = asyncio.Event()

    async def app(scope: object, receive: object, send: object) -> None:
        entered.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    async with serving(app) as url, httpx.AsyncClient() as http:
        call = asyncio.create_task(http.get(url))
        await entered.wait()
        before.add(call)
    assert asyncio.all_tasks() <= before
    with pytest.raises(httpx.HTTPError):
        await call


async def test_reset_is_offered_to_the_app() -> None:
    """The app finds the function that resets in its scope's extensions."""
    from tierline.testing._serve import serving

    seen: list[object] = []

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        seen.append(scope["extensions"][RESET])  # type: ignore[index]
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    async with serving(app) as url, httpx.AsyncClient() as http:
        assert (await http.get(url)).status_code == 204
    assert callable(seen[0])
