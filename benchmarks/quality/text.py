"""What the text of a request alone says of the tier it needs: `python -m benchmarks.quality.text --data DIR`.

- unseen prompts: five-fold cross-validation, in which prompts that open alike are in one fold, whatever their source
- unseen sources: trained without the source

The same data gives the same figures. Needs the group `quality`.
"""

from __future__ import annotations

from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Final
from zlib import crc32

from benchmarks.quality.data import SETS, Pair
from benchmarks.quality.figures import exactly, keep, options
from benchmarks.quality.scores import scored
from benchmarks.quality.writing import apgr, table
from scripts.train_classifier import examples_of, train
from tierline.classify import LocalClassifier
from tierline.evaluation import bootstrap, expected_calibration_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.quality.figures import Figures

FOLDS: Final = 5
_OPENING: Final = 60
"""Characters that prompts open with alike to be in one fold."""
_SUBJECTS: Final = 9
"""Subjects of MMLU that are left out together."""


def fold_of(text: str) -> int:
    """Which fold a prompt is in."""
    return crc32(" ".join(text.split())[:_OPENING].lower().encode("utf-8", "surrogatepass")) % FOLDS


def need_of(classifier: LocalClassifier, pair: Pair) -> float:
    """How much a prompt needs a better tier, as requests are ranked by."""
    found = classifier.probabilities(pair.prompt, tools=pair.tools)
    return found["complex"] + found["moderate"] / 2


def unseen_prompts(pairs: dict[str, list[Pair]], data: Path, figures: Figures) -> str:
    """APGR and cost by weights that were trained without each prompt's fold, and how honest p(simple) is."""
    examples = examples_of(data)
    judges = [
        LocalClassifier(train([example for example in examples if fold_of(example.text) != fold]))
        for fold in range(FOLDS)
    ]
    lines, areas = [], []
    for name, those in pairs.items():
        found = scored([need_of(judges[fold_of(pair.prompt)], pair) for pair in those], those)
        areas.append(found.apgr.value)
        cost = "-" if found.cost_at_95 is None else f"{found.cost_at_95:.3f}"
        lines.append([f"{name} ({len(those):,})", apgr(found), cost])
        figures[f"unseen prompts: {name}"] = found.apgr
    lines.append(["macro", f"{fmean(areas):.3f}", "-"])
    figures["unseen prompts: macro"] = exactly(fmean(areas))
    claude = pairs["Claude 3 tiers"]
    chances = [judges[fold_of(pair.prompt)].probabilities(pair.prompt, tools=pair.tools)["simple"] for pair in claude]
    good = [float(pair.weak >= pair.strong) for pair in claude]
    error = bootstrap(partial(_error, chances, good), len(claude), resamples=200)
    figures["unseen prompts: ECE"] = error
    return (
        "Unseen prompts:\n\n"
        + table(["set", "APGR", "cost at 95%"], lines)
        + f"\n\nExpected calibration error of p(simple), that Haiku's answer is as good as Opus', there: {error}."
    )


def _error(chances: Sequence[float], good: Sequence[float], weights: Sequence[float]) -> float:
    return expected_calibration_error(chances, good, weights=weights)


def unseen_sources(pairs: dict[str, list[Pair]], data: Path, figures: Figures) -> str:
    """APGR on prompts of a source, by weights that were trained without it, beside that of the length alone."""
    subjects = sorted({pair.source for pair in pairs["MMLU (Mixtral)"]}, key=lambda name: crc32(name.encode()))
    nines = [frozenset(subjects[at : at + _SUBJECTS]) for at in (0, _SUBJECTS)]
    ways: dict[str, Callable[[Pair], bool]] = {
        "sums in words": lambda pair: "gsm" in pair.source,
        "hard maths": lambda pair: pair.source == "zeroeval-math-l5",
        "tools called side by side": lambda pair: "parallel" in pair.source,
        "tools": lambda pair: pair.source.startswith("bfcl"),
        "ulab": lambda pair: pair.source.startswith("ulab"),
        **{f"nine subjects of MMLU ({turn})": partial(_among, nine) for turn, nine in enumerate(nines, 1)},
        "MMLU": partial(_among, frozenset(subjects)),
    }
    examples = examples_of(data)
    lines, areas = [], []
    for name, held in ways.items():
        gone = {pair.prompt for those in pairs.values() for pair in those if held(pair)}
        judge = LocalClassifier(train([example for example in examples if example.text not in gone]))
        for title, those in pairs.items():
            out = [pair for pair in those if held(pair)]
            if not out:
                continue
            familiar = fmean(judge.opinion(pair.prompt, pair.tools).familiarity for pair in out)
            found = scored([need_of(judge, pair) for pair in out], out)
            areas.append(found.apgr.value)
            lines.append([
                f"{name}: {title} ({len(out):,})",
                apgr(found),
                apgr(scored([float(len(pair.prompt)) for pair in out], out)),
                f"{familiar:.2f}",
            ])  # fmt: skip
    figures["unseen sources: mean"] = exactly(fmean(areas))
    figures["unseen sources: lowest"] = exactly(min(areas))
    return "Unseen sources:\n\n" + table(["trained without", "APGR", "length alone", "mean familiarity"], lines)


def _among(subjects: frozenset[str], pair: Pair) -> bool:
    return pair.source in subjects


def main() -> None:
    """Print all tables."""
    given = options(__doc__).parse_args()
    pairs = {name: load(given.data) for name, load in SETS.items()}
    figures: Figures = {}
    print(unseen_prompts(pairs, given.data, figures), flush=True)
    print()
    print(unseen_sources(pairs, given.data, figures))
    keep(given.figures, figures)


if __name__ == "__main__":
    main()
