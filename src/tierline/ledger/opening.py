"""From what an app writes, `Router(store="sqlite:///tierline.db")`, to a ledger."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

from tierline.errors import ConfigurationError
from tierline.ledger.journal import DiskJournal, MemoryJournal
from tierline.ledger.memory import MemoryLedger
from tierline.ledger.outage import GuardedLedger, check_on_error
from tierline.private import private_dir

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.ledger.base import Ledger
    from tierline.ledger.journal import Journal
    from tierline.ledger.outage import OnError
    from tierline.ledger.slices import Slices

_REDIS: Final = ("redis", "rediss", "unix")
_TIMEOUT: Final = 0.2
"""Seconds after which a file that is locked is away: a refusal is to reach the client within 0.25."""
_WRITE: Final = (
    'write store="memory://", "sqlite:///tierline.db" (four slashes for an absolute path), "redis://host:6379/0", '
    '"rediss://…" or "unix:///path/to/redis.sock"; a ledger of your own is ledger=…'
)


def open_ledger(
    store: str | None,
    ledger: Ledger | None,
    *,
    on_error: OnError,
    allowance: float,
    journal: str | None,
    clock: Callable[[], float],
    on_change: Callable[[bool], None],
) -> Ledger:
    """The ledger that a Router uses. One that may go away has a guard around it, which closes it if it was made here.

    ConfigurationError for what cannot work. Nothing is connected yet.
    """
    check_on_error(on_error, allowance)
    if journal is not None and (not isinstance(journal, str) or not journal):
        raise ConfigurationError(
            f'journal= is the path of a file, such as "/var/lib/app/tierline.journal", not {journal!r:.80}'
        )
    if isinstance(ledger, str):
        raise ConfigurationError(f"ledger= is an object; a URL is written as store=: {_WRITE}")
    if store is not None and ledger is not None:
        raise ConfigurationError("a Router has a store= or a ledger=: leave one of them out")
    name = ""
    if ledger is None:
        found, name = _open("memory://" if store is None else store, clock)
    else:
        found = ledger
    if found.instant:  # it is the memory of this process, and cannot go away
        return found
    return GuardedLedger(
        found,
        on_error=on_error,
        allowance=allowance,
        journal=_journal(journal, name) if journal is not None or on_error == "open" else MemoryJournal(),
        clock=clock,
        on_change=on_change,
        owned=ledger is None,
    )


def connection_of(ledger: Ledger) -> object:
    """What a ledger keeps its balances in, for other parts to use as well; None where that is nothing to share."""
    return getattr(ledger.behind if isinstance(ledger, GuardedLedger) else ledger, "store", None)


def slices_of(ledger: Ledger) -> Slices | None:
    """What this process holds of a ledger's budgets, to admit calls without asking; None where it never does."""
    found = ledger.behind if isinstance(ledger, GuardedLedger) else ledger
    return getattr(found, "slices", None)


def is_away(ledger: Ledger) -> bool:
    """Whether a ledger is known to be away just now."""
    return isinstance(ledger, GuardedLedger) and ledger.away


def _open(store: object, clock: Callable[[], float]) -> tuple[Ledger, str]:
    """The ledger of a store, and a name that every process has for it: without a password."""
    if not isinstance(store, str):
        raise ConfigurationError(f"a store is a URL as text, not a {type(store).__name__}: {_WRITE}")
    scheme = store.partition("://")[0].lower() if "://" in store else ""
    if scheme == "memory":
        if store.partition("://")[2]:
            raise ConfigurationError(f"the store in memory has no name: {_WRITE}")
        return MemoryLedger(clock=clock), ""
    if scheme == "sqlite":
        path = _sqlite_path(store)
        from tierline.ledger.sqlite import SQLiteLedger  # noqa: PLC0415  (only for who has it)
        from tierline.store.sqlite import SQLiteStore  # noqa: PLC0415

        return SQLiteLedger(SQLiteStore(path, timeout=_TIMEOUT), clock=clock), f"sqlite {Path(path).absolute()}"
    if scheme in _REDIS:
        try:
            url = urlsplit(store)
            name = f"redis {url.hostname} {url.port or 6379} {url.path} {parse_qs(url.query).get('db')}"
        except ValueError:  # its text may hold the password
            raise ConfigurationError(f"the {scheme} URL of the store cannot be read: {_WRITE}") from None
        from tierline.ledger.redis import RedisLedger  # noqa: PLC0415  (only for who has it)

        return RedisLedger(store), name
    # Whatever it is, it may hold a password: nothing of it is said but its scheme.
    raise ConfigurationError(f"{f'{scheme:.20}:// is no store' if scheme.isalnum() else 'this is no store'}: {_WRITE}")


def _sqlite_path(store: str) -> str:
    """The path of a `sqlite:///…` URL."""
    host, slash, path = store.partition("://")[2].partition("/")
    if host or not slash or not path or path.startswith(":memory:") or set("?#") & set(path) or path.endswith("/"):
        raise ConfigurationError(
            'a SQLite store is a file that its processes share: write store="sqlite:///tierline.db", or '
            '"sqlite:////var/lib/app/tierline.db" for an absolute path; without a file it is "memory://"'
        )
    return unquote(path)


def _journal(path: str | None, name: str) -> Journal:
    if path is not None:
        return DiskJournal(path)
    if not name:
        raise ConfigurationError(
            'on_ledger_error="open" with a ledger of your own needs a journal="/path/to/a/file" of its own'
        )
    try:
        directory = private_dir(lasting=True)
    except OSError as error:
        raise ConfigurationError(
            f'on_ledger_error="open" keeps a journal, and there is no place for it ({error}): '
            'give it one, journal="/var/lib/app/tierline.journal"'
        ) from None
    return DiskJournal(directory / f"journal-{sha256(name.encode()).hexdigest()[:20]}.db")
