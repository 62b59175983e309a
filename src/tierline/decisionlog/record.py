"""A decision as it is written down. The schema is documented in docs/evaluation.md."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tierline.values import Decision

SCHEMA: Final = 1
"""The version of the records, in each of them as `v`. A field that is added leaves it; one that changes raises it."""


def record_of(
    decision: Decision, *, at: float, outcome: str, tools: int = 0, text: str | None = None
) -> dict[str, Any]:
    """A settled decision as JSON: money in nano-USD, times in seconds. Without `text` no word of the prompt is in it.

    `at` is when it was settled (seconds since the epoch), `outcome` how the call ended: `ok`, `refused`, or an error.
    """
    forecast = decision.forecast
    record: dict[str, Any] = {
        "v": SCHEMA,
        "id": decision.id,
        "at": round(at, 3),
        "route": decision.route,
        "tenant": decision.tenant,
        "run": decision.run,
        "tags": dict(decision.tags),
        "tier": decision.tier,
        "model": decision.model,
        "requested_tier": decision.requested_tier,
        "label": decision.label,
        "confidence": round(decision.confidence, 4),
        "source": decision.source,
        "chances": None if forecast is None else {each.tier: round(each.good, 4) for each in forecast.chances},
        "evidence": None if forecast is None else {each.tier: round(each.evidence, 4) for each in forecast.chances},
        "explored": decision.explored,
        "reasons": list(decision.reasons),
        "outcome": outcome,
        "attempts": [
            {
                "tier": attempt.tier,
                "model": attempt.model,
                "role": attempt.role,
                "outcome": attempt.outcome,
                "usage": asdict(attempt.usage),
                "cost": attempt.cost,
                "seconds": round(attempt.seconds, 4),
                "estimated": attempt.estimated,
            }
            for attempt in decision.attempts
        ],
        "usage": asdict(decision.usage),
        "cost": decision.cost,
        "saved": decision.saved,
        "classifier_cost": decision.classifier_cost,
        "grading_cost": decision.grading_cost,
        "latency_s": round(decision.latency_s, 4),
        "classifier_latency_s": round(decision.classifier_latency_s, 6),
        "estimated": decision.estimated,
        "tools": tools,
        "trace_id": decision.trace_id,
        "observed": None if decision.observed is None else asdict(decision.observed),
    }
    if text is not None:
        record["text"] = text
    return record


def line_of(record: dict[str, Any]) -> str:
    """A record as one line of JSON, without its end. Half of a surrogate pair, which is no text, is a question mark."""
    line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return line if line.isascii() else line.encode("utf-8", "replace").decode()
