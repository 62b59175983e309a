"""How long a decision of `LocalClassifier` takes: `python -m benchmarks.quality.pace --data DIR`.

CPU time of the thread, of each prompt the shortest of REPEATS, so that what else the machine does counts as little as
may be. Beside it, in the same run, a plain count of the words of the same prompts: ratios compare across machines.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.quality.data import SETS
from benchmarks.quality.figures import exactly, keep, options
from benchmarks.quality.writing import table
from tierline.classify import LocalClassifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.quality.data import Pair
    from benchmarks.quality.figures import Figures

PROMPTS: Final = 500
REPEATS: Final = 9
MEGABYTE: Final = "这个合同里有几条条款需要仔细看一看。" * 18_519
"""1 MB as UTF-8."""


def micros(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Microseconds of CPU time, the shortest of some runs."""
    took = []
    for _ in range(repeats):
        began = time.thread_time_ns()
        work()
        took.append(time.thread_time_ns() - began)
    return min(took) / 1e3


def main() -> None:
    """Print the table."""
    given = options(__doc__).parse_args()
    sets: list[list[Pair]] = [load(given.data) for load in SETS.values()]
    each = PROMPTS // len(sets)
    mixed = [pair for pairs in sets for pair in pairs[:: max(1, len(pairs) // each)][:each]]
    judge = LocalClassifier()
    judge.prepare()
    ways: dict[str, Callable[[Pair], object]] = {
        "`LocalClassifier`": lambda pair: judge.probabilities(pair.prompt, pair.tools),
        "a count of words, for scale": lambda pair: Counter(pair.prompt.lower().split()),
    }
    figures: Figures = {}
    lines = []
    for name, way in ways.items():
        took = [micros(partial(way, pair)) for pair in mixed]
        median, p95 = statistics.median(took), statistics.quantiles(took, n=20)[-1]
        if not figures:
            figures |= {"time: median": exactly(median), "time: p95": exactly(p95)}
        lines.append([name, f"{median:,.0f}", f"{p95:,.0f}"])
    large = micros(lambda: judge.probabilities(MEGABYTE)) / 1e3
    figures["time: a megabyte, ms"] = exactly(large)
    print(f"Microseconds of CPU time, {len(mixed)} prompts of all five sets, each the shortest of {REPEATS} runs:\n")
    print(table(["", "median", "p95"], lines))
    print(f"\nOf 1 MB of Chinese text: {large:.1f} ms.")
    keep(given.figures, figures)


if __name__ == "__main__":
    main()
