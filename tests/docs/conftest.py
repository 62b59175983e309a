"""Where the code of a page runs: a directory of its own, a key that is none, an offline API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
