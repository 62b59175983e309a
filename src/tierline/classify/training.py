"""Weights of an app's own for `LocalClassifier`, fitted to texts with labels. Pure Python; seconds for a thousand.

Labels have an order, and so one line is learned, with two cuts in it (proportional odds, McCullagh 1980): a text lies
somewhere on it, below both cuts where it is simple, above both where it is complex.

    P(moderate or complex) = sigmoid(line - cuts[0])        P(complex) = sigmoid(line - cuts[1])

The line is the sum of what the words of a text weigh, not their mean, and of the numbers of `dense`.
"""

from __future__ import annotations

from collections import Counter
from math import exp, log, log1p, sqrt
from operator import mul
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from tierline.classify.descent import least
from tierline.classify.local import ordered, sigmoid
from tierline.classify.weights import Head, Weights
from tierline.errors import ConfigurationError
from tierline.features import WIDTH, dense, hashed, read
from tierline.values import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tierline.values import Label

FEWEST: Final = 20
"""Examples below which nothing is learned."""
_WORD_PENALTIES: Final = (100.0, 30.0, 10.0)
"""Of the squared weights of words: the one under which examples are the likeliest that were not learned from."""
_PENALTY: Final = 3.0
"""The same of numbers; which one it is hardly matters."""
_CUT_PENALTY: Final = 0.01
"""Of the squared cuts: where nobody gave a label, its cut would be far away, and not nowhere."""
_PARTS: Final = 4
"""Into so many the examples are divided to choose the penalty. Equal texts are in the same."""
_MOST: Final = 2_000
"""Examples that the penalty is chosen on, at most."""
_RARE: Final = 2
"""A word or pair that fewer examples have is not learned."""
_EVEN: Final = 4.0
"""Standard deviations past which a number of `dense` counts no further."""
_STILL: Final = 1e-6
"""Standard deviation below which a number is always the same."""
_UNLIKELY: Final = 1e-13
"""A label that is said to be less likely than this counts as no worse."""


class Example(NamedTuple):
    """A text and the label that is right for it."""

    text: str
    label: Label
    tools: int = 0


class _Row(NamedTuple):
    text: str
    words: list[int]
    """Buckets."""
    numbers: list[float]
    """Of `dense`, made even."""
    label: int


def fit(examples: Iterable[Example]) -> Weights:
    """Weights for `LocalClassifier(weights)`. The same examples give the same weights.

    Raises `ConfigurationError` for fewer than FEWEST examples, for a label that is none, and where all have the same.
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
    seen = Counter(bucket for each in buckets for bucket in each)
    known = {bucket for bucket, times in seen.items() if times >= _RARE}
    centre, spread = _even(numbers)
    rows = [
        _Row(
            example.text,
            sorted(each & known),
            [min(max((n - c) / s, -_EVEN), _EVEN) for n, c, s in zip(of, centre, spread, strict=True)],
            LABELS.index(example.label),
        )
        for each, of, example in zip(buckets, numbers, given, strict=True)
    ]
    penalty = _best(rows)
    line = _Line(rows, penalty)
    steep = [weight / size for weight, size in zip(line.numbers, spread, strict=True)]
    nothing = [0.0] * WIDTH
    heads = {
        "words": Head.of(line.words, nothing, 0.0),
        "numbers": Head.of({}, steep, -sum(map(mul, steep, centre))),
        "known": Head.of(dict.fromkeys(sorted(known), 1.0), nothing, 0.0),
    }
    about = {
        "prior": [(counts[label] + 1) / (len(given) + len(LABELS)) for label in LABELS],
        "cuts": line.cuts,
        "lowest": [middle - _EVEN * size for middle, size in zip(centre, spread, strict=True)],
        "highest": [middle + _EVEN * size for middle, size in zip(centre, spread, strict=True)],
        "penalty": penalty,
        "rows": len(given),
    }
    return Weights("labels", heads, about)


class _Line:
    """What is learned of rows: the weight of each word and number, and the cuts.

    `near` is a line of the same rows under another penalty: from there the way is short.
    """

    found: list[float]

    def __init__(self, rows: Sequence[_Row], penalty: float, near: _Line | None = None) -> None:
        buckets = sorted({word for row in rows for word in row.words})
        place = {bucket: at for at, bucket in enumerate(buckets)}
        words = [[place[word] for word in row.words] for row in rows]
        texts: list[list[int]] = [[] for _ in buckets]
        for at, row in enumerate(words):
            for word in row:
                texts[word].append(at)
        numbers = [row.numbers for row in rows]
        columns = list(zip(*numbers, strict=True))
        right = [[float(row.label > cut) for row in rows] for cut in range(len(LABELS) - 1)]
        many, end = len(buckets), len(buckets) + WIDTH
        penalties = [*[penalty] * many, *[_PENALTY] * WIDTH, *[_CUT_PENALTY] * len(right)]

        def slopes(found: list[float]) -> tuple[float, list[float]]:
            weigh, steep = found[:many].__getitem__, found[many:end]
            places = [sum(map(weigh, of)) + sum(map(mul, steep, by)) for of, by in zip(words, numbers, strict=True)]
            errors, cuts, loss = [0.0] * len(rows), [], 0.0
            for cut, good in zip(found[end:], right, strict=True):
                odds = [place - cut for place in places]
                wrong = [sigmoid(each) - known for each, known in zip(odds, good, strict=True)]
                loss += sum(map(_rise, odds)) - sum(map(mul, odds, good))
                cuts.append(-sum(wrong))
                errors = [one + other for one, other in zip(errors, wrong, strict=True)]
            error = errors.__getitem__
            slope = [sum(map(error, of)) for of in texts]
            slope += [sum(map(mul, errors, column)) for column in columns]
            slope += cuts
            held = list(map(mul, penalties, found))
            loss += sum(map(mul, held, found)) / 2
            return loss, [one + other for one, other in zip(slope, held, strict=True)]

        shares = [(sum(good) + 1) / (len(rows) + 2) for good in right]
        start = [0.0] * end + [log((1 - share) / share) for share in shares]
        found = least(slopes, start if near is None else near.found)
        self.found = found
        self.words = dict(zip(buckets, found, strict=False))
        self.numbers, self.cuts = found[many:end], found[end:]

    def likelihood(self, row: _Row) -> float:
        """The logarithm of how likely the label of a row is said to be."""
        place = sum(self.words.get(word, 0.0) for word in row.words) + sum(map(mul, self.numbers, row.numbers))
        return log(max(ordered(place, self.cuts)[row.label], _UNLIKELY))


def _best(rows: Sequence[_Row]) -> float:
    """The penalty of words under which rows that a line has not seen are the likeliest."""
    step = -(-len(rows) // _MOST)
    few = rows[::step]
    parts = [crc32(row.text.encode("utf-8", "surrogatepass")) % _PARTS for row in few]
    found = dict.fromkeys(_WORD_PENALTIES, 0.0)
    for held in sorted(set(parts)):
        seen = [row for row, part in zip(few, parts, strict=True) if part != held]
        if not seen:
            return _WORD_PENALTIES[1]  # all are of the same text
        line = None
        for penalty in found:
            line = _Line(seen, penalty, line)
            found[penalty] += sum(line.likelihood(row) for row, part in zip(few, parts, strict=True) if part == held)
    return max(found, key=found.__getitem__)


def _rise(odds: float) -> float:
    """log(1 + exp(odds)), for odds of any size."""
    return odds + log1p(exp(-odds)) if odds > 0 else log1p(exp(odds))


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
