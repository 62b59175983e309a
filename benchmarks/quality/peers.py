"""Those beside whom Tierline's own choices are measured: keyword rules, signals, length, LiteLLM's heuristics.

    python -m benchmarks.quality.peers --data DIR [--without-litellm]

LiteLLM is installed for the run, at a pinned version, into an environment of its own (`.venv/litellm`): it is no
dependency of anything here. Its needs are the score of its `heuristic`, and of `heuristic_v2` how much likelier its
highest tier is to succeed than its lowest. Signals that see nothing rank a prompt below those that see something.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.quality.data import SETS, Pair
from benchmarks.quality.scores import Score, scored
from benchmarks.quality.writing import peers_section
from tierline.classify import KeywordClassifier, SignalClassifier
from tierline.evaluation.opinions import Offline, need, opinion, view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.classify import Classifier

LITELLM: Final = "1.106.2"
HOME: Final = Path(__file__).resolve().parents[2] / ".venv" / "litellm"
_TIMED: Final = 500
_BOTH: Final = ("LiteLLM heuristic", "LiteLLM heuristic_v2")


def of_classifier(
    classifier: Classifier, pairs: Sequence[Pair], *, silent: float | None = None
) -> tuple[list[float], list[float]]:
    """The needs of prompts by a classifier, and the microseconds that each took.

    `silent` is the need of those on which it has no opinion; by default the middle.
    """
    consult = Offline()
    needs: list[float] = []
    took: list[float] = []
    for pair in pairs:
        began = time.perf_counter()
        view = view_of(pair.prompt, pair.tools)
        said = opinion(classifier, view, consult)
        needs.append(silent if said is None and silent is not None else need(classifier, view, said))
        took.append((time.perf_counter() - began) * 1e6)
    return needs, took


def of_length(pairs: Sequence[Pair]) -> tuple[list[float], list[float]]:
    """The longer, the needier."""
    return [float(len(pair.prompt)) for pair in pairs], []


def of_litellm(pairs: Sequence[Pair]) -> dict[str, tuple[list[float], list[float]]]:
    """The needs of prompts by both of LiteLLM's heuristics, in a process of its own environment."""
    python = HOME / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"litellm=={LITELLM}"], check=True)
    done = subprocess.run(
        [str(python), str(Path(__file__).with_name("litellm_needs.py"))],
        input=json.dumps([pair.prompt for pair in pairs]),
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # it would ask the network
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: (needs, took) for name, needs, took in zip(_BOTH, *found, strict=True)}


OURS: Final[dict[str, Callable[[Sequence[Pair]], tuple[list[float], list[float]]]]] = {
    "keyword list": lambda pairs: of_classifier(KeywordClassifier(), pairs),
    "signals": lambda pairs: of_classifier(SignalClassifier(), pairs, silent=0.0),
    "length alone": of_length,
}


def measured(data: Path, *, litellm: bool = True) -> dict[str, Any]:
    """By router and set: APGR, and on Claude's tiers the cost at 95%; microseconds of a decision."""
    scores: dict[str, dict[str, Score]] = {}
    took: dict[str, list[float]] = {}
    for title, load in SETS.items():
        pairs = load(data)
        found = {name: rank(pairs) for name, rank in OURS.items()}
        if litellm:
            found |= of_litellm(pairs)
        for name, (needs, micros) in found.items():
            scores.setdefault(name, {})[title] = scored(needs, pairs)
            took.setdefault(name, []).extend(micros[:: max(1, len(pairs) * len(SETS) // _TIMED)])
        gains = [pair.strong - pair.weak for pair in pairs]
        scores.setdefault("oracle", {})[title] = scored(gains, pairs)
    times = {
        name: (statistics.median(micros), statistics.quantiles(micros, n=20)[-1])
        for name, micros in took.items()
        if micros
    }
    return {"scores": scores, "times": times}


def by_source(data: Path, needs_of: Callable[[Sequence[Pair]], list[float]]) -> dict[str, Score]:
    """The score of each source of Claude's tiers by itself, where there is a gap to recover."""
    found: dict[str, Score] = {}
    pairs = SETS["Claude 3 tiers"](data)
    for source in sorted({pair.source for pair in pairs}):
        of = [pair for pair in pairs if pair.source == source]
        if sum(pair.strong for pair in of) > sum(pair.weak for pair in of):
            found[source] = scored(needs_of(of), of)
    return found


def main() -> None:
    """Print the table alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--without-litellm", action="store_true")
    options = parser.parse_args()
    found = measured(options.data, litellm=not options.without_litellm)
    if not options.without_litellm:
        print(f"LiteLLM {LITELLM} was installed for the run.\n")
    print(peers_section(found))


if __name__ == "__main__":
    main()
