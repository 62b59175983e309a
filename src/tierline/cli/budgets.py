"""`tierline budgets`: balances, what is in flight, limits that are set at run time, holds that are given back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tierline.cli.loading import AppName, Factory
from tierline.cli.operating import AsJson, Yes, make_sure, reached
from tierline.cli.stores import Store, plain_lines, plain_text
from tierline.display import duration, money
from tierline.errors import ConfigurationError
from tierline.ledger.limits import limit_of
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.history import Holds, InFlight
    from tierline.ledger import Balance
    from tierline.ledger.limits import Limits
    from tierline.router import Router

RENEWED: Final = 0.5
"""The share of a lease that is left of a hold whose worker is alive, or more: they renew at a third of it."""
MOST_SHOWN: Final = 50
"""Accounts of a table, the fullest. JSON has all."""

_Budget = Annotated[str, typer.Argument(metavar="BUDGET", help="Its name, as `tierline budgets show` has it.")]
_Account = Annotated[
    str | None, typer.Option("--account", help="One account; else all that have no limit of their own.")
]
_Force = Annotated[bool, typer.Option("--force", help="Do it all the same.")]


def show(
    store: Store = "",
    app: AppName = "",
    factory: Factory = False,
    account: Annotated[str | None, typer.Option(help="Those of one account, such as a tenant.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what every account has spent and holds, and what its limit is: the fullest first."""
    balances, limits, now = asyncio.run(_asked(store, app, account, factory=factory))
    console = Console()
    if as_json:
        told = [asdict(each) | {"set": limit_of(limits, each.budget, each.account) is not None} for each in balances]
        console.file.write(json.dumps(told, indent=2) + "\n")
        return
    if not balances:
        nobody = "nothing was spent yet" if account is None else f"no account {account!r} has spent anything yet"
        console.print(nobody, markup=False, highlight=False)
    else:
        console.print(_table(balances, limits, now))
    if len(balances) > MOST_SHOWN:
        console.print(f"and {len(balances) - MOST_SHOWN:,} accounts that are less full: --account or --json shows them")
    for (name, whose), limit in sorted(limits.items(), key=str):
        of = "all accounts" if whose is None else f"account {whose}"
        console.print(
            f"set at run time: {plain_text(name)}, {plain_text(of)}: {usd(limit)}", markup=False, highlight=False
        )


async def _asked(store: str, app: str, account: str | None, *, factory: bool) -> tuple[list[Balance], Limits, float]:
    async with reached(store, app, factory=factory) as router:
        found = await router.balances(account)
        return sorted(found, key=lambda each: -_share(each)), await router.limits(), router.timing.now()


def _share(each: Balance) -> float:
    return (each.spent + each.held) / each.limit if each.limit else 0.0


def _table(balances: Sequence[Balance], limits: Limits, now: float) -> Table:
    shown = balances[:MOST_SHOWN]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("budget", "account", "spent", "held", "of", "full", "renews", ""):
        right = name in ("spent", "held", "of", "full")
        table.add_column(name, justify="right" if right else "left", no_wrap=right or name == "renews", overflow="fold")
    columns = (
        money(each.spent for each in shown), money(each.held for each in shown), money(each.limit for each in shown),
    )  # fmt: skip
    for each, *amounts in zip(shown, *columns, strict=True):
        notes = [] if each.hard else ["soft"]
        notes += ["limit set"] if limit_of(limits, each.budget, each.account) is not None else []
        notes += [f"{usd(each.estimated)} estimated"] if each.estimated else []
        table.add_row(
            Text(plain_text(each.budget)), Text(plain_text(each.account)), *amounts, f"{_share(each):.0%}",
            "never" if each.renews_at is None else f"in {duration(each.renews_at - now)}", ", ".join(notes),
        )  # fmt: skip
    return table


def holds(store: Store = "", app: AppName = "", factory: Factory = False, as_json: AsJson = False) -> None:
    """Show what is in flight: which calls hold money, since when, and what their leases have left."""
    found = asyncio.run(_holds(store, app, factory=factory))
    console = Console()
    if as_json:
        console.file.write(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    else:
        console.print(plain_lines(str(found)), markup=False, highlight=False, soft_wrap=True)


async def _holds(store: str, app: str, *, factory: bool) -> Holds:
    async with reached(store, app, factory=factory) as router:
        return await router.holds()


def set_limit(
    budget: _Budget,
    limit: Annotated[str, typer.Argument(metavar="LIMIT", help="An amount, such as '$10'; its window stays.")],
    account: _Account = None,
    store: Store = "",
    app: AppName = "",
    factory: Factory = False,
    force: _Force = False,
    as_json: AsJson = False,
) -> None:
    """Let another limit hold, in all processes, from the next call on. Calls in flight stay."""
    asyncio.run(_set(store, app, budget, account, limit, factory=factory, force=force, as_json=as_json))


def reset(
    budget: _Budget,
    account: _Account = None,
    store: Store = "",
    app: AppName = "",
    factory: Factory = False,
    as_json: AsJson = False,
) -> None:
    """Take back a limit that was set: what the app says holds again."""
    asyncio.run(_set(store, app, budget, account, None, factory=factory, force=False, as_json=as_json))


async def _set(
    store: str,
    app: str,
    budget: str,
    account: str | None,
    limit: str | None,
    *,
    factory: bool,
    force: bool,
    as_json: bool,
) -> None:
    async with reached(store, app, factory=factory) as router:
        before = (await router.limits()).get((budget, account))
        if limit is None and before is None:
            raise ConfigurationError(f"no limit is set for {_whose(budget, account)}: there is nothing to take back")
        if limit is not None and not force:
            await _check_known(router, budget)
        await router.set_limit(budget, account, limit=limit)
        now = limit_of(await router.limits(), budget, account or "")
    console = Console()
    if as_json:
        told = {"budget": budget, "account": account, "limit": now, "before": before}
        console.file.write(json.dumps(told) + "\n")
        return
    held_to = "what the app says" if now is None else usd(now)
    was = "" if before is None else f", before: {usd(before)}"
    console.print(f"{_whose(budget, account)}: {held_to}{was}", markup=False, highlight=False)


async def _check_known(router: Router[Any], budget: str) -> None:
    """ConfigurationError for a name that nobody has used: a limit for it would hold for nothing."""
    known = set(router.rules.known()) | {each.budget for each in await router.balances()}
    known |= {name for name, _ in await router.limits()}
    if budget not in known:
        raise ConfigurationError(
            f"nothing was charged to a budget {budget!r:.80} yet; known are: {', '.join(sorted(known)) or 'none'}. "
            "--app knows those of the app; --force sets it all the same"
        )


def _whose(budget: str, account: str | None) -> str:
    return plain_text(f"budget {budget}, {'all accounts' if account is None else f'account {account}'}")


def release(
    hold: Annotated[str, typer.Argument(metavar="HOLD", help="Its id, or how that begins: `tierline budgets holds`.")],
    store: Store = "",
    app: AppName = "",
    factory: Factory = False,
    yes: Yes = False,
    force: _Force = False,
    as_json: AsJson = False,
) -> None:
    """Give back what a hold holds, where its worker will never settle it. It is charged nothing.

    One that nobody renews lapses by itself, and is charged as estimated.
    One that is renewed belongs to a call in flight: what that costs would be counted nowhere.
    """
    found = asyncio.run(_released(store, app, hold, factory=factory, yes=yes, force=force))
    console = Console()
    if as_json:
        console.file.write(json.dumps(asdict(found) | {"released": True}) + "\n")
    else:
        console.print(f"{found.id}: {usd(found.cost)} given back", markup=False, highlight=False)


async def _released(store: str, app: str, hold: str, *, factory: bool, yes: bool, force: bool) -> InFlight:
    async with reached(store, app, factory=factory) as router:
        rows = [each for each in await router.holds() if each.id == hold] or [
            each for each in await router.holds() if hold and each.id.startswith(hold)
        ]
        if len(rows) != 1:
            what = "is no hold" if not rows else f"is how {len(rows)} holds begin"
            raise ConfigurationError(f"{hold!r:.80} {what}: `tierline budgets holds` lists them")
        (found,) = rows
        if found.lease_left > router.ledger.lease * RENEWED and not force:
            raise ConfigurationError(
                f"{found.id} was renewed a moment ago: its call is in flight, and what that costs would be counted "
                "nowhere. End its worker first and wait, or say --force"
            )
        accounts = ", ".join(f"{budget} {account}" for budget, account in found.accounts)
        make_sure(
            plain_text(
                f"give back {usd(found.cost)} of {accounts or 'no account'}, held for {found.tier} since "
                f"{duration(found.age)}, and charge nothing?"
            ),
            yes=yes,
        )
        if not await router.ledger.release(found.id):
            raise ConfigurationError(f"{found.id} has ended meanwhile: nothing was changed")
        return found


def commands(told: Callable[[Callable[..., Any]], Callable[..., Any]]) -> typer.Typer:
    """`tierline budgets …`; `told` makes a command whose errors are one line."""
    found = typer.Typer(help="See balances and what is in flight, set limits, give holds back.", no_args_is_help=True)
    parts: dict[str, Callable[..., Any]]
    parts = {"show": show, "holds": holds, "set": set_limit, "reset": reset, "release": release}
    for name, command in parts.items():
        found.command(name)(told(command))
    return found
