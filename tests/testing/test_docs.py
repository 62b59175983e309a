"""What docs/testing.md shows is a project whose tests pass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.testing.test_plugin import QUIET, loaded

__all__ = ["loaded"]

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_project_of_the_page(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files, put together from their blocks, run as they stand."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    text = PAGE.read_text("utf-8")
    files: dict[str, str] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        first, _, code = block.partition("\n")
        name = re.fullmatch(r"# (\w+)\.py", first)
        assert name is not None, f"a block does not say which file it is of: {first}"
        files[name[1]] = files.get(name[1], "") + code
    assert set(files) == {"desk", "test_desk", "test_plain"}
    pytester.makepyfile(**files)
    (answers,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    pytester.makefile(".jsonl", answers=answers)
    result = pytester.runpytest_inprocess(*QUIET, "--strict-markers")
    result.assert_outcomes(passed=text.count("\ndef test_"))


def test_the_failure_of_the_page(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the floor the message is the one that is shown."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    blocks = re.findall(r"```python\n# (?:test_)?desk\.py\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (said,) = re.findall(r"```text\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    pytester.makepyfile(desk=blocks[0].replace('floor="sonnet"', ""), test_desk=blocks[1])
    result = pytester.runpytest_inprocess(*QUIET, "--strict-markers")
    result.assert_outcomes(failed=1)
    # Prices change.
    result.stdout.fnmatch_lines(re.sub(r"\$[0-9.]+", "$*", said).splitlines(), consecutive=True)
