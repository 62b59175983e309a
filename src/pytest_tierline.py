"""The pytest plugin of Tierline: `fake_claude` and `tierline_router`, the Messages API offline. See docs/testing.md.

It stands beside the package and not in it, because pytest imports every plugin at its start, and with a module its
packages: nothing of Tierline is imported before a test asks for a fixture.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierline import Router
    from tierline.testing import FakeClaude

_KEY: Final = "ANTHROPIC_API_KEY"
_MARKER: Final = (
    "tierline(answers=None, **options): for `fake_claude` and `tierline_router`. `answers` is a file of recorded "
    "answers, relative to that of the test; the options are those of Router, such as budgets=[Budget('$0.01')]"
)
_recording: Final = pytest.StashKey[tuple[str, str]]()
"""The key with which answers are recorded, and where, from the environment as it was at the start."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """One switch: whether what is not recorded may cost money."""
    parser.getgroup("tierline").addoption(
        "--tierline-record",
        action="store_true",
        help=f"ask Claude for answers that are not recorded yet, with {_KEY}, and write them down: that costs money",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and take the key aside before a fixture replaces it."""
    config.addinivalue_line("markers", _MARKER)
    if config.getoption("--tierline-record"):
        if not os.environ.get(_KEY):
            raise pytest.UsageError(f"--tierline-record asks Claude, and {_KEY} is not set")
        config.stash[_recording] = (
            os.environ[_KEY],
            os.environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com",
        )


@pytest.fixture
def fake_claude(request: pytest.FixtureRequest) -> Iterator[FakeClaude]:
    """A `FakeClaude` that takes every request of every client of the SDK in this test: no key, no network, no cost.

    It says what `fake_claude.answer` says, or what was recorded in the file of `pytest.mark.tierline(answers=…)`.
    """
    from tierline.testing import FakeClaude, RecordedAnswers, offline  # noqa: PLC0415  (for who asks for it)

    name, _ = _marked(request.node)
    recorded = None
    if name is not None:
        key, upstream = request.config.stash.get(_recording, (None, ""))
        path = request.path.parent / name
        recorded = RecordedAnswers(path, api_key=key, upstream=upstream) if key else RecordedAnswers(path)
    fake = FakeClaude(answer=recorded)
    with offline(fake):
        yield fake
    if recorded is not None and recorded.missing:
        keys = ", ".join(f"{model} (key {key})" for key, model in recorded.missing.items())
        pytest.fail(
            f"{recorded.path} has no answer of {keys}: record it with `pytest --tierline-record`, or write it by hand",
            pytrace=False,
        )


@pytest.fixture
def tierline_router(request: pytest.FixtureRequest, fake_claude: FakeClaude) -> Iterator[Router[Any]]:
    """A Router of this test alone, with clients of `fake_claude` and the options of `pytest.mark.tierline(…)`."""
    from anthropic import Anthropic, AsyncAnthropic  # noqa: PLC0415  (a second, for who asks for it)

    from tierline import Router  # noqa: PLC0415

    _, options = _marked(request.node)
    key = fake_claude.api_key
    clients = {"client": AsyncAnthropic(api_key=key), "sync_client": Anthropic(api_key=key)}
    found: Router[Any] = Router(**{**clients, **options})
    yield found
    # The loop of the test is over, or it never had one. In a thread, for some plugins have one running here.
    closing = threading.Thread(target=lambda: asyncio.run(found.aclose()))
    closing.start()
    closing.join()


def _marked(node: pytest.Item) -> tuple[str | None, dict[str, Any]]:
    """The file of answers, and the options of the Router: those of the function over those of its class and module."""
    found: dict[str, Any] = {}
    for mark in reversed(list(node.iter_markers("tierline"))):
        if mark.args:
            raise pytest.UsageError("pytest.mark.tierline takes options by name: tierline(budgets=[Budget('$0.01')])")
        found.update(mark.kwargs)
    return found.pop("answers", None), found
