"""How a job looks: as tables of 80 columns, as it goes, and where nobody looks."""

from __future__ import annotations

import asyncio
import io
import json
import re
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from tests.needs import need

need("typer", "rich")

from rich.console import Console  # noqa: E402

from tierline.batches import BatchStatus, Estimate, JobReport, JobShare, Preview, Room  # noqa: E402
from tierline.batches.submitting import settings_of  # noqa: E402
from tierline.cli import batch_running  # noqa: E402
from tierline.cli.app import app  # noqa: E402
from tierline.cli.batch_showing import as_json, preview_json, show, show_preview, showing  # noqa: E402
from tierline.router import Router  # noqa: E402
from tierline.testing import FakeClaude  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

STATUS = BatchStatus("j\x1b[2J", "in_progress", 130, 70, 20, 60, 0, 0, 0, 0, 0, 5, ("529 overloaded",))


def shown(found: Any, *more: Any, show: Any = show) -> list[str]:
    file = io.StringIO()
    show(Console(file=file, width=80, force_terminal=True, no_color=True), found, *more)
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in file.getvalue().splitlines()]


def share(tenant: str | None, tier: str, **outcomes: int) -> JobShare:
    return JobShare(tenant, tier, outcomes, 1_000_000, 2_000_000, 40_000_000, outcomes.get("errored", 0))


def test_a_job_in_eighty_columns() -> None:
    """Counts, money, tiers, accounts, dearest first; what commands a terminal is harmless."""
    report = JobReport("j", (share("acme\x07", "haiku", succeeded=60), share(None, "opus", processing=70, errored=1)))
    lines = shown(STATUS, report)
    assert lines[0] == "job j·[2J: in progress"
    assert lines[1] == "130 requests: 60 succeeded, 50 under way, 20 waiting"
    text = "\n".join(lines)
    assert "cost $0.002; as calls $0.004, all on the top tier $0.08: saved $0.078" in text
    assert "of 1 request the API did not say the cost" in text
    assert "tried again: 529 overloaded" in text
    assert "acme·" in text
    assert max(map(len, lines)) <= 80


def test_many_accounts_are_fifty_and_the_rest() -> None:
    """JSON has all of them, and sums that agree."""
    report = JobReport("j", tuple(share(f"t{n:03}", "haiku", succeeded=1) for n in range(60)))
    lines = shown(STATUS, report)
    assert sum(line.lstrip().startswith("t0") for line in lines) == 50
    assert any("(10 more)" in line and "10" in line for line in lines)
    found = json.loads(as_json(STATUS, report))
    assert len(found["by_account"]) == 60
    assert sum(each["cost"] for each in found["by_account"]) == found["cost"] == 60_000_000


def test_a_preview_says_what_has_no_room() -> None:
    """And what can cost without bound; its total stands below several tiers."""
    one = Estimate(2, 10, 20, 400, 50, 1)
    found = Preview({"haiku": one, "opus": one}, 3, (Room("day", "global", 100, 40), Room("all", "x", 1, 40)))
    text = " ".join(shown(found, "a.jsonl", show=show_preview))
    assert "a.jsonl: 4 requests, 3 bad." in text
    assert "total" in text
    assert "2 requests can cost without bound" in text
    assert "budget day of global has $0.00000004 left" in text
    assert "budget all" not in text
    told = json.loads(preview_json(found))
    assert (told["total"]["expected"], told["invalid"], len(told["budgets"])) == (20, 3, 2)
    assert "nothing is held" in shown(Preview({}, 1, ()), "a", show=show_preview)[0]


def test_a_line_now_and_then_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The first at once; none where JSON is wanted."""
    report = JobReport("j", (share(None, "haiku", succeeded=1, processing=3),))
    with showing(silent=False) as told:
        for _ in range(3):
            told.at("answers", 1, 4, report)
    assert capsys.readouterr().err == "answers 25%: 1 of 4  $0.001  haiku 100%\n"
    with showing(silent=True) as told:
        told.at("answers", 1, 4, report)
    assert capsys.readouterr().err == ""


def test_a_bar_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, then answers, in eighty columns; nothing of it stays."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("text\n" + "hi\n" * 30, encoding="utf-8")
    fake = FakeClaude(answer=lambda _: "ok")
    with fake.serve_in_thread() as url:
        environment = {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": fake.api_key,
            "FORCE_COLOR": "1",
            "COLUMNS": "80",
        }
        command = [
            "batch",
            "submit",
            "a.csv",
            "--prompt",
            "{text}",
            "--max-tokens",
            "9",
            "--ceiling",
            "haiku",
            "--wait",
        ]
        done = CliRunner().invoke(app, [*command, "--store", f"sqlite:///{tmp_path}/a.db"], env=environment)
    assert done.exit_code == 0, done.output
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stderr)
    bars = [line for line in re.split(r"[\r\n]+", plain) if line.startswith(("reading ", "answers "))]
    assert {line.split()[0] for line in bars} == {"reading", "answers"}
    assert max(map(len, bars)) <= 80


async def test_one_who_submits_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been killed: then its lease ends, and the job goes on from there."""
    said: asyncio.Queue[str] = asyncio.Queue()
    monkeypatch.setattr(batch_running.typer, "echo", lambda text, **_: said.put_nowait(text))
    router: Router[Any] = Router(store=f"sqlite:///{tmp_path}/a.db")
    asked = batch_running.Asked("j", "digest", "refuse", "batch", wait=False)
    assert await batch_running.begun(router, asked) is None
    jobs = router.batches._store
    await jobs.begin("j", "u", "another", settings_of("refuse", "", "digest", "batch"))
    waiting = asyncio.ensure_future(batch_running.begun(router, asked))
    assert "another process submits to job j, or was killed while it did" in await said.get()
    await jobs.finish("j", "another", whole=False)
    found = await waiting
    assert found is not None
    assert (found.state, said.empty()) == ("interrupted", True)
    await router.aclose()
