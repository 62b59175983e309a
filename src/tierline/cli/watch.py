"""`tierline watch`: budgets, spend, breakers and the latest decisions of all processes, as they come."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tierline.cli.loading import AppName, Factory
from tierline.cli.operating import reached
from tierline.cli.stores import Store, plain_text
from tierline.display import duration, money
from tierline.errors import LedgerUnavailableError
from tierline.report import NO_ROUTE, NO_TENANT
from tierline.traffic.base import Counts
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from tierline.ledger import Balance
    from tierline.router import Router
    from tierline.traffic.base import Traffic

MOST_BUDGETS: Final = 10
MOST_DECISIONS: Final = 12
_TICK: Final = 1.0
"""Seconds between two looks; longer where a look takes long, so that it takes no more than a third of the time."""
_FULL: Final = 0.9
_FILLING: Final = 0.7


@dataclass(frozen=True)
class Seen:
    """What a look has found. `trouble` says why the store cannot be asked: the rest is then of before."""

    at: float
    balances: tuple[Balance, ...]
    accounts: int
    hour: Traffic
    today: Traffic
    decisions: tuple[dict[str, Any], ...]
    trouble: str = ""


def watch(
    store: Store = "",
    app: AppName = "",
    factory: Factory = False,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Each decision as a line of JSON; with --once all of a look. Nano-USD.")
    ] = False,
) -> None:
    """Watch an app as it spends: budgets, tiers, breakers, decisions. Ends with q or Ctrl-C. Needs no key."""
    console = Console()
    with suppress(KeyboardInterrupt):
        asyncio.run(_watch(store, app, console, factory=factory, once=once, as_json=as_json))


async def _watch(store: str, app: str, console: Console, *, factory: bool, once: bool, as_json: bool) -> None:
    async with reached(store, app, factory=factory) as router:
        seen = await look(router)
        if once and as_json:
            _say(console, json.dumps(_as_dict(seen), indent=2))
        elif once:
            console.print(shown(seen))
        elif as_json:
            await _json_lines(router, console, seen)
        elif console.is_terminal:
            await _live(router, console, seen)
        else:
            await _lines(router, console, seen)


async def look(router: Router[Any]) -> Seen:
    """One look. LedgerUnavailableError where the store cannot be asked."""
    now = router.timing.now()
    fullest = await router.ledger.fullest(MOST_BUDGETS)
    return Seen(
        now,
        fullest.balances,
        fullest.number,
        await router.traffic(now - 3_600, most=0),
        await router.traffic(now - now % 86_400, most=0),
        await router.decisions(MOST_DECISIONS),
    )


async def _again(router: Router[Any], before: Seen) -> Seen:
    """Another look; where that fails, the one of before, and why."""
    try:
        return await look(router)
    except LedgerUnavailableError as error:
        return replace(before, trouble=str(error))


async def _live(router: Router[Any], console: Console, seen: Seen) -> None:
    ended = asyncio.Event()
    with (
        _keys(ended.set),
        Live(shown(seen), console=console, screen=True, auto_refresh=False, redirect_stderr=False) as live,
    ):
        while not ended.is_set():
            began = asyncio.get_running_loop().time()
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _TICK)
            seen = await _again(router, seen)
            live.update(shown(seen), refresh=True)
            took = asyncio.get_running_loop().time() - began - _TICK
            if took > _TICK / 2:
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), 2 * took)


def _as_dict(seen: Seen) -> dict[str, Any]:
    return {
        "at": seen.at,
        "budgets": [asdict(each) for each in seen.balances],
        "accounts": seen.accounts,
        "today": asdict(seen.today.total),
        "by_tier": {name: asdict(counts) for name, counts in seen.today.by_tier.items()},
        "last_hour": {name: asdict(counts) for name, counts in seen.hour.by_tier.items()},
        "breakers": [asdict(each) for each in seen.hour.breakers],
        "decisions": list(seen.decisions),
    }


async def _json_lines(router: Router[Any], console: Console, seen: Seen) -> None:
    """Each decision as a line, oldest first; what the store cannot tell now is told when it can."""
    told: set[str] = set()
    while True:
        for each in reversed(seen.decisions):
            if each["id"] not in told:
                _say(console, json.dumps(each))
        told = {each["id"] for each in seen.decisions}
        await asyncio.sleep(_TICK)
        seen = await _again(router, seen)


async def _lines(router: Router[Any], console: Console, seen: Seen) -> None:
    """Where nobody can be shown a picture: each decision on a line of its own, and a sum now and then."""
    told: set[str] = set()
    trouble, last = "", 0.0
    while True:
        if seen.at - last >= 60:  # noqa: PLR2004  (a minute)
            last = seen.at
            _say(console, f"{_clock(seen.at)} today {usd(seen.today.total.cost)} for {seen.today.total.calls:,} calls, "
                          f"saved {usd(seen.today.total.saved)}")  # fmt: skip
            for each in seen.balances[:3]:
                _say(console, f"{_clock(seen.at)} budget {_budget(each)} {each.share:.0%} of {usd(each.limit)}")
        for each in reversed(seen.decisions):
            if each["id"] not in told:
                _say(console, " ".join((_clock(each["at"]), *_decision(each))))
        told = {each["id"] for each in seen.decisions}
        if seen.trouble != trouble:
            trouble = seen.trouble
            _say(console, f"{_clock(router.timing.now())} {trouble or 'the store can be asked again'}")
        await asyncio.sleep(_TICK)
        seen = await _again(router, seen)


def _say(console: Console, line: str) -> None:
    console.file.write(line + "\n")
    console.file.flush()


def shown(seen: Seen) -> RenderableType:
    """All of it, for a terminal."""
    parts: list[RenderableType] = [_head(seen), Text()]
    if seen.trouble:
        parts += [Text(f"{seen.trouble}: what is shown is of {_clock(seen.at)}", style="bold red"), Text()]
    parts += [_budgets(seen), Text(), _tiers(seen)]
    if breakers := seen.hour.breakers:
        parts += [Text(), _breakers(seen, breakers)]
    parts += [Text(), _decisions(seen)]
    return Group(*parts)


def _head(seen: Seen) -> Text:
    total, workers = seen.today.total, len(seen.today.workers)
    head = Text(f"{_clock(seen.at)} UTC  ", style="bold")
    head.append(f"today {usd(total.cost)} for {total.calls:,} calls, saved {usd(total.saved)}", style="default")
    if total.lookups:
        head.append(f", cache {total.hits / total.lookups:.0%}", style="default")
    head.append(f"  ·  {workers:,} worker{'' if workers == 1 else 's'}  ·  q ends", style="dim")
    return head


def _budgets(seen: Seen) -> RenderableType:
    if not seen.balances:
        return Text("no budget has been charged yet", style="dim")
    # The bar has what the numbers leave.
    table = Table(box=None, pad_edge=False, show_edge=False, expand=True)
    for name, right in (("budget", False), ("full", True), ("", False), ("spent", True), ("held", True), ("of", True),
                        ("renews", False)):  # fmt: skip
        table.add_column(name, justify="right" if right else "left", no_wrap=True, ratio=None if name else 1)
    for each in seen.balances:
        share = each.share
        style = "red" if share >= _FULL else "yellow" if share >= _FILLING else "green"
        bar = ProgressBar(1.0, min(1.0, share), complete_style=style, finished_style=style)
        renews = "" if each.renews_at is None else f"in {duration(each.renews_at - seen.at)}"
        table.add_row(
            Text(_budget(each)), Text(f"{share:.0%}", style=style), bar, usd(each.spent),
            usd(each.held) if each.held else "", usd(each.limit), renews,
        )  # fmt: skip
    if (more := seen.accounts - len(seen.balances)) > 0:
        table.add_row(Text(f"and {more:,} accounts that are less full", style="dim"))
    return table


def _tiers(seen: Seen) -> RenderableType:
    if not seen.today.total:
        return Text("no traffic is recorded: give the app Router(traffic=True)", style="dim")
    table = Table(box=None, pad_edge=False, show_edge=False)
    for name in ("tier", "calls, last hour", "cost", "calls today", "cost", "saved"):
        table.add_column(name, justify="left" if name == "tier" else "right")
    tiers = seen.today.by_tier
    hours = [seen.hour.by_tier.get(name, Counts()) for name in tiers]
    columns = (
        map(Text, map(plain_text, tiers)),
        (f"{each.calls:,}" for each in hours),
        money(each.cost for each in hours),
        (f"{each.calls:,}" for each in tiers.values()),
        money(each.cost for each in tiers.values()),
        money(each.saved for each in tiers.values()),
    )
    for row in zip(*columns, strict=True):
        table.add_row(*row)
    return table


def _breakers(seen: Seen, breakers: tuple[Any, ...]) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold red")
    for name in ("breaker", "state", "tried again", "worker"):
        table.add_column(name)
    for each in breakers:
        left = f"in {duration(each.until - seen.at)}" if each.until > seen.at else "now"
        table.add_row(Text(plain_text(each.model)), each.state.replace("_", " "), left, each.worker)
    return table


def _decisions(seen: Seen) -> RenderableType:
    if not seen.decisions:
        return Text("no decision yet", style="dim")
    table = Table(box=None, pad_edge=False, show_edge=False, expand=True)
    for name in ("at", "tier", "cost", "outcome", "route", "account"):
        table.add_column(name, justify="right" if name == "cost" else "left", no_wrap=True)
    table.add_column("why", no_wrap=True, overflow="ellipsis", ratio=1)
    costs = money(each["cost"] for each in seen.decisions)
    for each, cost in zip(seen.decisions, costs, strict=True):
        tier, _, outcome, route, account, why = _decision(each)
        style = "" if outcome == "ok" else "red"
        table.add_row(
            _clock(each["at"]), Text(tier), cost, Text(outcome, style=style), Text(route), Text(account),
            Text(why, style="dim"),
        )  # fmt: skip
    return table


def _decision(record: dict[str, Any]) -> tuple[str, str, str, str, str, str]:
    """Tier, cost, outcome, route, account, why."""
    wanted = record["requested_tier"]
    tier = record["tier"] if record["tier"] == wanted else f"{record['tier']} (not {wanted})"
    why = "; ".join((record["source"], *record["reasons"]))
    told = (
        tier,
        usd(record["cost"]),
        record["outcome"],
        record["route"] or NO_ROUTE,
        record["tenant"] or NO_TENANT,
        why,
    )
    tier, cost, outcome, route, account, why = map(plain_text, told)
    return tier, cost, outcome, route, account, why


def _budget(balance: Balance) -> str:
    return plain_text(f"{balance.budget} {balance.account}{'' if balance.hard else ' (soft)'}")


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"


@contextmanager
def _keys(ended: Callable[[], None]) -> Iterator[None]:
    """Call back when q is pressed, where there is a keyboard to ask."""
    try:
        import termios  # noqa: PLC0415  (not on Windows: there Ctrl-C ends it)
        import tty  # noqa: PLC0415
    except ImportError:
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    number = sys.stdin.fileno()
    before, loop = termios.tcgetattr(number), asyncio.get_running_loop()

    def pressed() -> None:
        if sys.stdin.read(1) in ("q", "Q", ""):
            ended()

    tty.setcbreak(number)
    loop.add_reader(number, pressed)
    try:
        yield
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)
