"""Train the weights of `LocalClassifier`: `python -m scripts.train_classifier --data DIR`.

The same data gives the same bytes. Only sources whose licence allows it are read: Claude 3 tiers (ZeroEval, BFCL),
RouteLLM's pairs, ulab's open models, UncommonRoute's labels. Needs numpy and scikit-learn: the group `quality`.
"""

from __future__ import annotations

import argparse
import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import Ridge

from tierline.classify.weights import Head, Weights
from tierline.features import BUCKETS, NAMES, dense, hashed, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TARGET: Final = Path(__file__).parent.parent / "src" / "tierline" / "classify" / "local.weights"
SOURCES: Final = ("claude3_tiers", "routellm_pairs", "ulab_open9", "complexity_labels")


@dataclass(frozen=True, slots=True)
class Expert:
    """How the expert of one kind is trained, and where its scores lie on the common scale of needs."""

    penalty: float
    """Of the ridge regression. Chosen by cross-validation, kind by kind."""
    centre: float | None
    """The need of its average text; None for what was measured."""
    spread: float
    """What its scores, around their average, are multiplied with."""
    rule: Mapping[str, float] = field(default_factory=dict)
    """What is taken for granted: the need that a standard deviation of a number of `dense`, by name, adds."""


EXPERTS: Final = {
    "sums in words": Expert(20, 0.07, 0.5),
    "hard maths": Expert(4, 0.22, 0.6),
    "tools": Expert(40, None, 0.5, {"length": 0.04, "several_tools": 0.04}),
    "exam questions": Expert(12, 0.14, 0.3),
    "short tasks": Expert(10, 0.12, 0.6),
    "requests": Expert(3, 0.3, 0.5),
}
"""Centres and spreads put kinds beside each other as the Claude 3 tiers have them: the pairs of other sources lie
further apart, and what their authors call complex is an opinion. Ways to use tools are more than the few that were
measured, and what was learned of some of them ranks others worse than a coin; more to do and more tools to choose from
are harder in all of them, so half of that expert is a rule."""
GATE_PENALTY: Final = 1.0
SHARPNESS: Final = 8.0
FAMILIAR: Final = (0.3, 0.65)
"""Best gates from which on a text is like something known at all, and fully."""
DENSE_WEIGHT: Final = 0.3
"""How much the numbers of `dense`, made even, count beside words."""
STILL: Final = 1e-9
"""A number that deviates less does not change."""
RARE: Final = 2
"""A word or pair in fewer prompts says nothing."""
NEEDS: Final = {"simple": 0.0, "moderate": 0.5, "complex": 1.0}


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt, its kind, and how much a strong model is needed for it, on the scale of its `source`."""

    text: str
    tools: int
    kind: str
    source: str
    need: float
    loss: float | None = None
    """Whether the cheapest tier's answer was worse than the top tier's, where Claude's tiers were measured."""


def rows_of(data: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of one file."""
    with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def mean(values: Sequence[float | None]) -> float:
    """Of those that are there."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there)


def claude(row: dict[str, Any]) -> Example:
    """One prompt of the Claude 3 tiers. Later models of the same tiers make the one measurement less of a dice."""
    quality = row["quality"]
    weak, middle, strong = quality["haiku3"], quality.get("sonnet3"), quality["opus3"]
    later = quality.get("sonnet35")
    source = row["source"]
    loss = float(strong > weak)
    if source == "zeroeval-gsm":
        need = 1 - mean([weak, middle, strong, quality.get("haiku35"), later])
        return Example(row["prompt"], 0, "sums in words", source, need, loss)
    if source == "zeroeval-math-l5":
        need = mean([strong, quality.get("haiku35"), later]) - weak
        return Example(row["prompt"], 0, "hard maths", source, need, loss)
    others = [strong if other is None else other for other in (middle, later)]
    need = mean([strong, strong, *others]) - weak
    return Example(row["prompt"], row["tools"] or 0, "tools", source, need, loss)


def example_of(row: dict[str, Any]) -> Example | None:
    """What a row teaches; None where its licence does not allow it, or nothing is known."""
    source, quality = row["source"], row.get("quality") or {}
    if "haiku3" in quality:
        return claude(row)
    if source == "routellm-mmlu":
        return Example(row["prompt"], 0, "exam questions", source, quality["gpt4"] - quality["mixtral"])
    if source == "routellm-gsm8k":
        return Example(row["prompt"], 0, "sums in words", source, quality["gpt4"] - quality["mixtral"])
    if source == "ulab-dcrouter":
        need = quality["llama-3.1-nemotron-51b-instruct"] - quality["mistral-7b-instruct-v0.3"]
        return Example(row["prompt"], 0, "short tasks", source, need)
    if source == "uncommonroute-bench":
        return Example(row["prompt"], 0, "requests", source, NEEDS[row["label"]])
    return None


def examples_of(data: Path) -> list[Example]:
    """All that may be trained on, in the order of the files."""
    found = (example_of(row) for name in SOURCES for row in rows_of(data, name))
    return [example for example in found if example is not None]


class Matrix:
    """Texts as rows of numbers: words over the square root of how many, then the numbers of `dense`, made even."""

    def __init__(self, examples: Sequence[Example]) -> None:
        readings = [read(example.text, example.tools) for example in examples]
        numbers = np.array([dense(reading) for reading in readings])
        self.lowest, self.highest = np.floor(numbers.min(0) * 1e4) / 1e4, np.ceil(numbers.max(0) * 1e4) / 1e4
        self.centre, self.spread = numbers.mean(0), numbers.std(0) + 1e-6
        buckets = [sorted(hashed(reading)) for reading in readings]
        at = np.concatenate([[0], np.cumsum([len(each) for each in buckets])])
        values = np.concatenate([np.full(len(each), len(each) ** -0.5) for each in buckets if each])
        flat = np.concatenate([np.array(each, dtype=np.int64) for each in buckets])
        words = sp.csr_matrix((values, flat, at), (len(examples), BUCKETS))
        self.kept = np.flatnonzero(np.bincount(flat, minlength=BUCKETS) >= RARE)
        even = (numbers - self.centre) / self.spread * DENSE_WEIGHT
        self.rows = sp.hstack([words[:, self.kept], sp.csr_matrix(even)]).tocsr()

    def head(self, weights: np.ndarray, bias: float) -> Head:
        """A linear function of these rows, as one of what was read of a text."""
        words, numbers = weights[: len(self.kept)], weights[len(self.kept) :] * DENSE_WEIGHT / self.spread
        buckets = dict(zip(self.kept.tolist(), words.tolist(), strict=True))
        return Head.of(buckets, numbers.tolist(), float(bias - numbers @ self.centre))


def ridge(penalty: float) -> Ridge:
    """Least squares with a penalty on large weights, by a method that gives the same every time."""
    return Ridge(alpha=penalty, solver="sparse_cg", tol=1e-5)


def train(examples: Sequence[Example]) -> Weights:
    """The weights of a gate and its experts."""
    matrix = Matrix(examples)
    kinds = np.array([example.kind for example in examples])
    present = [kind for kind in EXPERTS if (kinds == kind).any()]
    heads: dict[str, Head] = {}
    gate = ridge(GATE_PENALTY)
    sizes = {kind: (kinds == kind).sum() for kind in present}
    # Half way between each text and each kind counting alike.
    gate.fit(
        matrix.rows,
        np.array([[float(kind == other) for other in present] for kind in kinds]),
        sample_weight=np.array([sizes[kind] ** -0.5 for kind in kinds]) * len(kinds) ** 0.5 / len(present) ** 0.5,
    )
    for at, kind in enumerate(present):
        heads[f"gate {kind}"] = matrix.head(gate.coef_[at], gate.intercept_[at])
    for kind in present:
        heads[f"need {kind}"] = expert(matrix, examples, kind)
    prior = float(np.mean([EXPERTS[kind].centre or 0.1 for kind in present]))
    about = {
        "kinds": present,
        "sharpness": SHARPNESS,
        "familiar": FAMILIAR,
        "prior": prior,
        "lowest": matrix.lowest.tolist(),
        "highest": matrix.highest.tolist(),
        "loss": [0.03, 1.0],
        "top": 0.45,
    }
    return Weights("experts", heads, about)


def expert(matrix: Matrix, examples: Sequence[Example], kind: str) -> Head:
    """The head that says how much need there is for the strong model, among texts of one kind."""
    at = [place for place, example in enumerate(examples) if example.kind == kind]
    sources = [examples[place].source for place in at]
    needs = np.array([examples[place].need for place in at], dtype=float)
    centre = needs.mean()
    # Pairs of models differ by how far they lie apart, which says nothing of a text.
    for source in set(sources):
        of_it = np.array([each == source for each in sources])
        if kind != "tools":
            needs[of_it] -= needs[of_it].mean()
        else:
            needs[of_it] -= centre
    how = EXPERTS[kind]
    weight = np.array([1.5 if source == "zeroeval-gsm" else 1.0 for source in sources])
    model = ridge(how.penalty).fit(matrix.rows[at], needs, sample_weight=weight)
    weights = model.coef_ * how.spread
    bias = (centre if how.centre is None else how.centre) + model.intercept_ * how.spread
    for name, slope in how.rule.items():
        column = len(matrix.kept) + NAMES.index(name)
        values = matrix.rows[at, column].toarray()
        # What never changes among these texts says nothing, and has a deviation of a rounding error, not of 0.
        if values.std() > STILL:
            weights[column] += slope / values.std()
            bias -= slope * values.mean() / values.std()
    return matrix.head(weights, bias)


def main() -> None:
    """Train on all of it, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the directory of the .jsonl.gz files")
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args()
    weights = train(examples_of(given.data))
    given.out.write_bytes(weights.pack())
    print(f"{given.out}: {given.out.stat().st_size} bytes, version {weights.version}")


if __name__ == "__main__":
    main()
