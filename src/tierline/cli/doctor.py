"""`tierline doctor`: what of an installation works, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tierline.cli.findings import environment, models, set_up, tables, versions
from tierline.cli.loading import AppName, Factory, loaded, router_in
from tierline.cli.reaching import api, collector
from tierline.cli.storage import storage
from tierline.cli.stores import check_store, plain_text
from tierline.errors import ConfigurationError
from tierline.router import Router

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.cli.findings import Finding

_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


def doctor(
    app: AppName = "",
    factory: Factory = False,
    store: Annotated[
        str, typer.Option(envvar="TIERLINE_STORE", help="Without --app: the store to look into: sqlite:///desk.db.")
    ] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON.")] = False,
) -> None:
    """Check versions, models, prices, the store, the key and the telemetry, and say what to do about each.

    With --app it checks the app's own Router, and starts nothing.
    The API is asked what it says of each model, which is free.
    Exits with 1 where something has failed.
    """
    findings = asyncio.run(_found(app, store, factory=factory))
    console = Console()
    if as_json:
        console.file.write(json.dumps([asdict(each) for each in findings], indent=2, ensure_ascii=False) + "\n")
    else:
        _show(console, findings)
    levels: Counter[str] = Counter(each.level for each in findings)
    if levels["fail"] or (strict and levels["warn"]):
        raise typer.Exit(1)


async def _found(app: str, store: str, *, factory: bool) -> list[Finding]:
    router, whole = _router(app, store, factory=factory)
    now = router.timing.now()
    today = datetime.fromtimestamp(now, UTC).date()
    found = [*versions(), *environment(), *models(router, today), *tables(now, today)]
    try:
        if whole is not None:
            found += set_up(router, whole)
        if app or store:
            found += [each async for each in storage(router)]
        found += [each async for each in api(router)]
        found.append(await collector())
    finally:
        await router.aclose(1.0)
    return found


def _router(app: str, store: str, *, factory: bool) -> tuple[Router[Any], object]:
    """The Router to look at, and its app. ConfigurationError where there is none."""
    if app:
        found = loaded("--app", app, factory=factory)
        return router_in("--app", app, found), found
    if store:
        check_store(store)
    elif factory:
        raise ConfigurationError("--factory is for --app: say which")
    return Router(store=store or None), None


def _show(console: Console, findings: Sequence[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for each in findings:
        said = Text(plain_text(each.said))
        if each.advice:
            said.append(f"\n→ {plain_text(each.advice)}", style="bold" if each.level != "skip" else "dim")
        table.add_row(Text(each.level, style=_STYLES[each.level]), plain_text(each.about), said)
    console.print(table)
    levels: Counter[str] = Counter(each.level for each in findings)
    told = [f"{levels[level]} {word}" for level, word in (("fail", "failed"), ("warn", "to look at")) if levels[level]]
    console.print(f"\n{', '.join(told) or 'all is well'}", highlight=False)
