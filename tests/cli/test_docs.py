"""What docs/evaluation.md shows runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.decisionlog.writer import decision
from tests.needs import need
from tests.pages import parsed
from tierline.decisionlog import record_of

need("typer", "rich")

from typer.testing import CliRunner  # noqa: E402

from tierline.cli.app import app  # noqa: E402
from tierline.decisionlog.record import line_of  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the page, and a log."""
    monkeypatch.chdir(tmp_path)
    (rows,) = blocks("jsonl")
    (scenario,) = blocks("toml")
    Path("new.toml").write_text(scenario, "utf-8")
    Path("rows.jsonl").write_text(rows, "utf-8")
    log = [line_of(record_of(decision(f"d{n}", route="/answer"), at=n, outcome="ok", text="hi")) for n in range(30)]
    Path("decisions.jsonl").write_text("\n".join(log) + "\n", "utf-8")


def test_the_commands() -> None:
    """Each of them exits with 0."""
    commands = [line.split()[1:] for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 7
    for command in commands:
        done = CliRunner().invoke(app, command, input="y\n" * 20)
        assert done.exit_code == 0, (command, done.output)
    assert len(Path("grades.jsonl").read_text().splitlines()) == 20


def test_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Every block of Python can be pasted, and the test that it shows passes."""
    document = parsed(PAGE)
    examples = list(document.examples())
    assert len(examples) == len(blocks("python"))
    for example in examples:
        example.evaluate()
    names: dict[str, Any] = document.namespace
    names["test_the_tiers_are_still_chosen_well"]()
    assert len(list(names["rows"])) == 3
    assert capsys.readouterr().out == "0.500 [0.095, 0.905]\n0.83\n"


def test_the_fields_of_the_log() -> None:
    """The table names every field of a record, and no other."""
    record = record_of(decision("a"), at=0, outcome="ok", text="hi")
    schema = TEXT[TEXT.index("## The decision log") : TEXT.index("## Grading")]
    named = [name for row in re.findall(r"^\| (`.*?) \|", schema, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(record)
