"""Which decisions of a log are worth a person's look: those that tell most about where the thresholds should be."""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.evaluation.opinions import silent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from tierline.evaluation.rows import Row

_MOST_ROUTES: Final = 10_000


class Drawn(NamedTuple):
    """A decision to grade, and why it was drawn."""

    row: Row
    why: str


def draw(
    rows: Iterable[Row],
    count: int,
    *,
    seed: int = 0,
    sure: float = 0.6,
    quality: float = 0.95,
    without: Collection[str] = (),
) -> list[Drawn]:
    """At most `count` decisions of a log, the most informative first. The same seed draws the same.

    Each route has its turn, the rarest first, so that few calls are heard too. Of a route, those come first that nobody
    had an opinion on, whose confidence is nearest to the Router's threshold `sure` or below it, and, where the route
    chose, whose chances are nearest to `quality` (the share of the top tier's); last what was pinned. Calls without an
    answer are no use, and ids in `without` have been graded. Memory is bounded, however long the log is.
    """
    best: dict[str, list[tuple[float, float, str, Row]]] = defaultdict(list)
    calls: dict[str, int] = defaultdict(int)
    for row in rows:
        record = row.record
        if record is None or record.get("outcome") != "ok" or row.id in without:
            continue
        if row.route not in calls and len(calls) >= _MOST_ROUTES:
            continue
        calls[row.route] += 1
        # A number of its own for each decision: no order of the log, and no other row, changes it.
        chance = random.Random(f"{seed} {row.id}").random()  # noqa: S311
        entry = (_worth(record, sure, quality), chance, row.id, row)
        heap = best[row.route]
        if len(heap) < count:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    turns = [
        (place, calls[route], route, entry)
        for route, heap in best.items()
        for place, entry in enumerate(sorted(heap, key=lambda each: each[:3], reverse=True))
    ]
    turns.sort(key=lambda each: (each[0], each[1], each[2]))
    return [Drawn(entry[3], _why(entry[3], calls[route], sure)) for _, _, route, entry in turns[:count]]


def _worth(record: Mapping[str, Any], sure: float, quality: float) -> float:
    """How much is not known of a decision, from 0 to 1."""
    if (chances := _chances(record)) is not None:
        *lower, top = chances.values()
        return 1.0 - min((min(1.0, 2 * abs(chance - quality * top)) for chance in lower), default=1.0)
    if silent(record):
        return 1.0
    if record.get("label") is None:
        return 0.0  # a pin, a model id: no threshold chose
    confidence = float(record.get("confidence") or 0.0)
    return 1.0 - (confidence - sure) / (1.0 - sure) if confidence > sure else 1.0 - (sure - confidence)


def _chances(record: Mapping[str, Any]) -> dict[str, float] | None:
    """What the route said of each tier, cheapest first, where it chose."""
    found = record.get("chances")
    return found if isinstance(found, dict) and found and record.get("source") == "route" else None


def _why(row: Row, calls: int, sure: float) -> str:
    record = row.record or {}
    if (chances := _chances(record)) is not None:
        why = "the route says " + ", ".join(f"{tier} {chance:.2f}" for tier, chance in chances.items())
    elif silent(record):
        why = "nobody had an opinion"
    elif record.get("label") is None:
        why = f"chosen by {record.get('source')}"
    else:
        confidence = float(record.get("confidence") or 0.0)
        why = f"{record.get('label')} at confidence {confidence:.2f}" + (" (not sure)" if confidence < sure else "")
    return f"{why}; 1 of {calls:,} calls of {row.route}"
