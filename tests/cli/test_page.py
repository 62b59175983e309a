"""What docs/cli.md shows is what the commands print, on the app of the page."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.needs import need

if TYPE_CHECKING:
    from collections.abc import Iterator

need("typer", "rich")

from typer.testing import CliRunner  # noqa: E402

from tierline.cli.app import app  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
EXIT: dict[str, int] = {"tierline routes main:app --require-floor haiku --ignore /answer --ignore /summary": 0}
"""Commands of the page that do not end with 0, and those that are looked at twice."""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The app of the page, where a person would start it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("ANTHROPIC_API_KEY", "TIERLINE_STORE", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    (code,) = [block for language, block in BLOCKS if language == "python"]
    (tmp_path / "main.py").write_text(code, encoding="utf-8")
    sys.modules.pop("main", None)
    yield
    sys.modules.pop("main", None)


def test_the_commands(there: None) -> None:
    """Each ends as it should, and what the page shows below it is what it prints."""
    shown = 0
    for place, (language, block) in enumerate(BLOCKS):
        for line in block.splitlines() if language == "sh" else ():
            done = CliRunner().invoke(app, shlex.split(line)[1:], env={"COLUMNS": "80"})
            assert done.exit_code == EXIT.get(line, 0), (line, done.output)
            if place + 1 < len(BLOCKS) and BLOCKS[place + 1][0] == "text":
                assert lines_of(done.output) == lines_of(BLOCKS[place + 1][1]), line
                shown += 1
    assert shown == sum(language == "text" for language, _ in BLOCKS)


def lines_of(text: str) -> list[str]:
    """The lines of a terminal, without what is not seen of them, and without amounts: prices change."""
    return [re.sub(r" +", " ", re.sub(r"\$[\d.,]*\d", "$", line)).strip() for line in text.strip().splitlines()]
