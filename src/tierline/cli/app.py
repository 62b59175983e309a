"""The commands, and what they have in common: errors as one line, and exit codes.

0: done. 1: done, and the figures are not good enough. 2: what was asked for cannot be done, and nothing was written.
"""

from __future__ import annotations

import sys
from functools import wraps
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from tierline.cli import batch
from tierline.cli.curves import curve
from tierline.cli.doctor import doctor
from tierline.cli.evaluate import evaluate
from tierline.cli.explain import explain
from tierline.cli.report import report
from tierline.cli.routes import routes
from tierline.cli.sampling import sample
from tierline.cli.simulate import simulate_log
from tierline.cli.training import train
from tierline.cli.watch import watch
from tierline.errors import TierlineError

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="tierline",
    help="See what holds in an app and where its money goes, and measure how well tiers are chosen on its own traffic.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _told(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command, with an error of the user's as one line."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except BrokenPipeError:
            raise  # whoever reads has had enough: typer knows
        except (TierlineError, OSError) as error:
            Console(stderr=True, soft_wrap=True).print("[bold red]error:[/] ", end="")
            sys.stderr.write(f"{error}\n")
            raise typer.Exit(2) from None

    return run


app.command("routes")(_told(routes))
app.command("explain")(_told(explain))
app.command("doctor")(_told(doctor))
app.command("eval")(_told(evaluate))
app.command("curve")(_told(curve))
app.command("train")(_told(train))
app.command("sample")(_told(sample))
app.command("simulate")(_told(simulate_log))
app.command("report")(_told(report))
app.command("watch")(_told(watch))
app.add_typer(batch.commands(_told), name="batch")
