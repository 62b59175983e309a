"""An agent that looks up orders: each step is routed by itself, and all of them together have a budget."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from example_app.shapes import Question, Why, text_of
from tierline import Budget, policy
from tierline.fastapi import Claude, Routing
from tierline.values import usd

MOST_STEPS = 6
TOOLS: list[Any] = [
    {
        "name": "look_up_order",
        "description": "What is known of an order: items, state, address.",
        "input_schema": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
    },
    {
        "name": "delivery_slots",
        "description": "When a parcel can be delivered to a town.",
        "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
]
LIMIT = Budget("$0.08", per="run", name="one run of the agent")
"""A total for all steps of one run: a loop cannot run away."""


class Step(BaseModel):
    """One call of the loop: what it wanted to know, nothing at the end."""

    tools: list[str]
    why: Why


class Found(BaseModel):
    """What the agent found out, and how."""

    text: str
    run: str
    cost: str
    limit: str
    steps: list[Step]


def looked_up(tool: str, asked: dict[str, Any]) -> str:
    """What the shop's systems say. A real one has a database here."""
    if tool == "look_up_order":
        return f"Order {asked.get('number')}: two brake pads, paid, packed, to be delivered to Bergen."
    return f"{asked.get('town')}: Monday 8-12, Tuesday 14-18."


def agent_of() -> APIRouter:
    """The endpoint that lets it run."""
    pages = APIRouter()

    @pages.post("/agent", dependencies=[Depends(policy(per_step=True, budgets=[LIMIT], task="answer with tools"))])
    async def agent(question: Question, claude: Claude, routing: Routing) -> Found:
        run = routing.run = uuid.uuid4().hex
        messages = question.messages()
        steps: list[Step] = []
        cost = 0
        while True:
            message = await claude.messages.create(
                model="auto",
                max_tokens=800,
                # The last step may call nothing any more, and answers with what it has.
                tool_choice={"type": "none"} if len(steps) == MOST_STEPS - 1 else {"type": "auto"},
                system="Find out what the customer wants to know. Then answer in one sentence.",
                tools=TOOLS,
                messages=messages,
            )
            called = [block for block in message.content if block.type == "tool_use"]
            decision = routing.decisions[-1]
            cost += decision.cost
            steps.append(Step(tools=[block.name for block in called], why=Why.of(decision)))
            if not called:
                return Found(text=text_of(message), run=run, cost=usd(cost), limit=LIMIT.name, steps=steps)
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": looked_up(block.name, dict(block.input))}
                for block in called
            ]
            messages += [
                {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in message.content]},
                {"role": "user", "content": results},
            ]

    return pages
