"""`tierline cache`: the verdicts that the processes of an app share."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from tierline.cli.loading import AppName, Factory
from tierline.cli.operating import AsJson, Yes, make_sure, reached
from tierline.cli.stores import Store
from tierline.errors import ConfigurationError
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.verdicts import StoredVerdicts


def stats(store: Store = "", app: AppName = "", factory: Factory = False, as_json: AsJson = False) -> None:
    """Show how many verdicts the store has, how often one was found there, and what that saved."""
    found = asyncio.run(_stats(store, app, factory=factory))
    console = Console()
    if as_json:
        console.file.write(json.dumps(asdict(found)) + "\n")
        return
    console.print(
        f"{found.size:,} verdicts are kept; one was found there {found.hits:,} times, which saved {usd(found.saved)}\n"
        "What a worker has in its own memory is in its router.report(), not here.",
        highlight=False,
    )


def clear(
    store: Store = "", app: AppName = "", factory: Factory = False, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Forget every verdict in the store. Workers keep those that they have in memory until they are too old."""
    gone = asyncio.run(_cleared(store, app, factory=factory, yes=yes))
    console = Console()
    if as_json:
        console.file.write(json.dumps({"forgotten": gone}) + "\n")
    else:
        console.print(f"{gone:,} verdicts forgotten", highlight=False)


async def _stats(store: str, app: str, *, factory: bool) -> StoredVerdicts:
    async with reached(store, app, factory=factory) as router:
        found = await router.verdicts()
        if found is None:
            raise ConfigurationError("no verdicts are shared here: the app has Router(share_verdicts=False)")
        return found


async def _cleared(store: str, app: str, *, factory: bool, yes: bool) -> int:
    async with reached(store, app, factory=factory) as router:
        found = await router.verdicts()
        if found is None:
            raise ConfigurationError("no verdicts are shared here: the app has Router(share_verdicts=False)")
        make_sure(f"forget {found.size:,} verdicts, which calls would ask Claude for again?", yes=yes)
        await router.forget_verdicts()
        return found.size


def commands(told: Callable[[Callable[..., Any]], Callable[..., Any]]) -> typer.Typer:
    """`tierline cache …`; `told` makes a command whose errors are one line."""
    found = typer.Typer(help="See what is kept of Claude's verdicts, and forget it.", no_args_is_help=True)
    parts: dict[str, Callable[..., Any]] = {"stats": stats, "clear": clear}
    for name, command in parts.items():
        found.command(name)(told(command))
    return found
