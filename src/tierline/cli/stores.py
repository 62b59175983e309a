"""What commands that look into a store have in common: which one, from when on, and names as they are shown."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import unquote

import typer

from tierline.errors import ConfigurationError

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Store = Annotated[
    str,
    typer.Option(
        envvar="TIERLINE_STORE", help="Where the app keeps its balances: sqlite:///tierline.db, redis://localhost."
    ),
]


def check_store(store: str) -> None:
    """ConfigurationError where there is nothing to look into."""
    if not store:
        raise ConfigurationError(
            "which store? write --store sqlite:///tierline.db or --store redis://localhost, as the app's Router has "
            "it, set TIERLINE_STORE, or name the app: --app main:app"
        )
    if store.lower().startswith("memory:"):
        raise ConfigurationError(
            "what is in memory is the app's own, and no other process sees it: give the app a store of SQLite or "
            "Redis, or ask its router.report()"
        )
    scheme, _, path = store.partition(":///")
    # A file that is not there would be made, and a mistake in its name would look like an app that spends nothing.
    if scheme.lower() == "sqlite" and not Path(unquote(path)).is_file():
        raise ConfigurationError(f"there is no file {path}: write the path that the app has, from where you are")


def moment_of(option: str, text: str, now: datetime) -> datetime:
    """What a person writes for a moment: `24h` or `7d` (ago), `2026-11-01`, `2026-11-01T08:00+01:00`.

    A date without a time zone is UTC's. ConfigurationError for anything else.
    """
    try:
        if ago := re.fullmatch(r"(\d{1,6})([mhdw])", text.strip().lower()):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{option} {text!r:.40} is no moment: write 24h or 7d for so long ago, or a date: 2026-11-01, "
            "2026-11-01T08:00 (UTC)"
        ) from None


def plain_text(name: object) -> str:
    """A name as it may be shown: a tenant may be called what moves the cursor of a terminal."""
    return "".join(letter if letter.isprintable() else "·" for letter in str(name))


def plain_lines(text: str) -> str:
    """Lines as they may be shown."""
    return "\n".join(map(plain_text, text.split("\n")))
