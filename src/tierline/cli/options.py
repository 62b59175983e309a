"""What is written on the command line, as values: ladders, classifiers, progress bars."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tierline.classify import (
    CascadeClassifier,
    KeywordClassifier,
    LocalClassifier,
    SignalClassifier,
    default_classifier,
)
from tierline.classify.base import check_classifier
from tierline.cli.loading import attribute_of
from tierline.errors import ConfigurationError
from tierline.evaluation.measures import Costs
from tierline.evaluation.rows import read, size_of
from tierline.ladder import DEFAULT_LADDER, Ladder, Tier
from tierline.prices import PriceBook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tierline.classify import Classifier
    from tierline.evaluation.rows import Row

T = TypeVar("T")

_CLASSIFIERS: Final[dict[str, Callable[[], Classifier]]] = {
    "default": default_classifier,
    "local": LocalClassifier,
    "keyword": KeywordClassifier,
    "signal": SignalClassifier,
    "rules": lambda: CascadeClassifier([KeywordClassifier(), SignalClassifier()]),
}

File = Annotated[Path, typer.Argument(help="Rows: JSON lines, a CSV, or a decision log.")]
LadderText = Annotated[str, typer.Option("--ladder", help="Tiers, cheapest first: haiku=claude-haiku-5-5,opus=…")]
ClassifierName = Annotated[
    str, typer.Option("--classifier", help=f"{', '.join(_CLASSIFIERS)}, a file of weights, or module:name.")
]
OutTokens = Annotated[int, typer.Option(min=1, help="Tokens of an answer where a row does not say.")]


def ladder_of(text: str) -> Ladder:
    """A ladder as it is written: `name=model,name=model`. Empty: the default one. ConfigurationError for no ladder."""
    if not text:
        return DEFAULT_LADDER
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and model.strip() for name, _, model in pairs):
        raise ConfigurationError(f"{text!r:.80} is no ladder: write haiku=claude-haiku-5-5,opus=claude-opus-5-5")
    return Ladder(*(Tier(name.strip(), model.strip()) for name, _, model in pairs))


def costs_of(text: str, out_tokens: int) -> Costs:
    """What requests cost on a ladder as it is written."""
    return Costs(ladder_of(text), PriceBook(), out_tokens)


def classifier_of(name: str) -> Classifier:
    """A classifier by its name, a file of weights, or `module:name`. ConfigurationError where there is none."""
    if name in _CLASSIFIERS:
        return _CLASSIFIERS[name]()
    if Path(name).is_file():
        return LocalClassifier(name)
    if ":" not in name:
        raise ConfigurationError(
            f"there is no classifier {name!r}: write {', '.join(_CLASSIFIERS)}, a file, or module:name"
        )
    return check_classifier(name, attribute_of("--classifier", name))


class Bars:
    """Progress bars on stderr, where that is a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def rows(self, path: Path) -> Iterator[Row]:
        """The rows of a file, with a bar of its bytes."""
        task = self._progress.add_task("reading", total=size_of(path) or None)
        yield from read(path, lambda count: self._progress.advance(task, count))
        self._progress.update(task, visible=False)

    def watch(self, draws: Iterable[T], what: str = "intervals") -> Iterator[T]:
        """What goes by, with a bar."""
        yield from self._progress.track(draws, description=what)


@contextmanager
def bars() -> Iterator[Bars]:
    """Progress bars for a block; gone when it ends."""
    console = Console(stderr=True)
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bars(progress)
