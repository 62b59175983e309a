"""What the desk answers at once. Each endpoint calls Claude as it would without Tierline; what holds stands above."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress

from anthropic import AsyncAnthropic
from fastapi import APIRouter, Depends, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from example_app.people import SOCKET
from example_app.shapes import Answer, Order, Question, Read, Thumb, Why, text_of
from tierline import Binding, Router, policy
from tierline.fastapi import Claude, Routing, SyncClaude

CATEGORIES = ("billing", "delivery", "repair", "warranty", "contract", "other")

SYSTEM = "You answer customers of a shop for electric bikes. Be brief and correct."


async def answered(
    claude: AsyncAnthropic,
    routing: Binding,
    question: Question,
    *,
    model: str = "auto",
    max_tokens: int = 1_500,
    system: str = SYSTEM,
) -> Answer:
    """Ask, and say why it went where it went."""
    message = await claude.messages.create(
        model=model, max_tokens=max_tokens, system=system, messages=question.messages()
    )
    return Answer(text=text_of(message), why=Why.of(routing.decisions[-1]))


def desk_of(router: Router) -> APIRouter:
    """Everything that a customer waits for."""
    desk = APIRouter()

    @desk.post("/answer")
    async def answer(question: Question, claude: Claude, routing: Routing) -> Answer:
        return await answered(claude, routing, question)

    @desk.post(
        "/classify",
        dependencies=[Depends(policy(task="classify a support ticket", expected_output=10, quality=0.9))],
    )
    async def classify(question: Question, claude: Claude, routing: Routing) -> Answer:
        system = f"Sort the ticket into one of: {', '.join(CATEGORIES)}. Answer with that word alone."
        return await answered(claude, routing, question, max_tokens=400, system=system)

    @desk.post("/contracts", dependencies=[Depends(policy(floor="sonnet", critical=True))])
    async def contracts(question: Question, claude: Claude, routing: Routing) -> Answer:
        system = "You review service contracts for a shop. Point out every obligation and every risk."
        return await answered(claude, routing, question, max_tokens=2_000, system=system)

    @desk.post("/expert", dependencies=[Depends(policy(tier="opus"))])
    async def expert(question: Question, claude: Claude, routing: Routing) -> Answer:
        return await answered(claude, routing, question)

    @desk.post("/old", dependencies=[Depends(policy(explicit_model="ceiling"))])
    async def old(question: Question, claude: Claude, routing: Routing) -> Answer:
        # A part of the app that nobody has touched in years. It names its model; that is the most that it gets.
        return await answered(claude, routing, question, model="claude-opus-5-5")

    @desk.post("/quick", dependencies=[Depends(policy(speculate=True))])
    async def quick(question: Question, claude: Claude, routing: Routing) -> Answer:
        return await answered(claude, routing, question)

    @desk.post("/summary")
    @policy(label="simple", tags={"feature": "summary"})
    def summary(question: Question, claude: SyncClaude, routing: Routing) -> Answer:
        message = claude.messages.create(
            model="auto",
            max_tokens=400,
            system="Sum up the conversation in one sentence.",
            messages=question.messages(),
        )
        return Answer(text=text_of(message), why=Why.of(routing.decisions[-1]))

    @desk.post("/order", dependencies=[Depends(policy(escalate=True, task="read an order from a mail"))])
    async def order(question: Question, claude: Claude, routing: Routing) -> Read:
        # The cheapest tier reads it; what is no order by its form is read again by the next.
        try:
            message = await claude.messages.parse(
                model="auto",
                max_tokens=300,
                system="Read from the mail what the customer orders.",
                messages=question.messages(),
                output_format=Order,
            )
            found = message.parsed_output
        except ValidationError:  # the last tier that there was money for could not read one either
            found = None
        return Read(order=found, why=Why.of(routing.decisions[-1]))

    @desk.post("/chat")
    async def chat(question: Question, claude: Claude, routing: Routing) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            async with claude.messages.stream(model="auto", max_tokens=1500, messages=question.messages()) as stream:
                async for text in stream.text_stream:
                    yield f"data: {json.dumps(text)}\n\n"
            yield f"event: why\ndata: {Why.of(routing.decisions[-1]).model_dump_json()}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @desk.websocket("/live")
    async def live(socket: WebSocket, claude: Claude, routing: Routing) -> None:
        await socket.accept(SOCKET if SOCKET in socket.scope.get("subprotocols", ()) else None)
        with suppress(WebSocketDisconnect):
            async for text in socket.iter_text():
                answer = await answered(claude, routing, Question(text=text))
                await socket.send_text(answer.model_dump_json())

    @desk.post("/grade")
    async def grade(thumb: Thumb) -> dict[str, bool]:
        return {"counted": await router.grade(thumb.handle, thumb.good)}

    return desk
