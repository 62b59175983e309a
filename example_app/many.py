"""Many at a time: labels for thousands of texts now, and jobs that come back later at half the price."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field

from example_app.desk import CATEGORIES
from example_app.shapes import text_of
from tierline import Router, policy
from tierline.batches import BatchRequest
from tierline.fastapi import Routing
from tierline.values import usd

Texts = Annotated[list[Annotated[str, Field(min_length=1, max_length=4_000)]], Field(min_length=1, max_length=500)]
CHEAP = policy(ceiling="sonnet", expected_output=60)


class Mails(BaseModel):
    """What many customers wrote."""

    texts: Texts


class Sorted(BaseModel):
    """A category for each, in order; None where there is none. `asked` were put to Claude, the others are known."""

    labels: list[str | None]
    asked: int
    cached: int
    requests: int
    cost: str


class Result(BaseModel):
    """What became of one mail of a job."""

    outcome: str
    tier: str
    text: str
    cost: str


class Job(BaseModel):
    """How far a job is. `results` are those of its beginning, as far as they have come back."""

    id: str
    state: str
    submitted: int
    succeeded: int
    cost: str
    results: list[Result] = []


def many_of(router: Router) -> APIRouter:
    """The endpoints for many texts. A job is its tenant's, which is in its name, and nobody else's."""
    pages = APIRouter()

    @pages.post("/sort")
    async def sort(mails: Mails) -> Sorted:
        found = await router.classify_many(mails.texts, CATEGORIES, "What is the mail of a shop's customer about?")
        return Sorted(
            labels=found.labels, asked=found.asked, cached=found.cached, requests=found.requests, cost=usd(found.cost)
        )

    @pages.post("/jobs", status_code=202)
    async def submit(mails: Mails, routing: Routing) -> Job:
        tenant = str(routing.tenant)
        requests = (
            BatchRequest(
                f"mail-{number}",
                {
                    "model": "auto",
                    "max_tokens": 400,
                    "system": "Draft a reply to a customer of a shop for electric bikes.",
                    "messages": [{"role": "user", "content": text}],
                },
                tenant=tenant,
                policy=CHEAP,
            )
            for number, text in enumerate(mails.texts)
        )
        return await told(await router.batches.submit(requests, job=f"{tenant}-{uuid.uuid4().hex}"))

    @pages.get("/jobs/{job}")
    async def look(job: str, routing: Routing) -> Job:
        if not job.startswith(f"{routing.tenant}-") or job not in await router.batches.jobs():
            raise HTTPException(404, "you have no such job")
        return await told(job)

    async def told(job: str) -> Job:
        status = await router.batches.status(job)
        found = Job(
            id=job, state=status.state, submitted=status.submitted, succeeded=status.succeeded, cost=usd(status.cost)
        )
        async for each in router.batches.results(job, work=False):
            text = "" if each.message is None else text_of(each.message)
            found.results.append(Result(outcome=each.outcome, tier=each.tier, text=text, cost=usd(each.cost)))
        return found

    return pages
