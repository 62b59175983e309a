"""docs/guarantees.md names tests: they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "src/tierline/testing").rglob("*.py")]


def test_every_promise_has_its_tests() -> None:
    """Each chapter of the promises names at least one test, and all that it names exist."""
    promises = (ROOT / "docs/guarantees.md").read_text().partition("## Not promised")[0]
    there = {name for path in TESTS for name in re.findall(r"def (test_\w+)", path.read_text())}
    for chapter in promises.split("\n### ")[1:]:
        named = set(re.findall(r"`(test_\w+)`", chapter))
        assert named, chapter.splitlines()[0]
        assert named <= there, named - there
