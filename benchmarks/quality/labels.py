"""What weights of an app's own make of texts that they have not seen: `python -m benchmarks.quality.labels --data DIR`.

The labels are people's, of how difficult questions to a database are (BIRD), and one author's, of his own templates
(UncommonRoute). Beside them stand usual learners on the same folds, to tell what bounds the figure: the weights, or the
labels. The same data gives the same figures. Needs the group `quality`, and takes some minutes of CPU time.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_union
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.quality.data import rows
from benchmarks.quality.figures import exactly, keep, options
from benchmarks.quality.text import FOLDS, fold_of
from benchmarks.quality.writing import table
from tierline.classify import LocalClassifier
from tierline.classify.training import BEGINNINGS, Example, fit
from tierline.evaluation import wilson
from tierline.features import dense, read

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from benchmarks.quality.figures import Figures
    from tierline.classify.weights import Weights

FOLDINGS: Final = 3
"""The first is the one that all else is measured on."""
WAYS: Final[tuple[tuple[int, ...], ...]] = ((), BEGINNINGS, (3, 4, 5, 6))
"""Beginnings of words among which one is chosen without the held-out fold."""
_END: Final = 60
"""Characters that questions end with alike to be in one fold: all begin alike."""
_TEMPLATE_FOLDS: Final = 3
_DIMENSIONS: Final = 60
_TREES: Final = 400
_BESIDE_WORDS: Final = 0.15
"""How much numbers count beside words, for support vectors."""
_ALIKE: Final = 0.7


class Judged(NamedTuple):
    """How many texts of one fold got the right label."""

    usual: int
    """By the beginnings that `fit` reads."""
    chosen: int
    """By those that make labels likeliest within the texts that were learned from."""


def examples_of(labelled: Sequence[dict[str, Any]]) -> list[Example]:
    """Rows, as they are learned from."""
    return [Example(row["prompt"], row["label"]) for row in labelled]


def right(weights: Weights, asked: Sequence[Example]) -> int:
    """How many texts get their label."""
    judge = LocalClassifier(weights)
    found = [judge.probabilities(example.text) for example in asked]
    return sum(max(each, key=each.__getitem__) == example.label for each, example in zip(found, asked, strict=True))


def usually(split: tuple[list[Example], list[Example]]) -> int:
    """Of texts that were held out, how many get their label by weights that were fitted to the others."""
    known, asked = split
    return right(fit(known), asked)


def judged(split: tuple[list[Example], list[Example]]) -> Judged:
    """The same, also by the beginnings that are chosen among WAYS."""
    known, asked = split
    weights = {way: fit(known, beginnings=way) for way in WAYS}
    best = max(WAYS, key=lambda way: weights[way].about["likelihood"])
    return Judged(right(weights[BEGINNINGS], asked), right(weights[best], asked))


def beside(kind: str, split: tuple[list[Example], list[Example]]) -> int:
    """The same by a usual learner, with usual settings.

    It is given how often words, pairs of words, and parts of words of two to five letters are, and the same numbers.
    """
    known, asked = split
    terms = make_union(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True),
    )
    even = StandardScaler()
    seen = terms.fit_transform([example.text for example in known])
    numbers = even.fit_transform([dense(read(example.text)) for example in known])
    unseen = terms.transform([example.text for example in asked])
    others = even.transform([dense(read(example.text)) for example in asked])
    if kind == "vectors":
        learner = SVC(C=3, gamma=0.5)
        seen, unseen = (
            sp.hstack([words, np.clip(by, -4, 4) * _BESIDE_WORDS]).tocsr()
            for words, by in ((seen, numbers), (unseen, others))
        )
    else:
        learner = RandomForestClassifier(_TREES, min_samples_leaf=2, random_state=0)
        fewer = TruncatedSVD(_DIMENSIONS, random_state=0)
        seen, unseen = fewer.fit_transform(seen), fewer.transform(unseen)
        seen, unseen = np.hstack([seen, numbers]), np.hstack([unseen, others])
    learner.fit(seen, [example.label for example in known])
    return int(np.sum(learner.predict(unseen) == np.array([example.label for example in asked])))


def alike(examples: Sequence[Example]) -> tuple[int, int]:
    """Pairs of texts that have at least _ALIKE of their words in common, and how many have the same label."""
    words = [(set(read(example.text).words), example.label) for example in examples]
    found = [
        label == other
        for (one, label), (two, other) in combinations(words, 2)
        if len(one & two) >= _ALIKE * len(one | two)
    ]
    return len(found), sum(found)


def splits(
    labelled: Sequence[dict[str, Any]], part: Callable[[dict[str, Any]], Hashable], every: int = 1
) -> list[tuple[list[Example], list[Example]]]:
    """For each part, the others' texts (of those, one in `every`) and its own."""
    parts = [part(row) for row in labelled]
    return [
        (
            examples_of([row for row, other in zip(labelled, parts, strict=True) if other != held])[::every],
            examples_of([row for row, other in zip(labelled, parts, strict=True) if other == held]),
        )
        for held in sorted(set(parts), key=str)
    ]


def folded(row: dict[str, Any], folding: int = 0) -> int:
    """The fold of a question: those that end alike are in the same."""
    end = row["prompt"][-_END:]
    return fold_of(end) if folding == 0 else crc32(f"{folding} {' '.join(end.split()).lower()}".encode()) % FOLDS


def templated(row: dict[str, Any]) -> int:
    """The fold of a template: equal texts are in the same."""
    return crc32(row["prompt"].encode("utf-8", "surrogatepass")) % _TEMPLATE_FOLDS


def main() -> None:
    """Print the section as Markdown."""
    given = options(__doc__).parse_args()
    labelled = list(rows(given.data, "complexity_labels"))
    bird = [row for row in labelled if row["source"] == "bird-dev"]
    templates = [row for row in labelled if row["source"] == "uncommonroute-bench"]
    with ProcessPoolExecutor() as pool:
        foldings = [pool.map(judged, splits(bird, partial(folded, folding=folding))) for folding in range(FOLDINGS)]
        databases = pool.map(usually, splits(bird, lambda row: row["group"]))
        half = pool.map(usually, splits(bird, folded, every=2))
        vectors = pool.map(partial(beside, "vectors"), splits(bird, folded))
        trees = pool.map(partial(beside, "trees"), splits(bird, folded))
        ours = pool.map(usually, splits(templates, templated))
        first, *others = [[sum(counts) for counts in zip(*folding, strict=True)] for folding in foldings]
        found = {
            "unseen prompts": wilson(first[0], len(bird)),
            "unseen prompts, beginnings chosen within each fold": wilson(first[1], len(bird)),
            "unseen prompts, half of the examples": wilson(sum(half), len(bird)),
            "unseen databases": wilson(sum(databases), len(bird)),
        }
        usual = Counter(row["label"] for row in bird).most_common(1)[0][1]
        compared = {
            "unseen prompts: support vectors": wilson(sum(vectors), len(bird)),
            "unseen prompts: random forest": wilson(sum(trees), len(bird)),
            "the most frequent label": wilson(usual, len(bird)),
        }
        template = wilson(sum(ours), len(templates))
    means = [fmean(each) / len(bird) for each in zip(first, *others, strict=True)]
    figures: Figures = {f"own labels: {name}": figure for name, figure in found.items()}
    figures["own labels: foldings"] = exactly(means[1])
    shown = [[name, str(figure)] for name, figure in (found | compared).items()]
    shown.insert(2, [f"both, mean of {FOLDINGS} foldings", f"{means[0]:.3f}; {means[1]:.3f}"])
    print(f"Agreement with BIRD's annotators, {len(bird)} texts:\n")
    print(table(["", "agreement"], shown))
    pairs, same = alike(examples_of(bird))
    print(
        f"\nOf {pairs} pairs of texts with at least {_ALIKE:.0%} of their words in common, {same} have the same label."
    )
    print(f"\nWith the author of UncommonRoute's {len(templates):,} templates, in three folds: {template}.")
    keep(given.figures, figures)


if __name__ == "__main__":
    main()
