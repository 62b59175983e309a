"""What the desk may answer later: deferred, sent in a batch with others at half the price, and asked for by its URL."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from tierline import Router, policy
from tierline.batches import BatchRequest
from tierline.starlette import accepted, answered

ASK_AGAIN = 5
"""Seconds. A real desk says a minute or more."""


class Matter(BaseModel):
    """What a customer wrote."""

    text: str = Field(min_length=1)


def later_of(router: Router) -> APIRouter:
    """The endpoints for whoever can wait. Who they are, the desk has found out."""
    later = APIRouter(prefix="/later")

    @later.post("", status_code=202, dependencies=[Depends(policy(ceiling="sonnet", task="sum up a customer"))])
    async def ask(matter: Matter, request: Request) -> Response:
        params = {
            "model": "auto",
            "max_tokens": 800,
            "system": "Sum up what the customer wrote, for whoever answers.",
            "messages": [{"role": "user", "content": matter.text}],
        }
        handle = await router.batches.defer(BatchRequest("summary", params), within="12h", when_full="defer")
        return accepted(request.url_for("summary_of", handle=handle), retry_after=ASK_AGAIN)

    @later.get("/{handle}", name="summary_of")
    async def look(handle: str) -> Response:
        return await answered(router, handle, retry_after=ASK_AGAIN)

    return later
