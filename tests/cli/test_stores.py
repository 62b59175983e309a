"""`tierline report` and `tierline watch`, on stores that real calls have been written to."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from typer.testing import CliRunner

from tests.needs import need
from tests.redis_server import redis_server
from tierline import Budget, Router
from tierline.errors import ConfigurationError
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

need("typer", "rich")

from tierline.cli.app import app  # noqa: E402
from tierline.cli.stores import moment_of, plain_text  # noqa: E402

ROOT = Path(__file__).parents[2]
ODD = "a\x1b[31m\tb"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def run(*arguments: str, **env: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TIERLINE_STORE": "", **env})


async def spend(
    store: str, *, traffic: bool = True, tenants: Sequence[str] = ("acme", "acme", "globex", ODD, "=1+1")
) -> None:
    """A call of each tenant; one has a name that is none, as something else may have written it into the store."""
    fake = FakeClaude()
    async with fake.serve() as url:
        with mock.patch("tierline.binding.is_key", return_value=True):
            await _calls(fake, url, store, tenants, traffic=traffic)


async def _calls(fake: FakeClaude, url: str, store: str, tenants: Sequence[str], *, traffic: bool) -> None:
    client = fake.client(base_url=url)
    router = Router(client, store=store, traffic=traffic, budgets=[Budget("$1/day")])
    for number, tenant in enumerate(tenants):
        async with router.bind(tenant=tenant, route="/ask", run="nightly" if number < 2 else None):
            await router.claude.messages.create(
                model="auto", max_tokens=40, messages=[{"role": "user", "content": "What is two and two?"}]
            )
    await router.aclose()
    await client.close()


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where five calls have been."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('report') / 'desk.db'}"
        asyncio.run(spend(url))
        yield url
    else:
        with redis_server() as server:
            asyncio.run(spend(server.url))
            yield server.url


def test_a_report(store: str) -> None:
    """A table of the ledger's money and of what was recorded; the environment may name the store."""
    done = run("report", TIERLINE_STORE=store)
    assert done.exit_code == 0, done.output
    assert re.search(r"haiku +5 +\$0\.\d+ +100%", done.output)
    assert re.search(r"\$0\.\d+ +100%", run("report", TIERLINE_STORE=store, COLUMNS="40").output), "no amount is cut"
    assert "recorded with Router(traffic=True)" in done.output


@pytest.mark.parametrize("by", ["tier", "route", "account", "job", "hour", "day"])
def test_as_json(store: str, by: str) -> None:
    """Rows and total in nano-USD; whatever rows are, they add up to the total."""
    done = run("report", "--store", store, "--by", by, "--since", "2h", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["recorded"] is True
    assert found["total"]["attempts"] == found["total"]["calls"] == 5
    assert found["by"] == by
    named = {row[by]: row for row in found["rows"]}
    if by == "job":
        assert named.keys() == {"acme/nightly"}
        assert (named["acme/nightly"]["calls"], named["acme/nightly"]["attempts"]) == (2, None)
        return
    for column in ("cost", "own", "calls", "top", "lookups"):
        assert sum(row[column] for row in found["rows"]) == found["total"][column]
    if by == "account":
        assert named.keys() == {"acme", "globex", ODD, "=1+1"}
        assert named["acme"]["calls"] == 2


def test_as_csv(store: str) -> None:
    """One line for each row; no name is a formula to a spreadsheet, or moves a cursor."""
    done = run("report", "--store", store, "--by", "account", "--csv")
    rows = list(csv.DictReader(StringIO(done.output)))
    assert {row["account"] for row in rows} == {"acme", "globex", "a·[31m·b", "'=1+1"}
    assert all(int(row["cost"]) > 0 for row in rows)


kept: Router | None = None
"""The Router that an app would have, for `--app`."""


def test_the_app_names_its_store(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """--app in the place of --store: what its store has is shown, over what the environment says."""
    made = Router(store=store)
    monkeypatch.setattr(sys.modules[__name__], "kept", made)
    monkeypatch.setitem(sys.modules, "an_app", sys.modules[__name__])
    for command in (("report", "--json"), ("watch", "--once", "--json")):
        shown = run(*command, "--app", "an_app:kept", TIERLINE_STORE="sqlite:///not-there.db")
        assert shown.exit_code == 0, shown.output
    found = json.loads(run("report", "--json", "--app", "an_app:kept").stdout)
    assert found["total"] == json.loads(run("report", "--json", "--store", store).stdout)["total"]


def test_names_do_nothing_to_a_terminal(store: str) -> None:
    """A tenant may be called anything."""
    for command in (("report", "--by", "account"), ("watch", "--once")):
        done = run(*command, "--store", store)
        assert done.exit_code == 0
        assert "a·[31m·b" in done.output
        assert "\x1b[31m\t" not in done.output


def test_names_are_no_markup(tmp_path: Path) -> None:
    """What looks like a tag to the library that draws tables is a name, whole; JSON has no control characters."""
    url, names = f"sqlite:///{tmp_path / 'a.db'}", ["[/foo]", "[bold]b", "[link=http://x.test]c", "d\x9b31m\u202e"]
    asyncio.run(spend(url, tenants=names))
    table = run("report", "--by", "account", "--store", url)
    assert table.exit_code == 0, table.output
    for name in names[:3]:
        assert name in table.output
    written = run("report", "--by", "account", "--store", url, "--json").output
    assert written.isascii()
    assert {row["account"] for row in json.loads(written)["rows"]} == set(names)


def test_spans(store: str) -> None:
    """A span that has nothing says so; longer ones have whole days."""
    done = run("report", "--store", store, "--since", "2026-01-01", "--until", "2026-01-02T00:00+01:00")
    assert done.exit_code == 0
    assert "nothing was spent, and no call was recorded" in done.output
    long = json.loads(run("report", "--store", store, "--since", "30d", "--by", "route", "--json").output)
    assert long["since"] % 86_400 == 0
    assert long["total"]["calls"] == 5


def test_what_was_not_recorded(tmp_path: Path) -> None:
    """Money is the ledger's in any case, and of the rest it is said that there is none."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    asyncio.run(spend(url, traffic=False))
    done = run("report", "--store", url)
    assert "were not recorded: give the app Router(traffic=True)" in done.output
    found = json.loads(run("report", "--store", url, "--json").output)
    assert (found["recorded"], found["total"]["calls"], found["total"]["attempts"]) == (False, None, 5)
    assert "no traffic is recorded" in run("watch", "--once", "--store", url).output
    asyncio.run(spend(url))
    assert "are of calls that nobody recorded" in run("report", "--store", url).output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "which store?"),
        (("--store", "memory://"), "the app's own"),
        (("--store", "sqlite:///not-there.db"), "there is no file not-there.db"),
        (("--store", "mysql://root:hunter2@db"), "mysql:// is no store"),
        (("--store", "redis://:hunter2@127.0.0.1:1"), "redis://127.0.0.1:1"),
        (("--store", "sqlite:///x.db", "--since", "yesterday"), "'yesterday' is no moment"),
        (("--store", "sqlite:///x.db", "--since", "1h", "--until", "2h"), "is after --until 2h"),
        (("--store", "sqlite:///x.db", "--json", "--csv"), "leave one of them out"),
    ],
)
def test_what_cannot_be_reported(arguments: tuple[str, ...], says: str) -> None:
    """One line that says what to do, exit code 2, and no password."""
    done = run("report", *arguments)
    assert done.exit_code == 2
    assert says in done.output
    assert "hunter2" not in done.output
    assert "Traceback" not in done.output


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    """It is left as it is."""
    (tmp_path / "a.db").write_text("no database at all, but long enough to be looked at\n" * 30)
    done = run("report", "--store", f"sqlite:///{tmp_path / 'a.db'}")
    assert done.exit_code == 2
    assert "is no SQLite database" in done.output


def test_moments() -> None:
    """So long ago, or a date; one without a time zone is UTC's."""
    assert moment_of("--since", "90m", NOW) == NOW - timedelta(minutes=90)
    assert moment_of("--since", " 2W", NOW) == NOW - timedelta(weeks=2)
    assert moment_of("--since", "2026-11-01", NOW) == datetime(2026, 11, 1, tzinfo=UTC)
    assert moment_of("--since", "2026-11-01T08:00+01:00", NOW) == datetime(2026, 11, 1, 7, tzinfo=UTC)
    for text in ("", "h", "-5h", "5y", "now", "99999999h", "999999w", "9999-12-31T23:59-23:59"):
        with pytest.raises(ConfigurationError, match="is no moment"):
            moment_of("--since", text, NOW)
    assert plain_text("é\x00\u202e") == "é··"


def test_a_look_as_json(store: str) -> None:
    """All of it: budgets, tiers, decisions."""
    done = run("watch", "--once", "--json", "--store", store)
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert (found["today"]["calls"], len(found["decisions"]), found["accounts"]) == (5, 5, 1)
    assert found["by_tier"]["haiku"]["calls"] == 5
    assert found["budgets"][0]["spent"] == found["today"]["cost"]


def terminal(store: str) -> tuple[subprocess.Popen[bytes], int]:
    """`tierline watch` in a terminal of its own."""
    mine, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: S603  (our own interpreter)
        [sys.executable, "-m", "tierline.cli", "watch", "--store", store],
        cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "140", "LINES": "50"},
    )  # fmt: skip
    os.close(theirs)
    return process, mine


def read_until(number: int, wanted: bytes, seconds: float = 60) -> bytes:
    seen, until = b"", time.monotonic() + seconds
    while wanted not in seen and time.monotonic() < until:
        if select.select([number], [], [], 0.2)[0]:
            try:
                seen += os.read(number, 65_536)
            except OSError:  # its other side is closed
                break
    return seen


@pytest.mark.parametrize("end", ["q", "ctrl-c"])
def test_watching_in_a_terminal(store: str, end: str) -> None:
    """It shows what there is, and ends with q or Ctrl-C: with 0, and the terminal as it was."""
    process, number = terminal(store)
    try:
        seen = read_until(number, b"q ends")
        assert b"q ends" in seen
        assert b"\x1b[?1049h" in seen, "a screen of its own"
        if end == "q":
            os.write(number, b"q")
        else:
            process.send_signal(signal.SIGINT)
        rest = read_until(number, b"\x1b[?1049l")
        assert b"\x1b[?1049l" in rest
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(number)


def test_watching_as_json(store: str) -> None:
    """Each decision is a line of JSON, the oldest first; Ctrl-C ends it with 0."""
    with subprocess.Popen(  # noqa: S603  (our own interpreter)
        [sys.executable, "-m", "tierline.cli", "watch", "--json", "--store", store],
        cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            records = [json.loads(process.stdout.readline()) for _ in range(5)]
            assert [each["tenant"] for each in records] == ["acme", "acme", "globex", ODD, "=1+1"]
            assert {each["outcome"] for each in records} == {"ok"}
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_watching_through_a_pipe(store: str) -> None:
    """Each decision is a line; Ctrl-C ends it with 0."""
    with subprocess.Popen(  # noqa: S603  (our own interpreter)
        [sys.executable, "-m", "tierline.cli", "watch", "--store", store],
        cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().decode() for _ in range(7)]
            assert "today $0." in lines[0]
            assert "for 5 calls" in lines[0]
            assert "budget $1/day global" in lines[1]
            assert re.fullmatch(r"\d\d:\d\d:\d\d haiku \$0\.\d+ ok /ask acme .*\n", lines[2])
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
