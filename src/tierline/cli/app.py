"""The commands, and what they have in common: errors as one line, and exit codes.

0: done. 1: done, and what was found is not good enough. 2: what was asked for cannot be done, and nothing was written.
"""

from __future__ import annotations

import sys
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.console import Console

from tierline.cli import batch, budgets, cache, config
from tierline.cli.curves import curve
from tierline.cli.doctor import doctor
from tierline.cli.evaluate import evaluate
from tierline.cli.explain import explain
from tierline.cli.report import report
from tierline.cli.routes import routes
from tierline.cli.sampling import sample
from tierline.cli.simulate import simulate_log
from tierline.cli.stores import plain_lines
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
            sys.stderr.write(f"{plain_lines(str(error))}\n")  # it quotes what files and stores have
            raise typer.Exit(2) from None

    return run


_APP, _STORE, _MEASURE = "An app", "What it spends", "How well tiers are chosen"
_COMMANDS: Final[tuple[tuple[str, dict[str, Callable[..., Any]]], ...]] = (
    (_APP, {"routes": routes, "explain": explain, "doctor": doctor}),
    (_STORE, {"watch": watch, "report": report}),
    (_MEASURE, {"eval": evaluate, "curve": curve, "train": train, "sample": sample, "simulate": simulate_log}),
)
for panel, commands in _COMMANDS:
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(_told(command))
app.add_typer(budgets.commands(_told), name="budgets", rich_help_panel=_STORE)
app.add_typer(cache.commands(_told), name="cache", rich_help_panel=_STORE)
app.add_typer(config.commands(_told), name="config", rich_help_panel=_APP)
app.add_typer(batch.commands(_told), name="batch", rich_help_panel=_STORE)
