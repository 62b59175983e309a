"""`tierline eval`: every measure of a file, with its interval."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from tierline.cli.options import (
    ClassifierName,
    File,
    LadderText,
    OutTokens,
    bars,
    classifier_of,
    costs_of,
)
from tierline.cli.show import amount, as_json, show
from tierline.errors import ConfigurationError
from tierline.evaluation.fitting import chances_unseen
from tierline.evaluation.measures import OUTPUT_TOKENS, Graded, Labelled, Logged, Measures
from tierline.evaluation.training import FEWEST

if TYPE_CHECKING:
    from tierline.evaluation.rows import Row

MOST_FITTED: Final = 20_000
"""Graded requests up to which a model is fitted to them, to say what the route would teach."""


def evaluate(
    file: File,
    classifier: ClassifierName = "default",
    ladder: LadderText = "",
    against: Annotated[str, typer.Option(help="Another ladder, with the same names: what it would cost.")] = "",
    out_tokens: OutTokens = OUTPUT_TOKENS,
    min_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit with 1 where agreement is below this.")
    ] = None,
    as_json_: Annotated[bool, typer.Option("--json", help="JSON instead of tables; money in nano-USD.")] = False,
) -> None:
    """Measure labels, graded outcomes or a decision log. Nobody is asked: it costs nothing."""
    found = measured(file, classifier, ladder, against, out_tokens)
    console = Console()
    if as_json_:
        console.file.write(as_json(found, file=str(file), classifier=classifier) + "\n")
    else:
        for title, measures in found.items():
            show(console, title, measures)
    if min_agreement is not None:
        if "labels" not in found:
            raise ConfigurationError(f"{file} has no labels, so --min-agreement says nothing: give rows with `label`")
        share = found["labels"].figure("agreement")
        if share is None or share.value < min_agreement:
            value = amount(share.value, "share") if share is not None else "unknown"
            Console(stderr=True).print(f"agreement is {value}, under {min_agreement:.1%}")
            raise typer.Exit(1)


def measured(file: Any, classifier: str, ladder: str, against: str, out_tokens: int) -> dict[str, Measures]:
    """What was found, by kind of row."""
    costs = costs_of(ladder, out_tokens)
    there = costs_of(against, out_tokens) if against else None
    if there is not None and (missing := [t.name for t in costs.ladder if there.ladder.place_of(t.name) is None]):
        raise ConfigurationError(f"--against has no tier {missing[0]!r}: name a model for each tier of the ladder")
    who = classifier_of(classifier)
    labelled, graded, logged = Labelled(who, costs, there), Graded(who, costs), Logged(there)
    kinds: dict[str, Any] = {"labels": labelled, "outcomes": graded, "decisions": logged}
    seen = dict.fromkeys(kinds, False)
    requests: dict[str, Row] = {}
    with bars() as progress:
        for row in progress.rows(file):
            if row.grades and (row.id in requests or len(requests) <= MOST_FITTED):
                first = requests.get(row.id)
                requests[row.id] = row if first is None else replace(first, grades=first.grades + row.grades)
            for kind, there_is in (
                ("labels", row.label is not None),
                ("outcomes", bool(row.grades)),
                ("decisions", row.record is not None),
            ):
                if there_is:
                    kinds[kind].add(row)
                    seen[kind] = True
        found: dict[str, Measures] = {}
        if seen["labels"]:
            found["labels"] = labelled.measures(watch=progress.watch)
        if seen["outcomes"]:
            learned = None
            if FEWEST <= len(requests) <= MOST_FITTED:
                tiers = tuple(tier.name for tier in costs.ladder)
                learned = chances_unseen(
                    list(requests.values()), tiers, watch=lambda folds: progress.watch(folds, "learning")
                )
            found["outcomes"] = graded.measures(learned, watch=progress.watch)
        if seen["decisions"]:
            found["decisions"] = logged.measures()
    return found
