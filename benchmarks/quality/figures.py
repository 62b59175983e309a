"""Figures by name, which each part of the page hands on, and what they are held against."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.quality.writing import table
from tierline.evaluation.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Figures = dict[str, Interval]


def exactly(value: float) -> Interval:
    """A figure without an interval."""
    return Interval(value, value, value)


def options(about: str | None) -> argparse.ArgumentParser:
    """The options of a part: where the data is, and where its figures go."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the directory of the data")
    parser.add_argument("--figures", type=Path, help="a JSON file to write figures to")
    return parser


def keep(path: Path | None, figures: Mapping[str, Interval]) -> None:
    """Write figures where somebody wants them."""
    if path is not None:
        path.write_text(json.dumps({name: list(figure) for name, figure in figures.items()}), encoding="utf-8")


def kept(path: Path) -> Figures:
    """What was written there."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: Interval(*values) for name, values in found.items()}


class Target(NamedTuple):
    """What was aimed at: of which figure, said how, and whether that is met."""

    what: str
    said: str
    figure: str
    met: Callable[[Interval], bool]
    digits: int = 3


def _least(bound: float, low: float = 0.0) -> Callable[[Interval], bool]:
    return lambda figure: figure.value >= bound and figure.low > low


def _most(bound: float) -> Callable[[Interval], bool]:
    return lambda figure: figure.value <= bound


_TEXT: Final = "both, trained prior"
_BLANK: Final = "both, no prior of texts"
TARGETS: Final = (
    Target("Claude 3 tiers, unseen prompts, text alone: APGR", "≥ .73, lower bound > .61",
           "unseen prompts: Claude 3 tiers", _least(0.73, 0.61)),
    Target("macro over five sets of unseen prompts", "≥ .63", "unseen prompts: macro", _least(0.63)),
    Target("unseen sources, by leaving sources out: mean", "≥ .50", "unseen sources: mean", _least(0.5)),
    Target("the lowest of them", "≥ .47", "unseen sources: lowest", _least(0.47)),
    Target("route and text, 30 graded answers a route", "≥ .72", f"{_TEXT}, 30: APGR", _least(0.72)),
    Target("the same without a prior of texts", "≥ .72", f"{_BLANK}, 30: APGR", _least(0.72)),
    Target("route and text, all graded answers", "≥ .76", f"{_TEXT}, all: APGR", _least(0.76)),
    Target("the same without a prior of texts", "≥ .76", f"{_BLANK}, all: APGR", _least(0.76)),
    Target("cost at 95% of Opus' quality, route and text", "≤ .50", f"{_TEXT}, all: cost at 95%", _most(0.5)),
    Target("the same without a prior of texts", "≤ .50", f"{_BLANK}, all: cost at 95%", _most(0.5)),
    Target("agreement with BIRD's annotators, unseen prompts", "≥ .82", "own labels: unseen prompts", _least(0.82)),
    Target("the same, beginnings of words chosen within each fold", "≥ .82",
           "own labels: unseen prompts, beginnings chosen within each fold", _least(0.82)),
    Target("the mean of that over three foldings", "≥ .82", "own labels: foldings", _least(0.82)),
    Target("agreement with BIRD's annotators, unseen databases", "≥ .78", "own labels: unseen databases", _least(0.78)),
    Target("calibration (ECE) of p(simple), unseen prompts", "≤ .05", "unseen prompts: ECE", _most(0.05)),
    Target("µs of a decision of `LocalClassifier`, 500 mixed prompts: median", "≤ 120", "time: median", _most(120), 0),
    Target("the same, 95th percentile", "≤ 800", "time: p95", _most(800), 0),
    Target("ms for 1 MB of Chinese text", "≤ 5", "time: a megabyte, ms", _most(5), 1),
)  # fmt: skip


def targets(figures: Mapping[str, Interval]) -> str:
    """The table of what was aimed at, and what came of it."""
    lines = []
    for target in TARGETS:
        figure = figures.get(target.figure)
        if figure is None:
            lines.append([target.what, target.said, "not measured", ""])
            continue
        shown = f"{figure.value:.{target.digits}f}"
        if figure.low < figure.high:
            shown += f" [{figure.low:.{target.digits}f}, {figure.high:.{target.digits}f}]"
        lines.append([target.what, target.said, shown, "met" if target.met(figure) else "**missed**"])
    return table(["what", "target", "measured", ""], lines)
