"""`make demo`: starts the desk, sends it two hundred real-looking requests, and shows what Tierline made of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from example_app.main import build
from example_app.people import KEYS
from tierline import Report, Router
from tierline.classify import Classifier, KeywordClassifier, Question, SignalClassifier
from tierline.ladder import DEFAULT_LADDER
from tierline.values import Classification, View, usd

SHOWN = 32


class Nobody:
    """Nobody to consult: what a classifier can say by itself."""

    tenant: str | None = None

    async def consult(self, classifier: Classifier, view: View, sure: float = 0.0) -> Classification | None:  # noqa: ARG002
        """No opinion."""
        return None

    async def ask(self, question: Question) -> Classification | None:  # noqa: ARG002
        """No opinion."""
        return None


PROMPTS = Path(__file__).with_name("prompts.jsonl")
AT_ONCE = 8
TASKS = {"/classify": "classify a support ticket"}


async def main(most: int | None = None) -> None:
    console = Console(highlight=False)
    prompts = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()][:most]
    if os.environ.get("ANTHROPIC_API_KEY"):
        console.print("[bold]Calling Claude[/] with your ANTHROPIC_API_KEY.")
    app = build()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110  (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        console.print(f"The desk is up at {url}. Sending it {len(prompts)} requests, {AT_ONCE} at a time.\n")
        results = await send_all(url, prompts, console)
        report = router_of(app).report()
        balances = await router_of(app).balances()
        history = await router_of(app).history(timedelta(hours=1))
        refusals = app.state.refusals
        explained = await router_of(app).explain(refusals[-1]) if refusals else "nothing was refused"
        server.should_exit = True
        await serving
    show_report(console, report)
    budgets = Table(title="budgets", title_justify="left", box=None, pad_edge=False)
    for name in ("budget", "account", "spent", "limit", "held"):
        budgets.add_column(name, justify="left" if name in ("budget", "account") else "right")
    for row in balances:
        budgets.add_row(row.budget, row.account, usd(row.spent), usd(row.limit), usd(row.held))
    console.print(budgets, "")
    for title, shown in (
        ("what the store has of the last hour", history),
        ("why the last call was refused", explained),
    ):
        console.print(f"[italic]{title}[/]\n{escape(str(shown))}\n", soft_wrap=True)
    await show_agreement(console, prompts, results)
    show_last(console, prompts, results)


def router_of(app: FastAPI) -> Router:
    router: Router = app.state.router
    return router


async def send_all(url: str, prompts: Sequence[dict[str, Any]], console: Console) -> list[dict[str, Any]]:
    """Send every prompt in order, a few at a time; what came back, in the same order."""
    keys = {tenant: key for key, tenant in KEYS.items()}
    gate = asyncio.Semaphore(AT_ONCE)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("requests", total=len(prompts))
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:

            async def one(prompt: dict[str, Any]) -> dict[str, Any]:
                async with gate:
                    response = await http.post(
                        prompt["endpoint"],
                        headers={"authorization": f"Bearer {keys[prompt['tenant']]}"},
                        json={"text": prompt["text"], "history": prompt.get("history", [])},
                    )
                    progress.advance(bar)
                    return {"status": response.status_code, "why": why_of(response)}

            return await asyncio.gather(*map(one, prompts))


def why_of(response: httpx.Response) -> dict[str, Any]:
    """What the desk says of its call: in the JSON, or at the end of the stream."""
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        kind, _, data = response.text.strip().rpartition("\n\n")[2].partition("\ndata: ")
        last: dict[str, Any] = json.loads(data)
        body = {"why": last} if kind == "event: why" else last
    else:
        body = response.json()
    # A refusal is a problem, as JSON or as the last event of a stream that had begun.
    return body.get("why") or {"tier": None, "cost": "$0.00", "source": "", "reasons": [body.get("title", "error")]}


def show_report(console: Console, report: Report) -> None:
    table = Table(title="calls by tier", title_justify="left", box=None, pad_edge=False)
    for name in ("tier", "calls", "share", "cost", "all of them here"):
        table.add_column(name, justify="left" if name == "tier" else "right")
    for tier, cost in report.all_on.items():
        spend = report.by_tier.get(tier)
        calls = spend.calls if spend else 0
        share = f"{calls / report.calls:.0%}" if report.calls else ""
        table.add_row(tier, f"{calls}", share, usd(spend.cost if spend else 0), usd(cost))
    console.print(table, "")
    console.print(str(report), "", soft_wrap=True)
    for moved in report.downgrades[-3:]:
        console.print(f"  downgraded {moved.from_tier} to {moved.to_tier} at {moved.share:.0%} of a budget")


async def show_agreement(
    console: Console, prompts: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]
) -> None:
    """How often the classifiers that cost nothing, and the routing as a whole, chose what a person would choose."""
    table = Table(title="agreement with a person's choice of tier", title_justify="left", box=None, pad_edge=False)
    for name in ("who", "had an opinion", "agreed", "too cheap", "too dear"):
        table.add_column(name, justify="left" if name == "who" else "right")
    names = [tier.name for tier in DEFAULT_LADDER]
    for classifier in (KeywordClassifier(), SignalClassifier()):
        chosen = []
        for prompt in prompts:
            history = prompt.get("history", [])
            view = View(
                text=prompt["text"][:4000],
                context=history[-1]["content"] if history else "",
                turns=1 + len(history) // 2,
                task=TASKS.get(prompt["endpoint"]),
            )
            opinion = await classifier.classify(view, Nobody())
            place = DEFAULT_LADDER.labels[opinion.label] if opinion else None
            chosen.append(names[place] if place is not None else None)
        table.add_row(f"{classifier.name} alone", *counted(chosen, prompts, names))
    table.add_row("the routed calls", *counted([result["why"]["tier"] for result in results], prompts, names))
    console.print(table, "")


def counted(chosen: Sequence[str | None], prompts: Sequence[dict[str, Any]], names: list[str]) -> list[str]:
    pairs = [(names.index(c), names.index(p["tier"])) for c, p in zip(chosen, prompts, strict=True) if c is not None]
    sides = Counter((a > b) - (a < b) for a, b in pairs)
    of = len(pairs) or 1
    return [f"{len(pairs)}", f"{sides[0]} ({sides[0] / of:.0%})", f"{sides[-1]}", f"{sides[1]}"]


def show_last(console: Console, prompts: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]) -> None:
    table = Table(title="the last calls", title_justify="left", box=None, pad_edge=False, show_lines=False)
    for name in ("route", "prompt", "tier", "who", "cost", "why"):
        table.add_column(name, overflow="fold", max_width=34 if name in ("prompt", "why") else None)
    for prompt, result in list(zip(prompts, results, strict=True))[-8:]:
        why = result["why"]
        shown = " ".join(prompt["text"].split())
        shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
        table.add_row(
            prompt["endpoint"], shown, why["tier"] or f"{result['status']}", why["source"], why["cost"],
            "; ".join(why["reasons"]) or "as classified",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    asyncio.run(main())
