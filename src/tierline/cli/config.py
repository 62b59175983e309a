"""`tierline config`: is a file right, what does it say, and what may be in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tierline.cli.stores import plain_text
from tierline.configuration.loading import configured, unheard
from tierline.configuration.schema import schema as schema_of

if TYPE_CHECKING:
    from collections.abc import Callable

_File = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="tierline.toml, or pyproject.toml; by default what an app would find."),
]


def check(file: _File = None, as_json: Annotated[bool, typer.Option("--json", help="JSON.")] = False) -> None:
    """Check a configuration file, and the environment over it. Errors have their lines; with one it exits with 2."""
    found = configured(file, os.environ)
    found.router()  # opens nothing
    unknown = unheard(os.environ)
    console = Console()
    if as_json:
        path = None if found.path is None else str(found.path)
        keys = sorted({*found.options} | {f"middleware.{name}" for name in found.middleware})
        told = {"file": path, "keys": keys, "variables": found.variables, "unknown_variables": sorted(unknown)}
        console.file.write(json.dumps(told, indent=2) + "\n")
        return
    where = "no file here, so defaults hold" if found.path is None else f"{plain_text(found.path)} is well"
    console.print(where, markup=False, highlight=False)
    for name in sorted(found.options):
        by = found.variables.get(name)
        console.print(f"  {name}{f' ({by})' if by else ''}", markup=False, highlight=False)
    for name in found.middleware:
        console.print(f"  middleware: {name}", markup=False, highlight=False)
    for said in unknown.values():
        console.print(f"warning: {plain_text(said)}", markup=False, highlight=False, soft_wrap=True)


def schema() -> None:
    """Print the JSON Schema of tierline.toml, for editors: tierline config schema > tierline.schema.json."""
    Console().file.write(json.dumps(schema_of(), indent=2, ensure_ascii=False) + "\n")


def commands(told: Callable[[Callable[..., Any]], Callable[..., Any]]) -> typer.Typer:
    """`tierline config …`; `told` makes a command whose errors are one line."""
    found = typer.Typer(help="Check tierline.toml, and print its JSON Schema.", no_args_is_help=True)
    parts: dict[str, Callable[..., Any]] = {"check": check, "schema": schema}
    for name, command in parts.items():
        found.command(name)(told(command))
    return found
