"""Where the code of a page runs: a directory of its own, a key that is none, an offline API. And the built site."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tierline.testing import FakeClaude


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to run code in that makes a client from the environment; nobody is asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-not-asked")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("ANTHROPIC_BASE_URL", "TIERLINE_MODE", "TIERLINE_STORE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def answering(
    here: Path, fake: FakeClaude, thread_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str | None]]:
    """The same, and `fake` answers such clients. Calling it tells the models that were asked."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", fake.api_key)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", thread_url)
    return lambda: [received.model for received in fake.requests]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, strictly. Not quietly: what is not told is not counted either."""
    found = tmp_path_factory.mktemp("site")
    done = subprocess.run(  # noqa: S603  (our own interpreter)
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(found)],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return found
