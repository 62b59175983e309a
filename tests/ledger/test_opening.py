"""From a URL to a ledger, and from a mistake to what to write instead."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tierline.ledger
from tests.ledger.switched import Switched
from tierline import Budget, Router
from tierline.errors import ConfigurationError
from tierline.ledger import MemoryLedger, RedisLedger, SQLiteLedger
from tierline.ledger.journal import DiskJournal, MemoryJournal
from tierline.ledger.opening import open_ledger
from tierline.ledger.outage import GuardedLedger

if TYPE_CHECKING:
    from tierline.ledger import Ledger


def opened(store: Any = None, ledger: Any = None, **options: Any) -> Ledger:
    defaults: dict[str, Any] = {
        "on_error": "closed", "allowance": 0.05, "journal": None, "clock": time.time, "on_change": lambda _: None,
    }  # fmt: skip
    return open_ledger(store, ledger, **defaults | options)


def test_memory() -> None:
    """Without a store balances are in memory, which cannot go away: nothing guards it."""
    for found in (opened(), opened("memory://"), opened("memory://", on_error="open"), opened(ledger=MemoryLedger())):
        assert type(found) is MemoryLedger


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///tierline.db", "tierline.db"),
        ("sqlite:///data/a%20b.db", "data/a b.db"),
        ("sqlite:////var/lib/tierline.db", "/var/lib/tierline.db"),
        ("SQLite:///tierline.db", "tierline.db"),
    ],
)
def test_sqlite(url: str, path: str) -> None:
    """Three slashes for a relative path, four for an absolute one; nothing is opened yet."""
    found = opened(url)
    assert isinstance(found, GuardedLedger)
    assert isinstance(found.behind, SQLiteLedger)
    assert found.behind.store.path == Path(path).absolute()
    assert isinstance(found.journal, MemoryJournal)
    assert not found.behind.store.path.exists()


@pytest.mark.parametrize(
    "url", ["redis://localhost", "rediss://:pw@h:6380/1", "redis://u:pw@[::1]:6379/0", "unix:///run/r.sock?db=2"]
)
def test_redis(url: str) -> None:
    """Every kind of URL that redis-py knows."""
    found = opened(url)
    assert isinstance(found, GuardedLedger)
    assert isinstance(found.behind, RedisLedger)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("", "this is no store"),
        ("tierline.db", "this is no store"),
        ("/var/lib/tierline.db", "this is no store"),
        ("postgres://user:hunter2@db/x", "postgres:// is no store"),
        ("redis:hunter2@host", "this is no store"),
        ("redis+hunter2://host", "this is no store"),
        ("memory://hunter2", "has no name"),
        ("redis://:hunter2@host:port", "cannot be read"),
        ("redis://[hunter2", "cannot be read"),
        ("sqlite://", "four slashes|////"),
        ("sqlite:///", "////"),
        ("sqlite://tierline.db", "////"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///x.db?mode=ro&key=hunter2", "////"),
        ("sqlite:///data/", "////"),
        (Path("tierline.db"), "URL as text"),
        (b"redis://hunter2", "URL as text"),
    ],
)  # fmt: skip
def test_what_is_no_store(store: Any, said: str) -> None:
    """A store that cannot be is told at once, with what to write and without a password."""
    with pytest.raises(ConfigurationError, match=said) as raised:
        opened(store)
    assert "hunter2" not in str(raised.value)
    assert "sqlite:///tierline.db" in str(raised.value)


def test_a_ledger_of_the_apps_own() -> None:
    """A ledger that may go away is guarded, too; closing it is the app's affair. Both words at once are a mistake."""
    mine = Switched()
    found = opened(ledger=mine)
    assert isinstance(found, GuardedLedger)
    assert found.behind is mine
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        opened("memory://", mine)
    with pytest.raises(ConfigurationError, match="written as store="):
        opened(ledger="redis://localhost")


def test_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal is in memory, in the file that is given, or for `open` in one named by the store, not its password."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def path(store: str | None, **options: Any) -> Path:
        found = opened(store, **options)
        assert isinstance(found, GuardedLedger)
        assert isinstance(found.journal, DiskJournal)
        return found.journal.path

    assert path("sqlite:///x.db", journal=str(tmp_path / "j")) == tmp_path / "j"
    first = path("redis://:one@host/0", on_error="open")
    assert first.parent == tmp_path / "tierline"
    assert first == path("redis://user:two@host/0", on_error="open")
    assert first != path("redis://:one@host/1", on_error="open")
    assert path("sqlite:///x.db", on_error="open") == path(f"sqlite:///{Path.cwd()}/x.db", on_error="open")
    assert path(None, ledger=Switched(), on_error="open", journal=str(tmp_path / "k")) == tmp_path / "k"
    with pytest.raises(ConfigurationError, match="journal="):
        opened(ledger=Switched(), on_error="open")
    for wrong in ("", 7, tmp_path):
        with pytest.raises(ConfigurationError, match="path of a file"):
            opened("sqlite:///x.db", journal=wrong)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="no place for it"):
        opened("sqlite:///x.db", on_error="open")


def test_options_are_looked_at_for_every_store() -> None:
    """A mistake is one in development too, where the store is the memory."""
    for wrong in ({"on_error": "ajar"}, {"allowance": 0}, {"journal": ""}):
        with pytest.raises(ConfigurationError):
            opened("memory://", **wrong)


def test_backends_are_loaded_when_they_are_named() -> None:
    """`import tierline.ledger` loads neither SQLite nor Redis; both are there by name."""
    code = (
        "import sys, tierline.ledger as ledger; before = {'sqlite3', 'redis'} & set(sys.modules);"
        "ledger.SQLiteLedger; assert 'redis' not in sys.modules; ledger.RedisLedger;"
        "sys.exit(bool(before))"
    )
    source = Path(tierline.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(source)}, check=False).returncode == 0  # noqa: S603
    with pytest.raises(AttributeError, match="MongoLedger"):
        tierline.ledger.MongoLedger  # noqa: B018


async def test_a_router_closes_what_it_opened(tmp_path: Path) -> None:
    """A ledger of the Router's own is closed with it, and may be used again after that; one of the app's is not."""
    router = Router(store=f"sqlite:///{tmp_path}/ledger.db", budgets=[Budget("$5")])
    async with router.lifespan():
        assert await router.balances() == []
    assert await router.balances() == []
    await router.aclose()
    mine = Switched()
    router = Router(ledger=mine, budgets=[Budget("$5")])
    async with router.lifespan():
        assert await router.balances() == []
    assert mine.closed == 0


async def test_a_journal_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    """An app does not start with a journal that it could not write when it needs it."""
    path = tmp_path / "journal"
    path.write_bytes(b"of another kind" * 100)
    router = Router(store=f"sqlite:///{tmp_path}/ledger.db", on_ledger_error="open", journal=str(path))
    with pytest.raises(ConfigurationError, match="cannot be used"):
        async with router.lifespan():
            raise AssertionError
    await router.aclose()
