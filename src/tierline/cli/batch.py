"""`tierline batch`: jobs of requests that can wait, for half the price."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from tierline.batches.values import Lane, WhenFull
from tierline.budgets import Budget
from tierline.cli.batch_lines import spooled
from tierline.cli.batch_opening import (
    OWN_BUDGET,
    Where,
    check_budgets,
    check_tiers,
    has_key,
    need_key,
    quiet,
    router_at,
)
from tierline.cli.batch_reading import Format, Requests, Shape
from tierline.cli.batch_running import Asked, Complaints, begun, run, waited
from tierline.cli.batch_showing import (
    FAILED,
    as_json,
    counted,
    preview_json,
    show,
    show_preview,
    showing,
    told_of,
)
from tierline.cli.batch_writing import Written, header_of, line_of, results_to
from tierline.cli.loading import AppName, Factory
from tierline.cli.options import LadderText
from tierline.cli.stores import Store, plain_text
from tierline.errors import ConfigurationError
from tierline.policies import Explicit, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from tierline.batches import BatchStatus, JobReport

INTERRUPTED: Final = 130
"""The exit code of what Ctrl-C ended, as shells have it."""

Job = Annotated[str, typer.Argument(help="The name of a job.")]
Json = Annotated[bool, typer.Option("--json", help="JSON; money in nano-USD.")]
Now = Annotated[bool, typer.Option("--now", help="As the store has it now: nobody is asked. Needs no key.")]


def submit(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="JSON lines or a CSV; - is what comes in.")],
    store: Store = "",
    app: AppName = "",
    factory: Factory = False,
    job: Annotated[str, typer.Option(help="Its name; made of the file's name and content if you give none.")] = "",
    form: Annotated[
        Format | None, typer.Option("--format", help="Found out by what is in the file, if you do not say.")
    ] = None,
    prompt: Annotated[
        str, typer.Option(help='For a CSV, with its columns: "Classify: {text}"; @FILE has it in a file.')
    ] = "",
    system: Annotated[str, typer.Option(help="A system prompt where a line has none; @FILE as well.")] = "",
    id_column: Annotated[
        str, typer.Option("--id", metavar="COLUMN", help="Of a CSV; else custom_id, id, the line.")
    ] = "",
    model: Annotated[str, typer.Option(help="Where a line names none of Claude's.")] = "auto",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of an answer, where a line does not say.")] = None,
    no_thinking: Annotated[
        bool, typer.Option("--no-thinking", help="Answers without thinking, which --max-tokens has in it.")
    ] = False,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="Leave out what Claude has not, like seed. Again for more."),
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of the file.")] = "utf-8",
    tenant: Annotated[str, typer.Option(help="Who pays, where a line does not say.")] = "",
    tenant_column: Annotated[str, typer.Option(metavar="COLUMN", help="Of a CSV: who pays for each row.")] = "",
    route: Annotated[str, typer.Option(help="The route that requests are counted with, and learned from.")] = "",
    floor: Annotated[str, typer.Option(metavar="TIER", help="The lowest tier.")] = "",
    ceiling: Annotated[str, typer.Option(metavar="TIER", help="The highest tier.")] = "",
    tier: Annotated[str, typer.Option(metavar="TIER", help="This tier, and no other.")] = "",
    explicit_model: Annotated[
        Explicit | None, typer.Option(help="What a model that a line names is: respected, a ceiling, or ignored.")
    ] = None,
    expected_output: Annotated[int | None, typer.Option(min=0, help="Tokens of a usual answer.")] = None,
    ladder: LadderText = "",
    budget: Annotated[str, typer.Option(metavar="AMOUNT", help="The most that this job may cost: $5.")] = "",
    lane: Annotated[
        Lane, typer.Option(help="batch: half the price, within a day. concurrent: now, as calls, at the list price.")
    ] = "batch",
    when_full: Annotated[WhenFull, typer.Option(help="What has no room in a budget is refused, or waits.")] = "refuse",
    without_budgets: Annotated[
        bool, typer.Option("--without-budgets", help="Without --app: go past the app's hard budgets.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show tiers and costs. Sends nothing; needs no key.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until all answers are there.")] = False,
    json_out: Json = False,
) -> None:
    """Submit the requests of a file as a job: at half the price of calls, within a day.

    Ctrl-C at any time: the same command goes on, and sends nothing twice.
    """
    where = _where(ctx, store, app, factory, ladder)
    policy = Policy(
        floor=floor or None, ceiling=ceiling or None, tier=tier or None, explicit_model=explicit_model,
        expected_output=expected_output,
    )  # fmt: skip
    shape = Shape(
        _text("--prompt", prompt), _text("--system", system), id_column, tenant_column, model, max_tokens,
        frozenset(drop or ()), not no_thinking, tenant or None, route or None, policy, encoding,
    )  # fmt: skip
    with _opened(file) as content:
        try:
            requests = Requests(content, shape, form)
        except ConfigurationError as error:
            raise ConfigurationError(f"{file}: {error}") from None
        if dry_run:
            _ran(_dry(where, requests, file, lane, json_out=json_out), "nothing was sent")
            return
        # What asks for other answers is another job; how it is paid for is not.
        digest = requests.digest(requests.format, ladder)
        name = job or f"{_stem(file)}-{digest}"
        if budget:
            requests.shape = replace(shape, policy=_within(policy, budget, name))
        asked = Asked(name, digest, when_full, lane, wait)
        doing = _submitted(where, requests, asked, without=without_budgets, json_out=json_out)
        _ran(doing, f"what was taken in is kept, and the same command goes on\n{_see('status', name, where)}")


def status(
    ctx: typer.Context, job: Job, store: Store = "", app: AppName = "", factory: Factory = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until all answers are there.")] = False,
    now: Now = False, json_out: Json = False,
) -> None:  # fmt: skip
    """Show how far a job is, what it cost and what that saves, by tier and by account.

    With a key, what is due is sent, asked for and collected first.
    """
    _ran(_status(_where(ctx, store, app, factory), job, wait=wait, now=now, json_out=json_out), "the job goes on")


def results(
    ctx: typer.Context, job: Job, store: Store = "", app: AppName = "", factory: Factory = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A file; it goes on where it was cut off.")] = None,
    form: Annotated[Written, typer.Option("--format", help="As whose API writes them, or a CSV.")] = "anthropic",
    failed: Annotated[bool, typer.Option("--failed", help="Those without an answer alone.")] = False,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="CUSTOM_ID", help="These alone. Again for more.")
    ] = None,
    now: Now = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:  # fmt: skip
    """Write the results of a job, in the order of its requests, as they come, until all are there.

    Exits with 1 where a request has no answer.
    """
    where = _where(ctx, store, app, factory)
    wanted = frozenset(ids or ())

    async def do() -> int:
        async with router_at(where) as router:
            before = await router.batches.status(job, work=False)
            if not before.done and not now:
                need_key(router, "With --now there is what the store has")
            left, bad = set(wanted), 0
            with results_to(out, sys.stdout.buffer, force=force) as write:
                write(header_of(form))
                async for each in router.batches.results(job, work=not now and not before.done):
                    if wanted and each.custom_id not in wanted:
                        continue
                    left.discard(each.custom_id or "")
                    bad += each.outcome != "succeeded"
                    if not failed or each.outcome != "succeeded":
                        write(line_of(each, form))
                after = await router.batches.status(job, work=False)
                if out is not None and not after.done:
                    raise ConfigurationError(
                        f"job {plain_text(job)} is not at its end: what there is is in {out}.part; the same command "
                        "goes on with it"
                    )
            for name in sorted(left):
                typer.echo(f"no request of job {plain_text(job)} has the id {plain_text(name)}", err=True)
            return int(bool(bad or left or not after.done))

    kept = f" in {out}.part" if out is not None else ""
    if code := _ran(do(), f"what was written stays{kept}; the same command goes on"):
        raise typer.Exit(code)


def cancel(
    ctx: typer.Context, job: Job, store: Store = "", app: AppName = "", factory: Factory = False, json_out: Json = False
) -> None:  # fmt: skip
    """Send nothing more of a job, and cancel what the API has. What is answered by then is paid for."""

    async def do() -> None:
        async with router_at(_where(ctx, store, app, factory)) as router:
            if has_key(router):
                await router.batches.cancel(job)
                await router.batches.catch_up()
            else:
                await router.batches.cancel(job, work=False)
                typer.echo("no key: what the API has is canceled by whoever looks after the job next", err=True)
            _tell(*await told_of(router, job, work=False), json_out=json_out)

    _ran(do(), "the job may be canceled: see its status")


def jobs(
    ctx: typer.Context, store: Store = "", app: AppName = "", factory: Factory = False, json_out: Json = False
) -> None:  # fmt: skip
    """List the jobs of a store, oldest first."""

    async def do() -> None:
        async with router_at(_where(ctx, store, app, factory)) as router:
            found = [await router.batches.status(name, work=False) for name in await router.batches.jobs()]
            if json_out:
                told = [
                    {
                        "job": e.id,
                        "state": e.state,
                        "submitted": e.submitted,
                        "processing": e.processing,
                        "cost": e.cost,
                    }
                    for e in found
                ]
                _out(json.dumps(told, indent=2))
            else:
                _list(found)

    _ran(do(), "")


def delete(
    ctx: typer.Context, job: Job, store: Store = "", app: AppName = "", factory: Factory = False, json_out: Json = False
) -> None:  # fmt: skip
    """Forget a job that has ended, with its results."""

    async def do() -> None:
        async with router_at(_where(ctx, store, app, factory)) as router:
            await router.batches.delete(job)

    _ran(do(), "")
    _out(json.dumps({"deleted": job}) if json_out else f"job {plain_text(job)} and its results are gone")


# What they do


async def _submitted(where: Where, requests: Requests, asked: Asked, *, without: bool, json_out: bool) -> None:
    quiet()
    async with router_at(where, create=True) as router:
        check_tiers(router, requests.shape.policy or Policy())
        need_key(router, "--dry-run needs none")
        await check_budgets(router, where, without=without)
        before = await begun(router, asked)
        _note(f"job {plain_text(asked.name)}{_going_on(before)}")
        complaints = Complaints(requests)
        with showing(silent=False) as shown:
            status, report = await run(router, requests, asked, shown, complaints)
        _note_models(requests)
        bad = sum(getattr(status, name) for name in FAILED)
        nothing = status.done and status.submitted == status.refused + status.invalid
        if nothing:
            # Nothing is lost with it, and the same command may be given again.
            await router.batches.delete(asked.name)
        _tell(status, report, json_out=json_out)
        if nothing:
            _note("nothing could be sent, and the job is forgotten")
        elif not json_out:
            _note(_see("results", asked.name, where))
    if nothing or bad:
        raise typer.Exit(2 if nothing else 1)


def _note_models(requests: Requests) -> None:
    for model, number in requests.models.items():
        lines = f"{number:,} line{'' if number == 1 else 's'}"
        _note(f"{plain_text(model)}, which {lines} named, is no model of Claude's: {requests.shape.model} was taken")


def _see(command: str, job: str, where: Where) -> str:
    return f"{command}: tierline batch {command} {shlex.quote(job)} {where.again()}"


def _going_on(before: BatchStatus | None) -> str:
    if before is None:
        return ": the same command goes on with it, if it is cut off"
    if before.state == "interrupted":
        return f" was cut off: {before.submitted:,} were taken in, and it goes on from there"
    return f" was submitted before: {counted(before)}. Nothing is sent again"


async def _dry(where: Where, requests: Requests, file: str, lane: Lane, *, json_out: bool) -> None:
    async with router_at(where, create=True, lasting=False) as router:
        check_tiers(router, requests.shape.policy or Policy())
        found = await router.batches.preview(requests, lane=lane, told=Complaints(requests))
    _note_models(requests)
    if json_out:
        _out(preview_json(found))
    else:
        show_preview(Console(), found, "stdin" if file == "-" else plain_text(Path(file).name))
    if found.invalid:
        raise typer.Exit(1 if found.by_tier else 2)


async def _status(where: Where, job: str, *, wait: bool, now: bool, json_out: bool) -> None:
    async with router_at(where) as router:
        found = await router.batches.status(job, work=False)
        if not found.done and wait:
            need_key(router, "Without --wait it is shown as the store has it")
            with showing(silent=json_out) as shown:
                await waited(router, job, shown)
        elif not found.done and not now and has_key(router):
            await router.batches.catch_up()
        status, report = await told_of(router, job, work=False)
        _tell(status, report, json_out=json_out)
        if status.state == "interrupted":
            _note("whoever submitted it was cut off: the same submit goes on with it")
    if wait and any(getattr(status, name) for name in FAILED):
        raise typer.Exit(1)


def _tell(status: BatchStatus, report: JobReport, *, json_out: bool) -> None:
    if json_out:
        _out(as_json(status, report))
    else:
        show(Console(), status, report)


def _list(found: list[BatchStatus]) -> None:
    if not found:
        _out("there are no jobs")
    for each in found:
        _out(f"{plain_text(each.id)}  {each.state.replace('_', ' ')}  {counted(each)}")


def _ran(doing: Coroutine[Any, Any, Any], interrupted: str) -> Any:
    """What it returns. Ctrl-C ends it in order, and says how things stand."""
    try:
        return asyncio.run(doing)
    except KeyboardInterrupt:
        if interrupted:
            typer.echo(f"\nstopped; {interrupted}", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _where(ctx: typer.Context, store: str, app: str, factory: bool, ladder: str = "") -> Where:
    source = ctx.get_parameter_source("store")
    if app and store and source is not None and source.name == "COMMANDLINE":
        raise ConfigurationError("--app or --store: the app's Router has a store of its own; leave one of them out")
    return Where("" if app else store, app, factory, ladder)


def _within(policy: Policy, amount: str, job: str) -> Policy:
    return replace(policy, budgets=[Budget(amount, name=f"{OWN_BUDGET}{job[:150]}")])


def _text(option: str, value: str) -> str:
    """What is written, or what is in the file that is named after an @."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{option} {value}: the file is no UTF-8") from None


def _stem(file: str) -> str:
    return "stdin" if file == "-" else re.sub(r"[^\w.-]+", "-", Path(file).stem)[:60] or "job"


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    """A file that can be read more than once."""
    with ExitStack() as stack:
        found: IO[bytes] = sys.stdin.buffer if file == "-" else stack.enter_context(Path(file).open("rb"))
        if file == "-" or not found.seekable():
            found = stack.enter_context(spooled(found))
        yield found


def _out(text: str) -> None:
    sys.stdout.write(text + "\n")


def _note(text: str) -> None:
    typer.echo(text, err=True)


def commands(told: Callable[[Callable[..., Any]], Callable[..., Any]]) -> typer.Typer:
    """`tierline batch …`; `told` makes a command whose errors are one line."""
    found = typer.Typer(help="Jobs of requests that can wait up to a day, for half the price.", no_args_is_help=True)
    for command in (submit, status, results, cancel, jobs, delete):
        found.command(command.__name__)(told(command))
    return found
