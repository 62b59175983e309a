"""Weights of an app's own for `LocalClassifier`, fitted to texts with labels. Pure Python; seconds for a thousand."""

from __future__ import annotations

from collections import Counter
from math import exp, sqrt
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.classify.weights import Head, Weights
from tierline.errors import ConfigurationError
from tierline.features import WIDTH, dense, hashed, read
from tierline.values import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tierline.values import Label

FEWEST: Final = 20
"""Examples below which nothing is learned."""
_EPOCHS: Final = 15
_VISITS: Final = 12_000
"""Of examples, at least, in all epochs together: a small file is gone through more often."""
_STEP: Final = 0.1
_WORD_STEP: Final = 3.0
"""A word is there in few texts and is weighed down by all the others: it takes larger steps."""
_WORD_PENALTY: Final = 5e-4
_PENALTY: Final = 5e-3
"""Of the squared weights of words, and of numbers, over the mean loss of an example."""
_RARE: Final = 2
"""A word or pair that fewer examples have is not learned."""
_EVEN: Final = 4.0
"""Standard deviations past which a number of `dense` counts no further."""
_STILL: Final = 1e-6
"""Standard deviation below which a number is always the same."""


class Example(NamedTuple):
    """A text and the label that is right for it."""

    text: str
    label: Label
    tools: int = 0


class _Row(NamedTuple):
    words: list[int]
    share: float
    """What each word weighs: 1 over the root of how many."""
    numbers: list[float]
    label: int


def fit(examples: Iterable[Example], *, seed: int = 0) -> Weights:
    """Weights for `LocalClassifier(weights)`: multinomial logistic regression, by AdaGrad over shuffled examples.

    The same examples and `seed` give the same weights. Raises `ConfigurationError` for fewer than FEWEST examples, for
    a label that is none, and where all have the same one.
    """
    given = list(examples)
    counts = Counter(example.label for example in given)
    if len(given) < FEWEST:
        raise ConfigurationError(f"{len(given)} labelled texts are too few to learn from; give at least {FEWEST}")
    if unknown := set(counts) - set(LABELS):
        raise ConfigurationError(f"{min(map(repr, unknown))} is no label; use {', '.join(LABELS)}")
    if len(counts) == 1:
        raise ConfigurationError(f"all texts are labelled {next(iter(counts))!r}: there is nothing to tell apart")
    readings = [read(example.text, example.tools) for example in given]
    numbers = [dense(reading) for reading in readings]
    buckets = [hashed(reading) for reading in readings]
    centre, spread = _even(numbers)
    seen = Counter(bucket for each in buckets for bucket in each)
    known = {bucket for bucket, times in seen.items() if times >= _RARE}
    rows = [
        _Row(
            sorted(each & known),
            1 / sqrt(len(each) or 1),
            [min(max((n - c) / s, -_EVEN), _EVEN) for n, c, s in zip(of, centre, spread, strict=True)],
            LABELS.index(example.label),
        )
        for each, of, example in zip(buckets, numbers, given, strict=True)
    ]
    heads = {
        f"label {label}": _head(weights, centre, spread)
        for label, weights in zip(LABELS, _descend(rows, seed), strict=True)
    }
    heads["known"] = Head.of(dict.fromkeys(sorted(known), 1.0), [0.0] * WIDTH, 0.0)
    prior = [(counts[label] + 1) / (len(given) + len(LABELS)) for label in LABELS]
    return Weights("labels", heads, {"prior": prior, "rows": len(given)})


class _Line:
    """The weights of one label while they are learned, each with the sum of its squared slopes.

    `penalties` are those of each word at every text that has it: the rarer, the larger.
    """

    def __init__(self, penalties: Mapping[int, float]) -> None:
        self.penalties = penalties
        self.words: dict[int, float] = {}
        self.word_squares: dict[int, float] = {}
        self.numbers = [0.0] * (WIDTH + 1)
        """Of `dense`, and at the end the constant."""
        self.number_squares = [1e-2] * (WIDTH + 1)

    def score(self, row: _Row) -> float:
        words, numbers = self.words, self.numbers
        found = sum([words.get(word, 0.0) for word in row.words]) * row.share
        return found + sum([a * b for a, b in zip(numbers, row.numbers, strict=False)]) + numbers[-1]

    def learn(self, row: _Row, error: float, step: float) -> None:
        """Move against the slope: `error` is what was said less what is right."""
        words, squares, penalties = self.words, self.word_squares, self.penalties
        for word in row.words:
            weight = words.get(word, 0.0)
            slope = error * row.share + penalties[word] * weight
            total = squares.get(word, 1e-2) + slope * slope
            squares[word] = total
            words[word] = weight - _WORD_STEP * step * slope / sqrt(total)
        numbers, sums = self.numbers, self.number_squares
        for at, value in enumerate((*row.numbers, 1.0)):
            slope = error * value + _PENALTY * numbers[at]
            sums[at] += slope * slope
            numbers[at] -= step * slope / sqrt(sums[at])


def _descend(rows: list[_Row], seed: int) -> list[_Line]:
    found = Counter(word for row in rows for word in row.words)
    penalties = {word: _WORD_PENALTY * len(rows) / times for word, times in found.items()}
    lines = [_Line(penalties) for _ in LABELS]
    order = list(range(len(rows)))
    epochs = max(_EPOCHS, _VISITS // len(rows))
    shuffle = Random(seed).shuffle  # noqa: S311 - an order, not a secret
    for epoch in range(epochs):
        shuffle(order)
        step = _STEP / (1 + 4 * epoch / epochs)
        for at in order:
            row = rows[at]
            scores = [line.score(row) for line in lines]
            top = max(scores)
            shares = [exp(score - top) for score in scores]
            total = sum(shares)
            for number, line in enumerate(lines):
                line.learn(row, shares[number] / total - (number == row.label), step)
    return lines


def _even(numbers: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """The mean and the standard deviation of each number; 1 for one that never changes, which then says nothing."""
    count = len(numbers)
    centre = [sum(column) / count for column in zip(*numbers, strict=True)]
    spread = [
        sqrt(sum((value - middle) ** 2 for value in column) / count)
        for column, middle in zip(zip(*numbers, strict=True), centre, strict=True)
    ]
    # What never changes has a deviation of a rounding error, not of 0.
    return centre, [size if size > _STILL else 1.0 for size in spread]


def _head(line: _Line, centre: Sequence[float], spread: Sequence[float]) -> Head:
    """The line as a function of what is read, whose numbers are not made even."""
    numbers = [weight / size for weight, size in zip(line.numbers, spread, strict=False)]
    return Head.of(line.words, numbers, line.numbers[-1] - sum(map(float.__mul__, numbers, centre)))
