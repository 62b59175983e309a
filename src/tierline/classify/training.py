"""Weights of an app's own for `LocalClassifier`, fitted to texts with labels. Pure Python; seconds for a thousand.

Labels have an order, and so one line is learned, with two cuts in it (proportional odds, McCullagh 1980): a text lies
somewhere on it, below both cuts where it is simple, above both where it is complex.

    P(moderate or complex) = sigmoid(line - cuts[0])        P(complex) = sigmoid(line - cuts[1])

The line is the sum of what the words of a text weigh, not their mean, and of the numbers of `dense`.
"""

from __future__ import annotations

from collections import Counter
from math import exp, inf, log, log1p, sqrt
from operator import add, itemgetter, mul
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from tierline.classify.descent import least
from tierline.classify.local import ordered
from tierline.classify.weights import Head, Weights
from tierline.errors import ConfigurationError
from tierline.features import WIDTH, begun, dense, hashed, read
from tierline.values import LABELS
from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tierline.values import Label

FEWEST: Final = 20
"""Examples below which nothing is learned."""
BEGINNINGS: Final = (4, 6)
"""Bytes of the beginnings of words that are learned: in a thousand texts, most words stand once or never."""
_WORD_PENALTIES: Final = (100.0, 30.0, 10.0, 3.0, 1.0)
"""Of the squared weights of words: the first under which examples that were not learned from are likelier than under
the next."""
_PENALTY: Final = 3.0
"""The same of numbers; which one it is hardly matters."""
_CUT_PENALTY: Final = 0.01
"""Of the squared cuts: where nobody gave a label, its cut would be far away, and not nowhere."""
_PARTS: Final = 4
"""Into so many the examples are divided to choose the penalty. Equal texts are in the same."""
_MOST: Final = 2_000
"""Examples that the penalty is chosen on, at most."""
_RARE: Final = 2
"""A word, pair or beginning that fewer examples have is not learned."""
_EVEN: Final = 4.0
"""Standard deviations past which a number of `dense` counts no further."""
_STILL: Final = 1e-6
"""Standard deviation below which a number is always the same."""
_UNLIKELY: Final = 1e-13
"""A label that is said to be less likely than this counts as no worse."""


@veiled("text")
class Example(NamedTuple):
    """A text and the label that is right for it."""

    text: str
    label: Label
    tools: int = 0


@veiled("text", "words")
class _Row(NamedTuple):
    text: str
    words: list[int]
    """Buckets."""
    numbers: list[float]
    """Of `dense`, made even."""
    label: int


def fit(examples: Iterable[Example], *, beginnings: Sequence[int] = BEGINNINGS) -> Weights:
    """Weights for `LocalClassifier(weights)`. The same examples give the same weights.

    `beginnings` are the sizes, in bytes, of the beginnings of words that are learned beside words and pairs of words.

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
    buckets = [hashed(reading) | begun(reading, beginnings) for reading in readings]
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
    penalty, likelihood = _best(rows)
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
        "beginnings": list(beginnings),
        "penalty": penalty,
        "likelihood": likelihood,
        "rows": len(given),
    }
    return Weights("labels", heads, about)


class Words:
    """Which words stand in which of some texts.

    Words that stand in just the same texts come to weigh the same: they are one, that counts as often as there are of
    them. Of the pairs of templates, and of the beginnings of words, that is most.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        found: dict[int, list[int]] = {}
        for at, words in enumerate(rows):
            for word in words:
                found.setdefault(word, []).append(at)
        alike: dict[tuple[int, ...], list[int]] = {}
        for word, those in found.items():
            alike.setdefault(tuple(those), []).append(word)
        of_row: list[list[int]] = [[] for _ in rows]
        for place, together in enumerate(alike):
            for at in together:
                of_row[at].append(place)
        self._alike = list(alike.values())
        self._counts = [float(len(words)) for words in self._alike]
        self._rows_of = list(map(_picker, alike))
        self._words_of = list(map(_picker, of_row))

    def shared(self, pulls: Sequence[float]) -> list[float]:
        """How far each row is moved where every row moves each of its words by its pull."""
        moved = list(map(mul, self._counts, [sum(rows(pulls)) for rows in self._rows_of]))
        return [sum(words(moved)) for words in self._words_of]

    def weights(self, pulls: Sequence[float]) -> dict[int, float]:
        """What each word weighs then."""
        found = zip(self._alike, [sum(rows(pulls)) for rows in self._rows_of], strict=True)
        return {word: weight for words, weight in found for word in words}


def _picker(places: Sequence[int]) -> Callable[[Sequence[float]], Iterable[float]]:
    """Takes what stands at some places of a list."""
    if len(places) > 1:
        return itemgetter(*places)
    return itemgetter(slice(places[0], places[0] + 1) if places else slice(0))


class _Line:
    """What is learned of rows: the weight of each word and number, and the cuts.

    Words are many more than rows, and what rows teach of them is a sum: of each row a number, its pull, for all of its
    words. So the weights of words are kept as the pulls of the rows and, beside them, what they come to in each row's
    place; the product of two such vectors is that of the weights they stand for (the representer theorem).

    `near` is a line of the same rows under another penalty: from there the way is short.
    """

    kept: Words
    found: list[float]

    def __init__(self, rows: Sequence[_Row], penalty: float, near: _Line | None = None) -> None:
        many = len(rows)
        self.kept = Words([row.words for row in rows]) if near is None else near.kept
        shared = self.kept.shared
        numbers = [row.numbers for row in rows]
        columns = list(zip(*numbers, strict=True))
        right = [[float(row.label > cut) for row in rows] for cut in range(len(LABELS) - 1)]
        others = [*[_PENALTY] * WIDTH, *[_CUT_PENALTY] * len(right)]
        # A vector: the pulls of the rows, the places that they lead to, the weights of numbers, and the cuts.
        half, end = 2 * many, 2 * many + WIDTH

        def product(one: Sequence[float], other: Sequence[float]) -> float:
            of_words: float = sum(map(mul, one[:many], other[many:half]))
            of_others: float = sum(map(mul, one[half:], other[half:]))
            return of_words + of_others

        def slopes(found: list[float]) -> tuple[float, list[float]]:
            steep, penalties = found[half:end], list(map(mul, others, found[half:]))
            places = [place + sum(map(mul, steep, by)) for place, by in zip(found[many:half], numbers, strict=True)]
            errors, cuts, loss = [0.0] * many, [], 0.0
            for cut, good in zip(found[end:], right, strict=True):
                odds = [place - cut for place in places]
                # Of both sigmoid(odds) and log(1 + exp(odds)), for odds of any size.
                small = [exp(-abs(each)) for each in odds]
                loss += sum(map(log1p, small)) + sum(each for each in odds if each > 0) - sum(map(mul, odds, good))
                wrong = [(1 if o > 0 else s) / (1 + s) - known for o, s, known in zip(odds, small, good, strict=True)]
                cuts.append(-sum(wrong))
                errors = list(map(add, errors, wrong))
            slope = errors + shared(errors) + [sum(map(mul, errors, column)) for column in columns] + cuts
            held = [penalty * each for each in found[:half]] + penalties
            loss += penalty * sum(map(mul, found[:many], found[many:half])) / 2
            return loss + sum(map(mul, penalties, found[half:])) / 2, list(map(add, slope, held))

        shares = [(sum(good) + 1) / (many + 2) for good in right]
        start = [0.0] * end + [log((1 - share) / share) for share in shares]
        self.found = least(slopes, start if near is None else near.found, product)
        self.words = self.kept.weights(self.found[:many])
        self.numbers, self.cuts = self.found[half:end], self.found[end:]

    def likelihood(self, row: _Row) -> float:
        """The logarithm of how likely the label of a row is said to be."""
        place = sum(self.words.get(word, 0.0) for word in row.words) + sum(map(mul, self.numbers, row.numbers))
        return log(max(ordered(place, self.cuts)[row.label], _UNLIKELY))


def _best(rows: Sequence[_Row]) -> tuple[float, float]:
    """The penalty of words under which rows that a line has not seen are the likeliest, and how likely they are.

    That is the mean of the logarithms, 0 where all are of one text and none can be held out.
    """
    step = -(-len(rows) // _MOST)
    few = rows[::step]
    parts = [crc32(row.text.encode("utf-8", "surrogatepass")) % _PARTS for row in few]
    held = sorted(set(parts))
    if len(held) == 1:
        return _WORD_PENALTIES[1], 0.0
    seen = [[row for row, part in zip(few, parts, strict=True) if part != out] for out in held]
    unseen = [[row for row, part in zip(few, parts, strict=True) if part == out] for out in held]
    lines: list[_Line | None] = [None] * len(held)
    best, likeliest = 0.0, -inf
    for penalty in _WORD_PENALTIES:
        likely = 0.0
        for at, near in enumerate(lines):
            line = lines[at] = _Line(seen[at], penalty, near)
            likely += sum(map(line.likelihood, unseen[at]))
        if likely < likeliest:
            break
        best, likeliest = penalty, likely
    return best, likeliest / len(few)


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
