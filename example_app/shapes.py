"""What the desk is asked, and what it answers: an answer, and why it came from where it did."""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import BaseModel, Field

from tierline import Decision
from tierline.values import usd

TRACES = os.environ.get("DESK_TRACES", "http://localhost:16686/trace/{trace_id}")
"""Where a trace can be looked at. It is linked where one is recorded."""


class Turn(BaseModel):
    """One earlier message of a chat."""

    role: Literal["user", "assistant"]
    content: str = Field(min_length=1)


class Question(BaseModel):
    """What a customer writes."""

    text: str = Field(min_length=1)
    history: list[Turn] = []

    def messages(self) -> list[Any]:
        """The conversation as the Messages API takes it."""
        return [*(turn.model_dump() for turn in self.history), {"role": "user", "content": self.text}]


class Tried(BaseModel):
    """One request to Claude."""

    tier: str
    role: str
    outcome: str
    cost: str
    seconds: float


class Why(BaseModel):
    """What became of the call."""

    tier: str
    requested_tier: str
    label: str | None
    source: str
    cost: str
    top: str
    """What all on the top tier would have cost."""
    saved: str
    saved_share: float
    estimated: bool
    seconds: float
    reasons: list[str]
    attempts: list[Tried]
    handle: str
    """Lets whoever sees the answer say how good it was: see `/grade`."""
    observed: str | None
    """The tier that would have answered, where the desk only watches; empty where the call would have been refused."""
    trace: str | None
    """Where the call's trace is."""

    @classmethod
    def of(cls, decision: Decision) -> Why:
        """The part of a decision that is worth showing."""
        return cls(
            tier=decision.tier,
            requested_tier=decision.requested_tier,
            label=decision.label,
            source=decision.source,
            cost=usd(decision.cost),
            top=usd(decision.cost + decision.saved),
            saved=usd(decision.saved),
            saved_share=decision.saved / max(1, decision.cost + decision.saved),
            estimated=decision.estimated,
            seconds=decision.latency_s,
            reasons=list(decision.reasons),
            attempts=[
                Tried(tier=each.tier, role=each.role, outcome=each.outcome, cost=usd(each.cost), seconds=each.seconds)
                for each in decision.attempts
            ],
            handle=decision.handle,
            observed=(decision.observed.tier or "") if decision.observed is not None else None,
            trace=TRACES.format(trace_id=decision.trace_id) if decision.trace_id else None,
        )


class Thumb(BaseModel):
    """Up or down, for an answer."""

    handle: str = Field(max_length=4_000)
    good: bool


class Answer(BaseModel):
    """What the desk answers."""

    text: str
    why: Why


class Order(BaseModel):
    """What a customer wants to buy."""

    item: str
    quantity: int


class Read(BaseModel):
    """An order, as it was read from a mail."""

    order: Order | None
    why: Why


def text_of(message: Any) -> str:
    """The text of an answer, without its thinking."""
    return "".join(block.text for block in message.content if block.type == "text")
