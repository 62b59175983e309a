"""`tierline train`: fit to an app's own rows, and say honestly whether that is better than what comes with Tierline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from tierline.cli.files import check_out, whole
from tierline.cli.options import File, LadderText, bars, ladder_of
from tierline.errors import ConfigurationError
from tierline.evaluation.fitting import Recipe, of_outcomes
from tierline.evaluation.labels import of_labels
from tierline.evaluation.training import FEWEST, Comparison, compare

if TYPE_CHECKING:
    from tierline.evaluation.intervals import Interval
    from tierline.evaluation.rows import Row


def train(
    file: File,
    out: Annotated[Path, typer.Option("--out", help="Where the trained weights go.")],
    ladder: LadderText = "",
    seed: Annotated[int, typer.Option(help="The same seed splits the rows alike.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Write them even where they are no better.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Fit to labels or graded outcomes, cross-validate, and write the weights if they are better than what ships.

    Exits with 1, and writes nothing, where they are not.
    """
    check_out(out)
    console = Console()
    with bars() as progress:
        rows = list(progress.rows(file))
        recipe, used = recipe_of(file, rows, tuple(tier.name for tier in ladder_of(ladder)))
        found = compare(
            used, recipe.fit, recipe.shipped, seed=seed, watch=lambda draws: progress.watch(draws, "cross-validating")
        )
        plain = compare(used, recipe.plain, recipe.shipped, seed=seed).fitted
        better = found.better and found.fitted.value > plain.value
        said, writes = verdict(found, plain, recipe), better or force
        if as_json:
            told = {"score": recipe.score, "rows": found.rows, "better": better, "verdict": said, "written": writes}
            each = {"fitted": found.fitted, "shipped": found.shipped, "plain": plain, "gain": found.gain}
            told |= {name: interval._asdict() for name, interval in each.items()}
            console.file.write(json.dumps(told, indent=2) + "\n")
        else:
            console.print(shown(recipe, found, plain))
            console.print(said, soft_wrap=True, markup=False)
        if not writes:
            raise typer.Exit(1)
        packed = recipe.pack(used)
    with whole(out) as part:
        part.write_bytes(packed)
    if not as_json:
        console.print(f"written to {out}: {recipe.use.format(out=out)}", soft_wrap=True, markup=False)


def recipe_of(file: Path, rows: list[Row], tiers: tuple[str, ...]) -> tuple[Recipe, list[Row]]:
    """How these rows are learned from, and those of them that are. ConfigurationError where they are of both kinds."""
    labelled, graded = [row for row in rows if row.label is not None], [row for row in rows if row.grades]
    if labelled and graded:
        raise ConfigurationError(f"{file} has labels and grades: train on each in a file of its own")
    used = labelled or graded
    if len(used) < FEWEST:
        raise ConfigurationError(
            f"{file} has {len(used)} labels or grades: give {FEWEST} or more, some hundreds better; "
            "`tierline sample` makes grades of a decision log"
        )
    return (of_labels() if labelled else of_outcomes(tiers)), used


def shown(recipe: Recipe, found: Comparison, plain: Interval) -> Table:
    """Both, the difference, and what counting alone can do, each with its interval."""
    table = Table(title=f"{recipe.score}, cross-validated: {found.rows:,} rows", title_justify="left")
    for name in ("", "value", "95% interval"):
        table.add_column(name, justify="right" if name else "left")
    for name, each in (
        ("fitted to these rows", found.fitted),
        (recipe.beside, found.shipped),
        (recipe.by_count, plain),
        ("gain over what ships", found.gain),
    ):
        table.add_row(name, f"{each.value:.3f}", f"{each.low:.3f} to {each.high:.3f}")
    return table


def verdict(found: Comparison, plain: Interval, recipe: Recipe) -> str:
    """Whether it is better, in a sentence."""
    gain = f"{found.gain.value:+.3f}, 95% interval {found.gain.low:+.3f} to {found.gain.high:+.3f}"
    if not found.better:
        why = "worse" if found.gain.high < 0 else "not surely better"
        return f"{why} than what ships ({gain}): more rows, or other ones, may tell; --force writes it all the same"
    if found.fitted.value <= plain.value:
        return f"better than what ships ({gain}), and no better than {recipe.by_count}: --force writes it all the same"
    return f"better than what ships: {gain}"
