"""Real Redis servers of the tests' own: on free ports, in directories of their own, and gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Final

import pytest

from tests.needs import need

need("redis")

import redis  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE: Final = 10.0
"""Seconds within which a server has to be there, or gone."""
_names = count()


def need_redis() -> str:
    """Where the server is. Skips where there is none; never in CI: there it is an error."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        if os.environ.get("CI"):
            raise RuntimeError("there is no redis-server on the PATH, and CI must have one")
        pytest.skip("there is no redis-server on the PATH")
    return found


def fresh_namespace() -> str:
    """One that no other test uses."""
    return f"t{os.getpid()}-{next(_names)}"


def free_port() -> int:
    """A port that was free a moment ago, as its bus port (10,000 above) was."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port > 55_000:
                continue
            try:
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


class RedisServer:
    """One server. `options` are those of its command line, without dashes."""

    def __init__(self, **options: str) -> None:
        self.program = need_redis()
        self.folder = tempfile.mkdtemp(prefix="tierline-redis-")
        self.port = free_port()
        self.options = {"save": "", "appendonly": "no", "bind": "127.0.0.1", "daemonize": "no"} | options
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self, **options: object) -> redis.Redis:
        """A plain client, to look and to set with."""
        return redis.Redis(port=self.port, password=self.options.get("requirepass"), **options)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self.program, "--port", str(self.port), "--dir", self.folder]
        for name, value in self.options.items():
            command += [f"--{name.replace('_', '-')}", value]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
        # Where the tests are killed, the pipe to the guard ends, and it ends the server.
        watch = 'read end; kill -9 "$0"; rm -rf "$1"'
        self._guard = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", watch, str(self.process.pid), self.folder], stdin=subprocess.PIPE, start_new_session=True
        )
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                with self.client() as client:
                    client.ping()
                    return
            except redis.ConnectionError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    raise
                time.sleep(0.01)

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it, if it runs."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            try:
                self.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(_PATIENCE)
            self.process = None

    def kill(self) -> None:
        """As a crash does."""
        self.stop(signal.SIGKILL)

    def restart(self) -> None:
        """Crash, and come back with whatever is on disk: without persistence, nothing."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Let it stop answering: its sockets go on taking what is sent."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it, and leave nothing behind."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def redis_server(**options: str) -> Iterator[RedisServer]:
    """A server that runs."""
    server = RedisServer(**options)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@contextmanager
def redis_cluster() -> Iterator[RedisServer]:
    """A cluster of three nodes; the first of them."""
    program = shutil.which("redis-cli") or shutil.which("valkey-cli")
    if program is None:
        pytest.skip("there is no redis-cli on the PATH")
    options = {"cluster_enabled": "yes", "cluster_node_timeout": "2000"}
    nodes = [RedisServer(**options) for _ in range(3)]
    try:
        for node in nodes:
            node.start()
        addresses = [f"127.0.0.1:{node.port}" for node in nodes]
        subprocess.run(  # noqa: S603
            [program, "--cluster", "create", *addresses, "--cluster-yes"],
            check=True,
            timeout=_PATIENCE,
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + _PATIENCE
        for node in nodes:
            with node.client() as client:
                while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
                    assert time.monotonic() < until, "the cluster does not come up"
                    time.sleep(0.05)
        yield nodes[0]
    finally:
        for node in nodes:
            node.remove()
