from __future__ import annotations

import asyncio
import gc
import json
import logging
import shutil
import sys
import threading
import time
from subprocess import run
from typing import TYPE_CHECKING
from weakref import ref

import pytest

from tests.redis_server import RedisServer, free_port, fresh_namespace, redis_server
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.store.redis import CONNECTIONS, RedisStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = ("*", "", "30", "1000")
"""What every script is given first: any epoch, the server's clock."""
RIGHT = "s3cret%25word"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server(requirepass="s3cret%word") as server:
        yield server


def url_of(server: RedisServer, password: str = RIGHT) -> str:
    return f"redis://:{password}@127.0.0.1:{server.port}/0"


@pytest.fixture
def store(server: RedisServer) -> RedisStore:
    return RedisStore(url_of(server), namespace=fresh_namespace(), timeout=2)


async def ask(store: RedisStore, name: str = "renew", *args: str) -> str:
    """The status of an answer of a script that does nothing."""
    answer = await store.script(f"ledger/{name}", [f"{store.prefix}meta"], lambda _: [*HEAD, *args])
    return json.loads(answer)[0]


def alone(server: RedisServer) -> None:
    """Nobody is connected any more, or will not be in a moment."""
    until = time.monotonic() + 5
    with server.client() as client:
        while client.info("clients")["connected_clients"] > 1:
            assert time.monotonic() < until, client.client_list()
            time.sleep(0.01)


async def test_script(store: RedisStore) -> None:
    """A script is sent once, and called by its digest from then on."""
    assert await ask(store) == "done"
    assert await ask(store) == "done"
    await store.aclose()
    assert await ask(store) == "done", "a store that was closed is opened again"
    await store.aclose()


async def test_script_flush(server: RedisServer, store: RedisStore) -> None:
    """A server that has forgotten its scripts is told them again, as often as it takes."""
    for _ in range(3):
        assert await ask(store) == "done"
        with server.client() as client:
            client.script_flush()
    await store.aclose()


@pytest.mark.parametrize("url", ["", "http://localhost", "redis", "postgres://x", "redis://localhost:port"])
def test_urls_that_are_none(url: str) -> None:
    """What is no URL of a Redis is said at start-up."""
    with pytest.raises(ConfigurationError, match="Redis"):
        RedisStore(url)


@pytest.mark.parametrize("url", ["redis://:12/s3cret@host:6379/0", "rediss://me:1/s3cret@host", "redis://:1?s3cret@host",
                                 "redis://:1#s3cret@host"])  # fmt: skip
def test_passwords_that_end_an_address(url: str) -> None:
    """A password whose / would begin a path is asked for as %2F, and nothing of it is said."""
    with pytest.raises(ConfigurationError, match="%2F") as raised:
        RedisStore(url)
    assert "s3cret" not in str(raised.value)


def test_what_may_have_an_at_sign() -> None:
    """A password that is written as it should be, and a socket."""
    assert repr(RedisStore("redis://:12%2Fs3cr%40t@host/1")) == "RedisStore('redis://host/1', namespace='tierline')"
    assert "/run/redis@1.sock" in repr(RedisStore("unix:///run/redis@1.sock"))


@pytest.mark.parametrize("options", [{"namespace": ""}, {"namespace": "a{b}"}, {"namespace": "a\n"}, {"timeout": 0}])
def test_arguments_that_cannot_work(options: dict) -> None:
    """A mistake is named."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        RedisStore("redis://localhost", **options)


def test_without_redis_py(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where redis-py is missing, the error says what to install."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigurationError, match=r"pip install \"tierline\[redis\]\""):
        RedisStore("redis://localhost")


def test_imports_nothing_before_it_is_made() -> None:
    """The module itself is cheap: redis-py is loaded with the first store."""
    code = "import sys, tierline.ledger.redis; assert 'redis' not in sys.modules, 'redis was loaded'"
    run([sys.executable, "-c", code], check=True, timeout=60)  # noqa: S603


async def test_wrong_password(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong password is an outage, and stands in no message, log or repr."""
    caplog.set_level(logging.DEBUG)
    for password in ("wr0ng%25word", ""):
        store = RedisStore(url_of(server, password), timeout=2)
        with pytest.raises(LedgerUnavailableError) as raised:
            await ask(store)
        seen = f"{raised.value} {raised.value!r} {raised.value.__cause__!r} {store!r} {caplog.text}"
        assert "wr0ng" not in seen
        assert "word@" not in seen
        await store.aclose()


async def test_acl_without_rights(server: RedisServer) -> None:
    """A user who may not do what a script does is an outage too; one who may use these keys alone can do all."""
    namespace = fresh_namespace()
    with server.client() as client:
        client.acl_setuser("poor", enabled=True, passwords=["+pw"], commands=["+ping"], keys=["*"])
        client.acl_setuser("good", enabled=True, passwords=["+pw"], categories=["+@all"], keys=[f"{{{namespace}}}:*"])
    poor = RedisStore(f"redis://poor:pw@127.0.0.1:{server.port}", namespace=namespace)
    with pytest.raises(LedgerUnavailableError, match="NoPermission"):
        await ask(poor)
    await poor.aclose()
    good = RedisStore(f"redis://good:pw@127.0.0.1:{server.port}", namespace=namespace)
    assert await ask(good) == "done"
    await good.aclose()


async def test_absent() -> None:
    """Nobody listens: said at once, with where."""
    port = free_port()
    store = RedisStore(f"redis://:s3cret@127.0.0.1:{port}")
    began = time.monotonic()
    with pytest.raises(LedgerUnavailableError, match=f"127.0.0.1:{port}") as raised:
        await ask(store)
    assert time.monotonic() - began < 1
    assert "s3cret" not in str(raised.value)
    await store.aclose()


async def test_frozen() -> None:
    """A server that does not answer costs no more than the timeout, for one call and for a hundred."""
    with redis_server() as server:
        store = RedisStore(server.url)
        await ask(store)
        server.freeze()
        for calls in (1, 100):
            began = time.monotonic()
            found = await asyncio.gather(*(ask(store) for _ in range(calls)), return_exceptions=True)
            assert time.monotonic() - began < 1
            assert {type(each) for each in found} == {LedgerUnavailableError}
        server.thaw()
        assert await ask(store) == "done"
        await store.aclose()


async def test_not_written_to() -> None:
    """Out of memory, a replica, still loading: the server refuses to write, and says why."""
    with redis_server(maxmemory="1", maxmemory_policy="noeviction") as server:
        store = RedisStore(server.url, timeout=2)
        with pytest.raises(LedgerUnavailableError, match="OutOfMemory"):
            await ask(store)
        await store.aclose()
        with server.client() as client, redis_server() as master:
            client.config_set("maxmemory", "0")
            assert await ask(store) == "done"
            client.replicaof("127.0.0.1", master.port)
            with pytest.raises(LedgerUnavailableError, match="ReadOnly"):
                await ask(store)
            await store.aclose()


async def test_arguments_are_told_what_is_left_of_the_patience(store: RedisStore) -> None:
    """From the moment at which it began: the server may be told not to do what nobody waits for any more."""
    told: list[float] = []

    def arguments(left: float) -> list[str]:
        told.append(left)
        return [*HEAD]

    for _ in range(2):
        await store.script("ledger/renew", [f"{store.prefix}meta"], arguments)
    first, then = told
    assert store.timeout < first < store.longest, "a first contact may take longer"
    assert store.timeout / 2 < then < store.timeout
    await store.aclose()


async def test_server_restarted(store: RedisStore) -> None:
    """Connections that died with the server are replaced, and no call notices."""
    with redis_server() as server:
        store = RedisStore(server.url, timeout=2)
        await asyncio.gather(*(ask(store) for _ in range(20)))
        server.restart()
        assert await asyncio.gather(*(ask(store) for _ in range(20))) == ["done"] * 20
        await store.aclose()


async def test_bounded_connections() -> None:
    """Hundreds of calls at a time share a few connections."""
    with redis_server() as server:
        store = RedisStore(server.url, timeout=10)
        await asyncio.gather(*(ask(store) for _ in range(500)))
        with server.client() as client:
            assert client.info("clients")["connected_clients"] <= CONNECTIONS + 1
        await store.aclose()
        alone(server)


async def test_cancelled_calls_leave_no_answers_behind(store: RedisStore) -> None:
    """Whoever comes after a call that was cancelled gets an answer of his own."""
    for turn in range(50):
        task = asyncio.ensure_future(ask(store, "join", "member", "", "epoch", "0"))
        for _ in range(turn % 10):
            await asyncio.sleep(0)
        task.cancel()
        assert await ask(store) == "done"
        await asyncio.gather(task, return_exceptions=True)
    await store.aclose()


def test_event_loop_swap(server: RedisServer, store: RedisStore) -> None:
    """Each loop has connections of its own, which go with it: nothing is warned of, and the server is not left any."""
    for _ in range(3):
        assert asyncio.run(ask(store)) == "done"
    found = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(ask(store)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["done"] * 4
    alone(server)


def test_a_loop_closed_under_its_connections(server: RedisServer, store: RedisStore) -> None:
    """A loop that is closed without shutting anything down is let go of with the next one: its sockets are closed."""
    for _ in range(2):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(ask(store)) == "done"
        loop.close()
    assert asyncio.run(ask(store)) == "done"
    alone(server)


def test_loops_closed_under_their_connections_are_forgotten(server: RedisServer, store: RedisStore) -> None:
    """Who closes a loop after each job, and shuts nothing down, leaves nothing of it in memory, with no warning."""
    clients = []
    for _ in range(5):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(ask(store)) == "done"
        clients.append(ref(store._clients[loop]))
        loop.close()
    del loop
    assert asyncio.run(ask(store)) == "done"
    gc.collect()
    assert [client() for client in clients] == [None] * 5
    alone(server)


FORK = """
import asyncio, json, os, sys
from tierline.store.redis import RedisStore

store = RedisStore(sys.argv[1], namespace="fork", timeout=5)

async def ask():
    return json.loads(await store.script("ledger/renew", [store.prefix + "meta"], lambda _: ["*", "", "30", "1000"]))[0]

async def several():
    for _ in range(20):
        assert await ask() == "done", "somebody else took the answer"
        await asyncio.sleep(0.01)

loop = asyncio.new_event_loop()
loop.run_until_complete(several())
child = os.fork()
if child == 0:
    for _ in range(3):
        asyncio.run(several())
    os._exit(0)
loop.run_until_complete(several())
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child failed"
loop.run_until_complete(several())
loop.run_until_complete(store.aclose())
loop.close()
"""


def test_fork_after_client_use(server: RedisServer) -> None:
    """A child makes connections of its own, and leaves its parent's alone, also when it ends."""
    run([sys.executable, "-W", "error", "-c", FORK, url_of(server)], check=True, timeout=60)  # noqa: S603


async def test_unix_socket() -> None:
    """A server may be asked over a socket in the file system."""
    with redis_server() as server:
        server.stop()
        server.options["unixsocket"] = f"{server.folder}/s"
        server.start()
        store = RedisStore(f"unix://{server.folder}/s", timeout=2)
        assert await ask(store) == "done"
        await store.aclose()


async def test_tls(tmp_path: Path) -> None:
    """A server may be asked over TLS, and one that nobody vouches for is not asked."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl on the PATH to make a certificate with")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    make = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    await asyncio.to_thread(run, [openssl, *make, *name], check=True, capture_output=True, timeout=60)
    port = free_port()
    options = {"tls_port": str(port), "tls_cert_file": certificate, "tls_key_file": key, "tls_auth_clients": "no"}
    with redis_server(tls_ca_cert_file=certificate, **options):
        trusting = RedisStore(f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}", timeout=5)
        assert await ask(trusting) == "done"
        await trusting.aclose()
        careful = RedisStore(f"rediss://127.0.0.1:{port}", timeout=5)
        with pytest.raises(LedgerUnavailableError, match="certificate"):
            await ask(careful)
        await careful.aclose()
