"""`tierline simulate`: what another policy would have made of the decisions of a log."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tierline.cli.options import bars, classifier_of
from tierline.cli.sampling import harmless
from tierline.cli.show import amount
from tierline.evaluation.rows import read
from tierline.evaluation.scenario import read_scenario
from tierline.evaluation.simulation import simulate

if TYPE_CHECKING:
    from tierline.evaluation.simulation import Quality, Simulation, Sums

_MONEY = "nano-USD"


def simulate_log(
    log: Annotated[Path, typer.Argument(help="A decision log: JSON lines, or SQLite.")],
    policy: Annotated[Path, typer.Option("--policy", help="The policy to try, in TOML.")],
    grades: Annotated[Path | None, typer.Option("--grades", help="Grades of these decisions: rows with `id`.")] = None,
    classifier: Annotated[
        str, typer.Option("--classifier", help="Who says what a text is where nobody was asked; `none`: nobody.")
    ] = "default",
    top: Annotated[int, typer.Option(min=1, help="How many routes and moves to show.")] = 10,
    as_json_: Annotated[bool, typer.Option("--json", help="JSON instead of tables; money in nano-USD.")] = False,
) -> None:
    """Decide a log's calls again under another policy, at today's prices. Nobody is asked: it costs nothing."""
    scenario = read_scenario(policy)
    who = None if classifier == "none" else classifier_of(classifier)
    known: dict[str, dict[str, float]] = {}
    for row in read(grades) if grades is not None else ():
        known.setdefault(row.id, {}).update(row.grades)
    with bars() as progress:
        found = simulate(progress.rows(log), scenario, classifier=who, grades=known)
    console = Console()
    if as_json_:
        console.file.write(_as_json(found, log=str(log), policy=str(policy)) + "\n")
    else:
        _show(console, found, top)


def _as_json(found: Simulation, **more: Any) -> str:
    whole = asdict(found) | {
        "saved": found.saved,
        "by_tier": {name: sums._asdict() for name, sums in found.by_tier.items()},
        "by_route": {name: sums._asdict() for name, sums in found.by_route.items()},
        "moves": [move._asdict() for move in found.moves],
        "forecast": found.forecast and found.forecast._asdict(),
        "graded": found.graded and found.graded._asdict(),
        "escalation": found.escalation and found.escalation._asdict(),
        "speculation": found.speculation and found.speculation._asdict(),
    }
    return json.dumps(more | whole, indent=2, ensure_ascii=False)


def _show(console: Console, found: Simulation, top: int) -> None:
    share = f" ({found.saved / found.cost:+.1%})" if found.cost else ""
    console.print(_sums(f"{found.simulated:,} of {found.calls:,} calls, decided again", "tier", found.by_tier))
    console.print(
        f"cost {_money(found.cost)}, then {_money(found.cost_then)}: {_money(found.saved)}{share} saved; "
        f"{found.moved:,} calls move, {found.refused:,} are refused",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    routes = dict(list(found.by_route.items())[:top])
    console.print(_sums(f"by route: {len(routes)} of {len(found.by_route)}, by how much changes", "route", routes))
    if found.moves:
        table = Table(title=f"moves: {min(top, len(found.moves))} of {len(found.moves)} kinds", title_justify="left")
        for name in ("route", "from", "to", "calls", "saved", "why"):
            table.add_column(name, justify="right" if name in ("calls", "saved") else "left")
        for move in found.moves[:top]:
            names = (harmless(text) for text in (move.route, move.tier, move.then))
            table.add_row(*names, f"{move.calls:,}", _money(move.saved), harmless(move.why))
        console.print(table)
    for what, quality in (("what routes have taught", found.forecast), ("grades", found.graded)):
        if quality is not None:
            console.print(_quality(what, quality), highlight=False, soft_wrap=True)
    for told in _strategies(found):
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    for why, calls in found.unknown.items():
        console.print(f"{calls:,} not simulated: {harmless(why)}", markup=False, highlight=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _sums(title: str, what: str, sums: Any) -> Table:
    table = Table(title=title, title_justify="left")
    for name in (what, "calls", "calls then", "cost", "cost then", "saved"):
        table.add_column(name, justify="left" if name == what else "right")
    each: Sums
    for name, each in sums.items():
        saved = _money(each.cost - each.cost_then)
        costs = (_money(each.cost), _money(each.cost_then), saved)
        table.add_row(harmless(name), f"{each.calls:,}", f"{each.calls_then:,}", *costs)
    return table


def _strategies(found: Simulation) -> list[str]:
    told = []
    if (chains := found.escalation) is not None:
        each = ", ".join(f"{harmless(name)} {n:,.1f}" for name, n in chains.answers.items())
        told.append(f"{chains.calls:,} calls escalate, {chains.more:,.1f} further answers; expected to answer: {each}")
    if (bets := found.speculation) is not None:
        told.append(f"{bets.calls:,} calls speculate, {bets.lost:,} of them in vain, for {_money(bets.cost)}")
    return told


def _quality(what: str, found: Quality) -> str:
    return f"good enough by {what}: {found.recorded:.1%}, then {found.simulated:.1%} (of {found.calls:,} calls)"


def _money(nano: int) -> str:
    return amount(nano, _MONEY)
