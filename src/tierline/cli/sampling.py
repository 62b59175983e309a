"""`tierline sample`: a person grades the decisions that tell most, one key each."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from tierline.cli.asking import asked
from tierline.cli.files import check_out
from tierline.cli.options import bars
from tierline.errors import ConfigurationError
from tierline.evaluation.drawing import draw
from tierline.evaluation.rows import row_of
from tierline.policies import QUALITY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.evaluation.drawing import Drawn

_QUESTION: Final = "good enough? [bold]y[/]/[bold]n[/]/[bold]s[/]kip/[bold]q[/]uit "
_KEYS: Final = {"y": 1, "yes": 1, "n": 0, "no": 0}
_SKIP: Final = ("s", "skip", "")
_QUIT: Final = ("q", "quit")
_NO_LINES: Final = (".csv", ".tsv", ".gz", ".db", ".sqlite", ".sqlite3")
_BEGINS: Final = b'{"id": '
"""How each line that `keep` writes begins."""


def sample(
    log: Annotated[Path, typer.Argument(help="A decision log: JSON lines, or SQLite.")],
    out: Annotated[Path, typer.Option("--out", help="Where the grades go, one line each; what is there stays.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many to draw.")] = 20,
    seed: Annotated[int, typer.Option(help="The same seed draws the same.")] = 0,
    sure: Annotated[float, typer.Option(min=0, max=1, help="The Router's min_confidence.")] = 0.6,
    quality: Annotated[float, typer.Option(min=0, max=1, help="The policy's quality.")] = QUALITY,
    as_json: Annotated[
        bool, typer.Option("--json", help="Ask nobody: what was drawn as lines of JSON, to be graded elsewhere.")
    ] = False,
) -> None:
    """Draw decisions of a log to grade: was the answer of this tier good enough? y, n, skip or quit.

    Each grade is on the disk before the next question, so Ctrl-C loses nothing; the next time goes on from there.
    With --json a line that gets "good": 1 or 0 is a grade, for the file of --out.
    """
    console = Console()
    graded = graded_ids(out)
    with bars() as progress:
        drawn = draw(progress.rows(log), count, seed=seed, sure=sure, quality=quality, without=graded)
    if not drawn:
        raise ConfigurationError(
            f"{log} has no answered decision that is not graded: give a log of `Router(decision_log=…)`, or a newer one"
        )
    if as_json:
        for each in drawn:
            console.file.write(json.dumps({**about(each), "why": each.why}) + "\n")
        return
    if not any(each.row.text for each in drawn):
        console.print("the log has no texts (DecisionLog(text=True) keeps them): look the calls up by their ids\n")
    given = ask(console, drawn, out, partial(asked, console, _QUESTION))
    many = f"{given} grade{'' if given == 1 else 's'}"
    told = f"{many} added to {out}; read it with: tierline eval {out}" if given else "nothing was graded"
    console.print(f"\n{told}", markup=False, highlight=False, soft_wrap=True)


def ask(console: Console, drawn: list[Drawn], out: Path, key: Callable[[], str]) -> int:
    """Show each decision and take a key for it, until all are done or a person has had enough; how many were graded."""
    given = 0
    for number, each in enumerate(drawn, 1):
        row = each.row
        record = row.record or {}
        by = f"{record.get('tier')} ({record.get('model')})"
        told = Text(harmless(f"{each.why}\nid {row.id}, answered by {by}"), style="dim")
        title = Text(harmless(f"{number} of {len(drawn)}: {row.route}"))
        console.print(Panel(Text(harmless(row.text or "(no text in the log)")), title=title, title_align="left"))
        console.print(told)
        while True:
            try:
                pressed = key().strip().lower()
            except (EOFError, KeyboardInterrupt):
                return given
            if pressed in _QUIT:
                return given
            if pressed in _SKIP:
                break
            if pressed in _KEYS:
                keep(out, grade_of(each, _KEYS[pressed]))
                given += 1
                break
            console.print("press y, n, s or q, then Enter")
    return given


def harmless(text: str) -> str:
    """A text without what would command the terminal: whoever wrote the prompt is not to be trusted."""
    return "".join(mark if mark.isprintable() or mark in "\n\t" else "�" for mark in text)


def grade_of(drawn: Drawn, good: int) -> dict[str, Any]:
    """A line of the grades file: an outcome as `read` takes it."""
    return {**about(drawn), "good": good, "source": "person", "at": round(time.time(), 3)}


def about(drawn: Drawn) -> dict[str, Any]:
    """What was answered, without its grade."""
    row, record = drawn.row, drawn.row.record or {}
    return {
        "id": row.id, "route": row.route, "text": row.text or "", "tools": row.tools, "tier": record.get("tier"),
    }  # fmt: skip


def graded_ids(out: Path) -> set[str]:
    """What has been graded. A last line that was cut off is taken away; one that is whole gets its end.

    ConfigurationError for a file of something else, which stays as it is, and for a place where no file can be.
    """
    if out.suffix in _NO_LINES:
        raise ConfigurationError(f"--out {out}: grades are JSON lines; name a file that ends in .jsonl")
    check_out(out)
    if not out.exists():
        return set()
    with out.open("rb+") as file:
        *lines, last = file.read().split(b"\n")
        found = {_graded_id(out, number, line) for number, line in enumerate(lines, 1) if line.strip()}
        if last.startswith(_BEGINS) and _json(last) is None:
            file.truncate(sum(len(line) + 1 for line in lines))
        elif last:
            found.add(_graded_id(out, len(lines) + 1, last))
            file.write(b"\n")
    return found


def _graded_id(out: Path, number: int, line: bytes) -> str:
    where = f"--out {out}, line {number}"
    found = _json(line)
    if not isinstance(found, dict) or "good" not in found:
        raise ConfigurationError(f"{where}: it is no grade; name a new file, or one of grades")
    return row_of(where, found).id


def _json(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def keep(out: Path, grade: dict[str, Any]) -> None:
    """Add a line, on the disk when this returns."""
    line = json.dumps(grade, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
