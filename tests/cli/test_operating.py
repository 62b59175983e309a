"""`tierline budgets` and `tierline cache`, on stores that real calls have been written to."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from typer.testing import CliRunner

from tests.needs import need
from tests.redis_server import redis_server
from tierline import Budget, Router
from tierline.asgi import TierlineMiddleware
from tierline.classify import ClaudeClassifier
from tierline.ledger import RedisLedger, SQLiteLedger
from tierline.store.sqlite import SQLiteStore
from tierline.testing import FakeClaude
from tierline.values import NANO, Offer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierline.ledger import Reservation

need("typer", "rich")

from tierline.cli import budgets  # noqa: E402
from tierline.cli.app import app as command  # noqa: E402

ROOT = Path(__file__).parents[2]
ALL = [Budget("$1/day"), Budget("$2", per="tenant", name="plan"), Budget("$0.01/hour", name="soft", hard=False)]
ODD = "[bold]b"
"""No markup: accounts may have any printable name."""


def run(*arguments: str, keys: str | None = None, **env: str) -> Any:
    found = {"COLUMNS": "120", "TIERLINE_STORE": "", **env}
    return CliRunner().invoke(command, list(arguments), input=keys, env=found)


def lines(done: Any) -> list[str]:
    assert done.exit_code == 0, done.output
    return [" ".join(line.split()) for line in done.output.splitlines()]


async def spend(store: str) -> None:
    """A call of each tenant, each with a verdict of Claude's."""
    fake = FakeClaude()
    async with fake.serve() as url:
        client = fake.client(base_url=url)
        router = Router(client, store=store, budgets=ALL, classifier=ClaudeClassifier(worth=0))
        for tenant in ("acme", "globex", ODD):
            async with router.bind(tenant=tenant, route="/ask"):
                await router.claude.messages.create(
                    model="auto", max_tokens=40, messages=[{"role": "user", "content": f"What is it, {tenant!r}?"}]
                )
        await router.aclose()
        await client.close()


async def hold(store: str) -> Reservation:
    """A hold that nobody will settle, of a worker that is gone; it lapses in an hour."""
    if store.startswith("redis"):
        ledger: Any = RedisLedger(store, lease=3_600)
    else:
        ledger = SQLiteLedger(SQLiteStore(store.removeprefix("sqlite:///")), lease=3_600)
    lines = [ALL[1].line("acme")]
    held = await ledger.reserve("left-1", [Offer("opus", "claude-opus-5-5", 250_000_000)], lines)
    await ledger.aclose()
    return held  # type: ignore[no-any-return]


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'desk.db'}"
    else:
        with redis_server() as server:
            yield server.url


def test_budgets(store: str) -> None:
    """What was spent and is held, limits that are set and taken back, a hold that is given back."""
    at = ("--store", store)
    asyncio.run(spend(store))
    asyncio.run(hold(store))
    shown = lines(run("budgets", "show", *at))
    assert any(line.startswith("plan acme $0.0") and "$2.00" in line and "never" in line for line in shown), shown
    assert any(line.startswith("plan [bold]b $0.0") for line in shown)
    told = {
        (each["budget"], each["account"]): each for each in json.loads(run("budgets", "show", *at, "--json").stdout)
    }
    assert told["plan", "acme"]["held"] == 250_000_000
    assert told["$1/day", "global"]["spent"] == sum(told["plan", who]["spent"] for who in ("acme", "globex", ODD))
    assert json.loads(run("budgets", "show", *at, "--account", "globex", "--json").stdout) == [told["plan", "globex"]]

    # Limits
    assert lines(run("budgets", "set", "plan", "$5", "--account", "acme", *at)) == ["budget plan, account acme: $5.00"]
    assert lines(run("budgets", "set", "plan", "$3", *at)) == ["budget plan, all accounts: $3.00"]
    shown = lines(run("budgets", "show", *at))
    assert "set at run time: plan, account acme: $5.00" in shown
    assert any(line.startswith("plan globex") and "$3.00" in line and "limit set" in line for line in shown)
    back = json.loads(run("budgets", "reset", "plan", "--account", "acme", *at, "--json").stdout)
    assert back == {"budget": "plan", "account": "acme", "limit": 3 * NANO, "before": 5 * NANO}
    assert "what the app says, before: $3.00" in run("budgets", "reset", "plan", *at).stdout

    # Holds
    assert any(line.startswith("left-1 (no tenant)") for line in lines(run("budgets", "holds", *at)))
    (there,) = json.loads(run("budgets", "holds", *at, "--json").stdout)
    assert (there["id"], there["cost"], there["accounts"]) == ("left-1", 250_000_000, [["plan", "acme"]])
    alive = run("budgets", "release", "left-1", *at, "--yes")
    assert (alive.exit_code, "its call is in flight" in alive.stderr) == (2, True)
    no = run("budgets", "release", "left", *at, "--force", keys="n\n")
    assert (no.exit_code, "nothing was changed" in no.stderr) == (2, True)
    nobody = run("budgets", "release", "left", *at, "--force", keys="")
    assert (nobody.exit_code, "--yes says it" in nobody.stderr) == (2, True)
    assert len(json.loads(run("budgets", "holds", *at, "--json").stdout)) == 1
    done = run("budgets", "release", "left", *at, "--force", keys="y\n")
    assert done.exit_code == 0, done.output
    assert "give back $0.25 of plan acme, held for opus" in done.stdout
    assert lines(run("budgets", "holds", *at)) == ["nothing is in flight"]
    after = json.loads(run("budgets", "show", *at, "--account", "acme", "--json").stdout)
    assert (after[0]["held"], after[0]["spent"]) == (0, told["plan", "acme"]["spent"])


def test_a_hold_whose_worker_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody has renewed for half of its lease needs no --force."""
    store = f"sqlite:///{tmp_path / 'desk.db'}"
    asyncio.run(hold(store))
    monkeypatch.setattr(budgets, "RENEWED", 1_000)
    done = run("budgets", "release", "left-1", "--store", store, "--yes", "--json")
    assert json.loads(done.stdout)["released"] is True
    again = run("budgets", "release", "left-1", "--store", store, "--yes")
    assert (again.exit_code, "is no hold" in again.stderr) == (2, True)


def test_the_cache(store: str) -> None:
    """Verdicts that were stored are counted, and forgotten when somebody says so."""
    at = ("--store", store)
    asyncio.run(spend(store))
    assert json.loads(run("cache", "stats", *at, "--json").stdout)["size"] == 3
    assert "3 verdicts are kept" in run("cache", "stats", *at).stdout
    assert run("cache", "clear", *at, keys="n\n").exit_code == 2
    assert "3 verdicts forgotten" in run("cache", "clear", *at, keys="y\n").stdout
    assert json.loads(run("cache", "stats", *at, "--json").stdout)["size"] == 0
    assert json.loads(run("cache", "clear", *at, "--yes", "--json").stdout) == {"forgotten": 0}


def plain() -> Any:
    return Starlette(middleware=[Middleware(TierlineMiddleware, router=Router(budgets=ALL))])


router = Router(budgets=ALL, store="sqlite:///desk.db", share_verdicts=False)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """An app with a store of its own."""
    made = Router(budgets=ALL, store=f"sqlite:///{tmp_path / 'desk.db'}", share_verdicts=False)
    monkeypatch.setitem(globals(), "router", made)
    return ("--app", "tests.cli.test_operating:router")


def test_the_budgets_of_an_app(desk: tuple[str, ...]) -> None:
    """An app knows its budgets before anything was charged to them; a name that there is not is refused."""
    assert lines(run("budgets", "show", *desk)) == ["nothing was spent yet"]
    assert lines(run("budgets", "show", *desk, "--account", "[/x]")) == ["no account '[/x]' has spent anything yet"]
    assert lines(run("budgets", "show", *desk, "--account", "acme")) == ["no account 'acme' has spent anything yet"]
    assert run("budgets", "set", "plan", "$5", *desk).exit_code == 0
    assert run("budgets", "set", "plam", "$5", *desk).exit_code == 2
    assert "no verdicts are shared here" in run("cache", "stats", *desk).stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("budgets", "show"), "which store?"),
        (("budgets", "show", "--factory", "--app", "tests.cli.test_operating:plain"), "no other process sees it"),
        (("budgets", "set", "plan", "$5", "--store", "{store}"), "nothing was charged to a budget 'plan' yet"),
        (("budgets", "set", "plan", "$5/day", "--store", "{store}", "--force"), "names a window"),
        (("budgets", "set", "plan", "five", "--store", "{store}", "--force"), "is not an amount of money"),
        (("budgets", "reset", "plan", "--store", "{store}"), "there is nothing to take back"),
        (("budgets", "release", "", "--store", "{store}"), "is no hold"),
        (("cache", "clear", "--store", "memory://"), "the app's own"),
    ],
)
def test_what_cannot_be_done(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    """2, one line that says what to write, and nothing is changed."""
    (tmp_path / "empty.db").touch(mode=0o600)
    store = f"sqlite:///{tmp_path / 'empty.db'}"
    done = run(*(each.format(store=store) for each in arguments))
    assert (done.exit_code, says in done.stderr) == (2, True), done.output
    assert "Traceback" not in done.output


def test_completion() -> None:
    """Shells are taught the commands: every one of them is in its own help."""
    done = run("--help")
    for word in ("routes", "explain", "doctor", "watch", "report", "budgets", "cache", "batch", "--install-completion"):
        assert word in done.stdout
    script = "import sys; sys.argv = ['tierline']; from tierline.cli import main; main()"
    asked = {"_TIERLINE_COMPLETE": "complete_bash", "COMP_WORDS": "tierline bud", "COMP_CWORD": "1"}
    found = subprocess.run(  # noqa: S603  (our own interpreter)
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env={**os.environ, **asked, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert found.stdout.split() == ["budgets"], found.stderr
