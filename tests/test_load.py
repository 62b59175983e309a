"""The load script of the example: what it drives, what it counts, and what it does not let pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from anthropic import AsyncAnthropic
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from example_app import load
from example_app.main import build
from tests.serving import serving
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "TIERLINE_"))
    }
    environment |= {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "COLUMNS": "200"}
    return subprocess.run(  # noqa: S603  (our own interpreter)
        [sys.executable, "-m", "example_app.load", *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment, **options,
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_the_ledger_is_the_bill() -> None:
    """Many users on two workers, none of whom leaves: the ledger has what was billed, to the nano-dollar."""
    done = run("--users", "4", "--requests", "40", "--patient")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "requests       40 in" in done.stdout
    assert "The ledger has what was billed, to the nano-dollar." in done.stdout
    assert "errors         none" in done.stdout
    assert "left           0 by their user" in done.stdout


@pytest.mark.timeout(300)
def test_ctrl_c_shows_what_came() -> None:
    """It ends early, says what was done, and the ledger holds nothing and has no less than was billed."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "COLUMNS": "200"}
    command = [sys.executable, "-u", "-m", "example_app.load", "--seconds", "3600", "--users", "3"]
    with subprocess.Popen(  # noqa: S603  (our own interpreter)
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert "is up at" in process.stdout.readline()
            time.sleep(2)  # so that something is in flight; whatever it is, the rest holds
            process.send_signal(signal.SIGINT)
            told = process.stdout.read()
            assert process.wait() == 0, told
            assert "$0.00 held" in told
            assert "calls by tier" in told
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


async def test_a_desk_that_runs() -> None:
    """With --url it asks that one: every request ends as an answer, a refusal, an error or a user that left."""
    fake = FakeClaude()
    async with (
        fake.serve() as api,
        AsyncAnthropic(api_key=fake.api_key, base_url=api) as client,
        serving(build(client)) as url,
    ):
        asked = load.argparse.Namespace(users=3, requests=20, seconds=None, seed=1, patient=False)
        seen = await load.drive(url, asked)
    assert seen.asked == 20
    assert seen.routes.total() == 20
    assert not seen.errors
    assert set(seen.statuses) <= {"200", "402", "429"}


async def test_what_fails_is_counted() -> None:
    """A desk that is not there is an error for each request, and no answer."""
    asked = load.argparse.Namespace(users=2, requests=6, seconds=None, seed=1, patient=True)
    seen = await load.drive("http://127.0.0.1:9", asked)
    assert (seen.errors.total(), seen.statuses.total(), seen.seconds) == (6, 0, [])


@pytest.mark.parametrize(
    ("spent", "held", "billed", "left", "well", "words"),
    [
        (5, 0, 5, 0, True, "to the nano-dollar"),
        (6, 0, 5, 1, True, "charged as estimated"),
        (6, 0, 5, 0, False, "nothing explains"),
        (4, 0, 5, 1, False, "nothing explains"),
        (5, 1, 5, 0, False, "Something is held"),
    ],
)
def test_what_is_not_let_pass(spent: int, held: int, billed: int, left: int, well: bool, words: str) -> None:
    """More than was billed takes somebody who left; less, and what is held for nobody, is never well."""
    out = StringIO()
    assert load.told(Console(file=out, width=200), spent, held, billed, left=left) is well
    assert words in out.getvalue()


@pytest.mark.parametrize("arguments", [["--users", "0"], ["--seconds", "-1"], ["--requests", "0"], ["--workers", "0"]])
def test_what_cannot_be_driven(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """2, and why."""
    with pytest.raises(SystemExit) as ended:
        load.main(arguments)
    assert ended.value.code == 2
    assert "above 0" in capsys.readouterr().err


@given(st.lists(st.floats(0, 100), min_size=1), st.sampled_from([0.5, 0.95, 1.0]))
def test_percentiles(seconds: Sequence[float], share: float) -> None:
    """At least that share of them is no longer, and without it less would be."""
    found = load.percentile(seconds, share)
    assert found in seconds
    assert sum(each <= found for each in seconds) >= share * len(seconds) - 1e-9
    assert sum(each < found for each in seconds) < share * len(seconds) + 1e-9
