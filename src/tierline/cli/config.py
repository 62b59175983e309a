"""`tierline config`: is a file right, what does it say, and what may be in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tierline.cli.stores import plain_text
from tierline.configuration import load
from tierline.configuration.schema import schema as schema_of

if TYPE_CHECKING:
    from collections.abc import Callable

_File = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="tierline.toml, or pyproject.toml; by default what an app would find."),
]


def check(file: _File = None, as_json: Annotated[bool, typer.Option("--json", help="JSON.")] = False) -> None:
    """Check a configuration file and the environment over it. Exits with 2, and each error with its line, otherwise."""
    found = load(file)
    found.router()  # opens nothing
    console = Console()
    if as_json:
        path = None if found.path is None else str(found.path)
        keys = sorted({*found.options} | {f"middleware.{name}" for name in found.middleware})
        console.file.write(json.dumps({"file": path, "keys": keys, "variables": found.variables}, indent=2) + "\n")
        return
    where = "no file here" if found.path is None else plain_text(found.path)
    console.print(f"{where}: well", markup=False, highlight=False)
    for name in sorted(found.options):
        by = found.variables.get(name)
        console.print(f"  {name}{f' ({by})' if by else ''}", markup=False, highlight=False)
    for name in found.middleware:
        console.print(f"  middleware: {name}", markup=False, highlight=False)


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
