"""One server for each version, in a process of its own, with an offline API behind it and a browser in front."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import httpx
import pytest

import tierline
from tests.frameworks.overlays import VERSIONS, ready
from tests.pages import DOCS, parsed
from tierline.testing import FakeClaude, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
OVERLAYS = Path(os.environ.get("TIERLINE_OVERLAYS", HERE.parents[1] / ".venv" / "overlays"))
PAGES = {
    "fastapi.md": "fastapi-current",
    "starlette.md": "starlette-current",
    "litestar.md": "litestar-2.25",
    "quart.md": "quart-0.22",
    "django.md": "django-5.2",
}
"""The pages of the cookbook, each with the version that it is served with."""
DEADLINE = 60.0
"""Seconds after which something that has not happened never will."""


def until(condition: Callable[[], object]) -> None:
    """Wait until something is true that nobody tells us of."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def overlay_of(name: str) -> list[str]:
    """What is to be laid over the environment for this version. Skips where it is not there, but not in CI."""
    install = VERSIONS[name]["install"]
    if not install:
        return []
    if not ready(OVERLAYS / name, install):
        missing = f"{name} is not in {OVERLAYS}: `make setup` installs it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return [str(OVERLAYS / name)]


@dataclass
class Served:
    """An app that is served, and what is around it. `environment` is that of its process."""

    framework: str
    http: httpx.Client
    fake: FakeClaude
    environment: dict[str, str]

    @property
    def models(self) -> list[str | None]:
        """The models that were asked, so far."""
        return [received.model for received in self.fake.requests]

    def balance(self, tenant: str, budget: str = "all") -> dict[str, int]:
        """What a tenant has spent and holds."""
        found = self.http.get("/balances").json()
        return next((b for b in found if (b["budget"], b["account"]) == (budget, tenant)), {"spent": 0, "held": 0})

    def settled(self, tenant: str) -> int:
        """What a tenant has spent, once it holds nothing."""
        until(lambda: self.balance(tenant)["held"] == 0)
        return self.balance(tenant)["spent"]


@contextmanager
def serving(version: str, module: str, log: Path, *places: str) -> Iterator[Served]:
    """Serve the app of a module, which is in one of these places, with the packages of one version."""
    with ExitStack() as stack:
        fake = FakeClaude(answer=lambda _: Reply("word " * 50, thinking="hm"))
        url = stack.enter_context(fake.serve_in_thread())
        source = str(Path(tierline.__file__).parents[1])
        environment = os.environ | {
            "ANTHROPIC_API_KEY": fake.api_key,
            "ANTHROPIC_BASE_URL": url,
            "PYTHONPATH": os.pathsep.join([*overlay_of(version), source, *places]),
        }
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        out = stack.enter_context(log.open("wb"))
        descriptor = listener.fileno()
        process = subprocess.Popen(  # noqa: S603  (our own script)
            [sys.executable, str(HERE / "serve.py"), module, str(descriptor)],
            env=environment, pass_fds=[descriptor], stdout=out, stderr=out,
        )  # fmt: skip
        # Where the server does not come up, its browsers are refused and need not wait.
        listener.close()
        try:
            with httpx.Client(base_url=address, timeout=DEADLINE) as http:
                yield Served(VERSIONS[version]["framework"], http, fake, environment)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(DEADLINE)
            finally:
                process.kill()


class Servers:
    """The server that is up, one at a time: it is exchanged where a test needs another version, or another page."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.name = ""
        self.up: Served | None = None
        self.stack = ExitStack()

    def get(self, name: str) -> Served:
        """The server of a version, or of a page of the cookbook."""
        if self.up is None or self.name != name:
            self.close()
            self.name = name
            version = PAGES.get(name, name)
            module, *places = f"app_{VERSIONS[version]['framework']}", str(HERE)
            if name in PAGES:
                module, places = "page", [str(self.page(name))]
            self.up = self.stack.enter_context(serving(version, module, self.work / f"{name}.log", *places))
        return self.up

    def page(self, name: str) -> Path:
        """A directory with the code of a page of the cookbook as a module, `page`."""
        (code,) = [str(example.parsed) for example in parsed(DOCS / "cookbook" / name).examples()]
        directory = self.work / Path(name).stem
        directory.mkdir(exist_ok=True)
        (directory / "page.py").write_text(code, encoding="utf-8")
        return directory

    def close(self) -> None:
        """Stop it, and look at what it said: no task may be lost on the way."""
        self.up = None
        self.stack.close()
        if self.name and (log := self.work / f"{self.name}.log").exists():
            said = log.read_text(encoding="utf-8")
            assert not any(words in said for words in LOST), said


LOST = ("never retrieved", "was destroyed", "never awaited", "different Context", "failed in the background")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers of this run, closed at its end."""
    found = Servers(tmp_path_factory.mktemp("servers"))
    yield found
    found.close()


@pytest.fixture
def served(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Served]:
    """The app of one version, with a policy in all the places that it has."""
    found = servers.get(request.param)
    yield found
    found.fake.clear()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one version follow each other, however the rest is shuffled: they share a server."""
    items.sort(key=lambda item: getattr(item, "callspec", NO_VERSION).params.get("served", ""))


NO_VERSION = SimpleNamespace(params={})
