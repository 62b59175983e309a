"""`tierline explain`: what would become of a call, step by step; with `--send` also what did."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tierline.cli.explain_json import as_dict, sent_as_dict
from tierline.cli.foresight import SILENT, foresee
from tierline.cli.loading import AppName, Factory, loaded, router_in
from tierline.cli.routes import in_words
from tierline.cli.stores import check_store, plain_lines, plain_text
from tierline.cli.survey import survey
from tierline.display import duration, money
from tierline.errors import ConfigurationError, TierlineError
from tierline.explanation import in_words as window_in_words
from tierline.router import Router
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tierline.binding import Binding
    from tierline.cli.foresight import Course, Foresight, Standing
    from tierline.cli.survey import Surveyed, Written
    from tierline.values import Decision

_MOST_ROUTES: Final = 12
_LONGEST: Final = 300
"""Characters of what is changed in a request."""


def explain(
    prompt: Annotated[str, typer.Argument(help="What is asked; - reads it from stdin.")] = "",
    app: AppName = "",
    factory: Factory = False,
    route: Annotated[str, typer.Option(help="The route that asks, as `tierline routes` shows it: /contracts.")] = "",
    tenant: Annotated[str, typer.Option(help="Whom it is for.")] = "",
    model: Annotated[str, typer.Option(help="What the app writes: auto, or an id.")] = "auto",
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of the answer.")] = 1_024,
    system: Annotated[str, typer.Option(help="The system prompt.")] = "",
    body: Annotated[
        Path | None, typer.Option("--body", metavar="FILE", help="A whole request to the Messages API, as JSON.")
    ] = None,
    store: Annotated[str, typer.Option(help="Without --app: the store to look into, such as sqlite:///desk.db.")] = "",
    send: Annotated[bool, typer.Option("--send", help="Send it after all. It costs what it costs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON; money in nano-USD.")] = False,
) -> None:
    """Explain what would become of a call: tiers, classifiers, budgets. Nothing is sent, and nobody is asked.

    With --app its Router decides, under its budgets as they stand.
    The app is not started. Exits with 1 where the call would be refused.
    """
    request = _request(prompt, body, model, max_tokens, system)
    router, at = _placed(app, factory, route, store)
    console = Console()
    found, decision, answer = asyncio.run(_explained(router, request, at, route, tenant, send=send))
    if as_json:
        told = as_dict(found, at) | ({} if not send else {"sent": sent_as_dict(decision, answer)})
        console.file.write(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    else:
        for title, lines in steps(found, router, at, route, tenant, app):
            _print(console, title, lines)
        if send:
            _print(console, "What happened", _happened(decision, answer))
    if not found.passes or (send and (decision is None or isinstance(answer, Exception))):
        raise typer.Exit(1)


def _request(prompt: str, body: Path | None, model: str, max_tokens: int, system: str) -> dict[str, Any]:
    """The Messages request to explain. ConfigurationError where there is none."""
    if body is not None:
        if prompt:
            raise ConfigurationError("a prompt or --body: leave one of them out")
        try:
            found = json.loads(sys.stdin.read() if str(body) == "-" else body.read_text("utf-8"))
        except ValueError as error:
            raise ConfigurationError(f"--body {body} is no JSON: {error}") from None
        if not isinstance(found, dict):
            raise ConfigurationError(f"--body {body}: a request is a JSON object, with messages and max_tokens")
        return {"model": model, "max_tokens": max_tokens, **found}
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise ConfigurationError('what is asked? write it in quotes, "Are you open on Saturday?", or give --body FILE')
    request = {"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]}
    return request | ({"system": system} if system else {})


def _placed(app: str, factory: bool, route: str, store: str) -> tuple[Router[Any], Surveyed | None]:
    """The Router, and the route of an app. ConfigurationError where there is none of that name."""
    if not app:
        if store:
            check_store(store)
        return Router(store=store or None), None
    if store:
        raise ConfigurationError("--store is for without --app: an app has its own")
    found = loaded("--app", app, factory=factory)
    if route and not isinstance(found, Router):
        places = [each for each in survey(found).routes if each.router is not None]
        method, _, path = route.rpartition(" ")
        for each in reversed(places):  # of a route under two Routers, the one that its endpoint is given
            if each.path == path and method.upper() in ("", *each.methods):
                assert each.router is not None  # noqa: S101  (those without are left out)
                return each.router, each
        names = list(dict.fromkeys(each.path for each in places))
        more = f" and {len(names) - _MOST_ROUTES} more" if len(names) > _MOST_ROUTES else ""
        raise ConfigurationError(
            f"--route {route!r:.80}: there is no such route under a TierlineMiddleware; there are "
            f"{', '.join(names[:_MOST_ROUTES]) or 'none'}{more}"
        )
    return router_in("--app", app, found), None


async def _explained(
    router: Router[Any], request: dict[str, Any], at: Surveyed | None, route: str, tenant: str, *, send: bool
) -> tuple[Foresight, Decision | None, Any]:
    decision: Decision | None = None
    answer: Any = None
    policies = [each.policy for each in at.written if each.policy is not router.policy] if at is not None else []
    name = at.path if at is not None else route or None
    try:
        if send:
            _check_key(router)
        async with router.bind(tenant=tenant or None, route=name) as binding:
            found = await foresee(router, request, binding, policies)
        if send:
            async with router.bind(tenant=tenant or None, route=name) as binding:
                for rule in policies:
                    binding.narrow(rule)
                decision, answer = await _sent(router, request, binding)
    finally:
        await router.aclose(1.0)
    return found, decision, answer


def _check_key(router: Router[Any]) -> None:
    from tierline.anthropic import has_credentials  # noqa: PLC0415  (the SDK, for who sends)

    if not has_credentials(router.claude):
        raise ConfigurationError("--send needs a key: set ANTHROPIC_API_KEY, or give the app's Router its client")


async def _sent(router: Router[Any], request: dict[str, Any], binding: Binding) -> tuple[Decision | None, Any]:
    """What was decided and answered; in the place of an answer, the error."""
    from anthropic import AnthropicError  # noqa: PLC0415  (the SDK, for who sends)
    from anthropic.types import Message  # noqa: PLC0415

    answer: Any
    try:
        # As it is written: methods of the SDK take what their release knows.
        answer = await router.claude.post("/v1/messages", cast_to=Message, body={**request, "stream": False})
    except (TierlineError, AnthropicError) as error:
        answer = error
    return (binding.decisions[-1] if binding.decisions else None), answer


# What a person sees


def steps(
    found: Foresight, router: Router[Any], at: Surveyed | None, route: str, tenant: str, app: str
) -> Iterator[tuple[str, list[Any]]]:
    """Each step with its lines: texts, and tables."""
    yield "1 The call", list(_call(found))
    where = f"{' '.join(at.methods)} {at.path}" if at is not None else route or "no route is named"
    yield (
        "2 What holds",
        list(_holds(found, router, at, f"{where}, {f'tenant {tenant}' if tenant else 'no tenant'}", app)),
    )
    if found.refused:
        yield "3 The tiers", [_tiers(found)]
        yield "The end", [f"nothing is sent: {found.refused}"]
        return
    yield "3 How hard it is", list(_classified(found, router))
    yield "4 The tiers", [_tiers(found)]
    yield "5 The budgets", list(_budgets(found, router))
    yield "6 What is sent", list(_outcome(found))


def _call(found: Foresight) -> Iterator[str]:
    call = found.call
    bound = (
        "unknown; the model's window bounds it" if call.input_bound is None else f"at most {call.input_bound:,} tokens"
    )
    yield f"model {call.model}, max_tokens {'none' if call.max_tokens is None else f'{call.max_tokens:,}'}"
    yield (
        f"prompt: {bound}, about {found.expected.prompt_tokens:,} expected; answer: about "
        f"{found.expected.output_tokens:,} expected"
    )
    if call.features:
        yield f"asks for what not every model takes: {', '.join(sorted(call.features))}"
    if call.unbounded:
        yield f"no bound on its cost: {call.unbounded}"


def _holds(found: Foresight, router: Router[Any], at: Surveyed | None, where: str, app: str) -> Iterator[str]:
    policy, ladder = found.policy, router.ladder
    yield where
    written: Iterable[Written] = at.written if at is not None else ()
    for each in written:
        yield f"{in_words(each.policy)} ({each.by}{f', {each.at}' if each.at else ''})"
    if at is None and router.policy is not None:
        yield f"{in_words(router.policy)} (Router(policy=…))"
    if at is None and app:
        yield "no --route: the policies of no route are in it"
    words = [f"tiers from {ladder[policy.floor].name} to {ladder[policy.ceiling].name}"]
    words += ["critical"] if policy.critical else []
    words += [f"max_tokens {policy.max_tokens:,}"] if policy.max_tokens is not None else []
    yield f"so: {', '.join(words)}"
    yield from policy.reasons
    if router.mode != "enforce":
        yield f"the mode is {router.mode}: nothing of this is enforced"


def _classified(found: Foresight, router: Router[Any]) -> Iterator[Any]:
    plan = found.courses[0].plan
    if found.steered:
        yield "the text speaks to its classifier: that part is left out, and Claude is not asked"
    if found.forecast is not None:
        yield f"how likely each tier is good enough, from {found.forecast.evidence:,.0f} outcomes of the route:"
        yield ", ".join(f"{each.tier} {each.good:.2f} ({each.evidence:,.0f})" for each in found.forecast.chances)
    if not found.heard:
        yield f"nobody is asked: {plan.source} settles it"
    rows = Table.grid(padding=(0, 2))
    for each in found.heard:
        said = f"{each.opinion.label} {each.opinion.confidence:.2f}" if each.opinion is not None else "-"
        rows.add_row(Text(plain_text(each.name)), said, Text(plain_text(each.note), style="dim"))
    if found.heard:
        yield rows
    if found.verdict_cost is not None:
        yield f"asking Claude would cost about {_micro(found.verdict_cost)}, where no verdict is cached"
    elif found.heard:
        doubt = (
            f", which is under {router.min_confidence:.2f}: one tier up"
            if plan.confidence < router.min_confidence
            else ""
        )
        yield f"so: {plan.label} at {plan.confidence:.2f}{doubt}" if plan.label else f"so: {plan.source}"


def _tiers(found: Foresight) -> Table:
    rows = Table(box=None, pad_edge=False, show_edge=False)
    for name in ("tier", "model", "at worst", "expected", ""):
        rows.add_column(name, justify="right" if name in ("at worst", "expected") else "left", no_wrap=name != "")
    worst = _amounts([each.worst for each in found.rungs], "no bound")
    expected = _amounts([each.expected for each in found.rungs], "?")
    for each, *amounts in zip(found.rungs, worst, expected, strict=True):
        style = "" if each.open else "dim"
        names = map(Text, map(plain_text, (each.tier, each.model)))
        rows.add_row(*names, *amounts, Text(plain_text(each.note), style=style), style=style)
    return rows


def _budgets(found: Foresight, router: Router[Any]) -> Iterator[Any]:
    if not found.accounts:
        yield "none: it is charged to no budget"
        return
    rows = Table(box=None, pad_edge=False, show_edge=False)
    for name in ("budget", "account", "spent", "held", "of", "left", ""):
        text = name in ("budget", "account", "")
        rows.add_column(name, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    columns = zip(
        money(map(_whole, (each.spent for each in found.accounts))),
        money(map(_whole, (each.held for each in found.accounts))),
        money(each.line.limit for each in found.accounts),
        money(map(_whole, (max(0, each.room) for each in found.accounts))),
        strict=True,
    )
    for each, amounts in zip(found.accounts, columns, strict=True):
        account = "this request" if each.line.account.startswith("req-") else each.line.account
        # As they are: a name may read like markup.
        rows.add_row(*map(Text, map(plain_text, (each.line.budget, account, *amounts, _of_budget(each)))))
    yield rows
    if router.ledger.instant:
        yield "the store is in the app's own memory, which is not seen from here: all begins at 0"


def _of_budget(each: Standing) -> str:
    words = [window_in_words(each.line.window)]
    words += [] if each.line.hard else ["soft: never refuses"]
    words += ["limit set at run time"] if each.set else []
    return ", ".join(words)


def _outcome(found: Foresight) -> Iterator[Any]:
    asked = found.verdict_cost is not None
    for course in found.courses if not asked else (*found.courses[1:], found.courses[0]):
        if asked:
            yield Text(
                f"if Claude says {course.verdict}:" if course.verdict else "if Claude says nothing:", style="bold"
            )
        yield from (f"{'  ' if asked else ''}{line}" for line in _of_course(course, found))


def _of_course(course: Course, found: Foresight) -> Iterator[str]:
    plan, offer = course.plan, course.offer
    heard = {each.note for each in found.heard}
    yield from (reason for reason in plan.reasons if SILENT not in reason and reason not in heard)
    if offer is None:
        cheapest = plan.offers[-1]
        need = "a call without a bound" if cheapest.cost is None else f"{_micro(cheapest.cost)} for {cheapest.tier}"
        yield f"REFUSED: budget {course.tight} has no room for {need}; nothing is sent"
        return
    if offer is not plan.offers[0]:
        yield f"budget {course.tight} moves it from {plan.offers[0].tier} to {offer.tier}"
    holds = "nothing can be held" if offer.cost is None else f"holds {_micro(offer.cost)}"
    expected = next((each.expected for each in found.rungs if each.tier == offer.tier), None)
    about = "" if expected is None else f", about {_micro(expected)} expected"
    yield f"→ {offer.tier} ({offer.model}): {holds}{about}"
    if told := _changes(found.call.body, course.body or {}):
        yield f"changed in the request: {told}"
    yield f"where it fails: {', then '.join(course.fallbacks) or 'no other tier is tried'}"


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What is sent otherwise than it was written, but for the model."""
    names = [name for name in after if name != "model" and after[name] != before.get(name)]
    told = [f"{name}={json.dumps(after[name])}" for name in names]
    return ", ".join(told + [f"no {name}" for name in before if name not in after])[:_LONGEST]


def _happened(decision: Decision | None, answer: Any) -> Iterator[Any]:
    if decision is not None:
        yield f"{decision.tier} ({decision.model}) by {decision.source}"
        saved = f"{usd(decision.saved)} saved against the top tier"
        yield f"{usd(decision.cost)} in {duration(decision.latency_s)}, {saved}"
        yield from decision.reasons
        for each in decision.attempts:
            yield f"attempt: {each.tier}, {each.role}, {each.outcome}, {usd(each.cost)}, {duration(each.seconds)}"
        usage = decision.usage
        yield f"{usage.prompt_tokens:,} tokens in, {usage.output_tokens:,} out"
    if isinstance(answer, Exception):
        yield f"{type(answer).__name__}: {answer}"
    elif answer is not None:
        yield ""
        yield "".join(block.text for block in answer.content if block.type == "text")


def _print(console: Console, title: str, lines: Iterable[Any]) -> None:
    console.print(Text(title, style="bold"))
    for line in lines:
        # What Claude or the API says may have anything in it, on each of its lines.
        shown = Text(plain_lines(line)) if isinstance(line, str) else line
        console.print(Padding(shown, (0, 0, 0, 2), expand=False))
    console.print()


def _micro(nano: int) -> str:
    """Money to six digits after the point, rounded up."""
    return usd(_whole(nano))


def _amounts(values: Sequence[int | None], without: str) -> list[str]:
    """Amounts with as many digits each, and what stands for none."""
    known = iter(money(_whole(value) for value in values if value is not None))
    return [without if value is None else next(known) for value in values]


def _whole(nano: int) -> int:
    return -(-nano // 1_000) * 1_000
