"""What `tierline explain` says, for machines: money in nano-USD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierline.cli.foresight import SILENT
from tierline.cli.routes import in_words

if TYPE_CHECKING:
    from tierline.cli.foresight import Course, Foresight
    from tierline.cli.survey import Surveyed
    from tierline.values import Decision


def as_dict(found: Foresight, at: Surveyed | None) -> dict[str, Any]:
    """What would become of a call."""
    call = found.call
    return {
        "call": {
            "model": call.model,
            "max_tokens": call.max_tokens,
            "input_bound": call.input_bound,
            "expected_input": found.expected.prompt_tokens,
            "expected_output": found.expected.output_tokens,
            "features": sorted(call.features),
            "unbounded": call.unbounded,
        },
        "route": at.path if at is not None else None,
        "policies": [
            {"policy": in_words(each.policy), "by": each.by, "at": each.at} for each in (at.written if at else ())
        ],
        "floor": found.policy.floor,
        "ceiling": found.policy.ceiling,
        "classifiers": [
            {
                "name": each.name,
                "label": each.opinion and each.opinion.label,
                "confidence": each.opinion and each.opinion.confidence,
                "note": each.note,
            }
            for each in found.heard
        ],
        "verdict_cost": found.verdict_cost,
        "taught": found.forecast and [chance._asdict() for chance in found.forecast.chances],
        "tiers": [
            {"tier": each.tier, "model": each.model, "worst": each.worst, "expected": each.expected, "open": each.open,
             "note": each.note}
            for each in found.rungs
        ],
        "budgets": [
            {"budget": each.line.budget, "account": each.line.account, "spent": each.spent, "held": each.held,
             "limit": each.line.limit, "hard": each.line.hard, "window": each.line.window.series}
            for each in found.accounts
        ],
        "courses": [_course_as_dict(each) for each in found.courses],
        "refused": found.refused,
        "passes": found.passes,
    }  # fmt: skip


def _course_as_dict(course: Course) -> dict[str, Any]:
    offer = course.offer
    return {
        "verdict": course.verdict or None,
        "source": course.plan.source,
        "requested": course.plan.requested,
        "tier": offer and offer.tier,
        "model": offer and offer.model,
        "hold": offer and offer.cost,
        "tight": course.tight or None,
        "fallbacks": list(course.fallbacks),
        "reasons": [reason for reason in course.plan.reasons if SILENT not in reason],
    }


def sent_as_dict(decision: Decision | None, answer: Any) -> dict[str, Any]:
    """What did become of it; `answer` is an error where there is none."""
    error = f"{type(answer).__name__}: {answer}" if isinstance(answer, Exception) else None
    told: dict[str, Any] = {"error": error}
    if decision is not None:
        told |= {"tier": decision.tier, "model": decision.model, "source": decision.source, "cost": decision.cost,
                 "saved": decision.saved, "reasons": list(decision.reasons), "seconds": decision.latency_s}  # fmt: skip
    if error is None and answer is not None:
        told["text"] = "".join(block.text for block in answer.content if block.type == "text")
    return told
