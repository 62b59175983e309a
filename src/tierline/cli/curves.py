"""`tierline curve`: quality against cost, as a table and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from tierline.cli.files import check_out, whole
from tierline.cli.options import ClassifierName, File, LadderText, OutTokens, bars, classifier_of, costs_of
from tierline.cli.show import amount
from tierline.errors import ConfigurationError
from tierline.evaluation.measures import OUTPUT_TOKENS, Graded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.evaluation.sweep import Point

_STEPS: Final = 10
_PICTURES: Final = (".svg", ".png", ".pdf")


def curve(
    file: File,
    classifier: ClassifierName = "default",
    ladder: LadderText = "",
    out: Annotated[Path | None, typer.Option("--out", help="A picture: .svg, .png or .pdf.")] = None,
    out_tokens: OutTokens = OUTPUT_TOKENS,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table; money in nano-USD.")] = False,
) -> None:
    """Show what quality costs: graded outcomes, from all on the cheapest tier to all on the dearest."""
    if out is not None:
        if out.suffix.lower() not in _PICTURES:
            raise ConfigurationError(f"--out {out}: name a picture that ends in {', '.join(_PICTURES)}")
        check_out(out)
        pyplot = _pyplot()
    who = classifier_of(classifier)
    graded = Graded(who, costs_of(ladder, out_tokens))
    with bars() as progress:
        for row in progress.rows(file):
            if row.grades:
                graded.add(row)
    found, pair = graded.sweep(), graded.pair
    if found is None or pair is None:
        raise ConfigurationError(
            f"{file}: no request was graded on two tiers; give rows with the same `id` (or text) and another `tier`"
        )
    points = found[0].curve()
    console = Console()
    if as_json:
        console.file.write(json.dumps(_as_dict(points, pair, who.name, len(found[1])), indent=2) + "\n")
    else:
        _show(console, points, pair, who.name, len(found[1]))
    if out is not None:
        draw(pyplot, points, pair, who.name, out)
        if not as_json:
            console.print(f"drawn to {out}")


def _as_dict(points: Sequence[Point], pair: tuple[str, str], name: str, requests: int) -> dict[str, Any]:
    steps = [
        {"share": at.share, "quality": at.quality, "by_chance": _by_chance(points, at.share), "cost": at.cost}
        for at in (at_share(points, step / _STEPS) for step in range(_STEPS + 1))
    ]
    return {"cheap": pair[0], "dear": pair[1], "classifier": name, "requests": requests, "curve": steps}


def _by_chance(points: Sequence[Point], share: float) -> float:
    first, last = points[0], points[-1]
    return first.quality + (last.quality - first.quality) * share


def _show(console: Console, points: Sequence[Point], pair: tuple[str, str], who: str, requests: int) -> None:
    table = Table(title=f"{pair[0]} and {pair[1]}, by {who}: {requests:,} requests", title_justify="left")
    for name in (f"to {pair[1]}", "quality", "by chance", "a thousand cost"):
        table.add_column(name, justify="right")
    for step in range(_STEPS + 1):
        point = at_share(points, step / _STEPS)
        chance = _by_chance(points, point.share)
        table.add_row(
            f"{point.share:.0%}", f"{point.quality:.3f}", f"{chance:.3f}", amount(point.cost * 1000, "nano-USD")
        )
    console.print(table)


def at_share(points: Sequence[Point], share: float) -> Point:
    """The curve at a share: straight between its points."""
    right = next(point for point in points if point.share >= share - 1e-12)
    left = next(point for point in reversed(points) if point.share <= share + 1e-12)
    if right.share <= left.share:
        return left
    part = (share - left.share) / (right.share - left.share)
    return type(left)(*(a + (b - a) * part for a, b in zip(left, right, strict=True)))


def draw(pyplot: Any, points: Sequence[Point], pair: tuple[str, str], name: str, out: Path) -> None:
    """Draw the curve, the line of chance and the two tiers; the file is there whole, or not at all."""
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    try:
        dollars = [point.cost * 1000 / 1e9 for point in points]
        axes.plot(dollars, [point.quality for point in points], label=f"by {name}")
        ends = (points[0], points[-1])
        axes.plot([dollars[0], dollars[-1]], [end.quality for end in ends], "--", color="grey", label="by chance")
        sides = ((8, 0, "left"), (-8, 0, "right"))  # each name beside its point, inside of the frame
        for tier, cost, end, (x, y, side) in zip(pair, (dollars[0], dollars[-1]), ends, sides, strict=True):
            axes.annotate(
                f"all {tier}", (cost, end.quality), textcoords="offset points", xytext=(x, y), ha=side, va="center"
            )
            axes.plot([cost], [end.quality], "o", color="black")
        axes.set_xlabel("dollars for a thousand requests")
        axes.set_ylabel("quality (mean grade)")
        axes.legend()
        figure.tight_layout()
        with whole(out) as part:
            figure.savefig(part)
    finally:
        pyplot.close(figure)


def _pyplot() -> Any:
    try:
        import matplotlib as mpl  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        raise ConfigurationError("a picture needs matplotlib: pip install 'tierline[plots]'") from error
    mpl.use("agg")  # no window
    from matplotlib import pyplot as plt  # noqa: PLC0415

    return plt
