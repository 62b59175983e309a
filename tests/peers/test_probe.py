"""A fresh process says what it took to start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peers import startup
from benchmarks.peers.probe import sizes
from benchmarks.upstream import running


@pytest.mark.parametrize("subject", ["sdk", "tierline"])
def test_a_process_starts_and_calls(subject: str, tmp_path: Path) -> None:
    """Its import, its first call and its memory are told apart."""
    with running() as url:
        found = startup._probe(Path(sys.executable), subject, url, bytecode=str(tmp_path))
    assert set(found) == {"import cpu", "import clock", "import memory", "call cpu", "call clock", "memory"}
    assert found["import cpu"] > 0
    assert found["memory"] > found["import memory"] > 0


def test_what_does_not_start_says_why(tmp_path: Path) -> None:
    """With the last line of its error."""
    with pytest.raises(RuntimeError, match="KeyError: 'nobody'"):
        startup._probe(Path(sys.executable), "nobody", "http://127.0.0.1:1", bytecode=str(tmp_path))


def test_sizes_are_of_all_that_is_brought() -> None:
    """Each package once; extras only where they are named; those that are not installed not at all."""
    alone, more = sizes(["anthropic"]), sizes(["anthropic", "anthropic[aiohttp]", "no-such-package"])
    assert {"anthropic", "pydantic", "pydantic-core"} <= set(alone)
    assert "aiohttp" not in alone
    assert "aiohttp" in more
    assert more["anthropic"] == alone["anthropic"] > 1_000_000
