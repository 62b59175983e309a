"""What docs/batches.md shows runs as it stands."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from tests.batches.world import requests, world
from tests.needs import need
from tests.pages import parsed
from tierline import Ladder
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    import pytest

need("typer", "rich")

from typer.testing import CliRunner  # noqa: E402

from tierline.cli.app import app  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "batches.md"


async def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Every block can be pasted, and the job that it submits is answered."""
    document = parsed(PAGE)
    for example in document.examples():
        example.evaluate()
    async with world() as it:
        router = it.router(
            ladder=Ladder.of(haiku="claude-haiku-4-5", sonnet="claude-sonnet-4-6", opus="claude-opus-4-8")
        )
        texts = ["one", "two", "three"]
        await router.batches.submit(document.namespace["tickets"](texts), job="told")
        await router.batches.wait("told")
        await document.namespace["told"](router, texts, "told")
        cost, saved = it.fake.billed / 1e9, (await router.batches.report("told")).total.saved / 1e9
        assert capsys.readouterr().out.endswith(f"acme: 3 requests, ${cost:.6f}, ${saved:.6f} saved\n")
        await router.batches.delete("told")
        answers = await document.namespace["nightly"](router, texts)
        assert len(answers) == 3
        assert all(answers)
        assert await router.batches.jobs() == []
        assert len(await document.namespace["now"](router, requests(3))) == 3


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them exits with 0, in the order of the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIERLINE_STORE", f"sqlite:///{tmp_path}/a.db")
    text = PAGE.read_text(encoding="utf-8")
    (rows,) = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    Path("tickets.csv").write_text(rows, encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("tierline batch")]
    assert len(commands) == 6
    fake = FakeClaude(answer=lambda _: "billing")
    with fake.serve_in_thread() as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", fake.api_key)
        for command in commands:
            done = CliRunner().invoke(app, command)
            assert done.exit_code == 0, (command, done.output)
    answers = list(csv.DictReader(Path("answers.csv").read_text(encoding="utf-8").splitlines()))
    assert [(each["custom_id"], each["text"]) for each in answers] == [("t1", "billing"), ("t2", "billing")]
