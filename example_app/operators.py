"""What an operator sees: the same from every process that shares the store."""

from __future__ import annotations

import os
from collections import deque
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from example_app.metrics import Scraped
from example_app.people import operator
from tierline import Report, Router
from tierline.errors import ConfigurationError
from tierline.ledger import Balance
from tierline.values import Mode, Refusal, Shadow


class Running(BaseModel):
    """How a process runs: a worker is one, and the mode is its own."""

    mode: Mode
    process: int


def pages_of(router: Router, refusals: deque[Refusal], scraped: Scraped) -> APIRouter:
    """Everybody's money, and what moves it. `refusals` are those of this process."""
    pages = APIRouter(prefix="/operator", dependencies=[Depends(operator)])

    @pages.get("/balances")
    async def balances() -> list[Balance]:
        return await router.balances()

    @pages.get("/holds")
    async def holds() -> PlainTextResponse:
        return PlainTextResponse(f"{await router.holds()}\n")

    @pages.get("/history")
    async def history(hours: Annotated[int, Query(ge=1, le=2_160)] = 24) -> PlainTextResponse:
        return PlainTextResponse(f"{await router.history(timedelta(hours=hours))}\n")

    @pages.get("/refusal")
    async def refusal() -> PlainTextResponse:
        if not refusals:
            raise HTTPException(404, "this process has refused nothing")
        return PlainTextResponse(f"{await router.explain(refusals[-1])}\n")

    @pages.get("/shadows")
    async def shadows() -> tuple[Shadow, ...]:
        return router.shadows()

    @pages.get("/report")
    async def report() -> Report:
        return router.report()

    @pages.get("/metrics")
    def metrics() -> Response:
        return scraped.page()

    @pages.get("/mode")
    async def running() -> Running:
        return Running(mode=router.mode, process=os.getpid())

    @pages.put("/mode")
    async def switch(mode: Mode) -> Running:
        try:
            router.mode = mode
        except ConfigurationError as error:
            raise HTTPException(422, str(error)) from error
        return await running()

    @pages.put("/plans/{tenant}", status_code=204)
    async def plan(tenant: str, limit: str | None = None) -> None:
        try:
            await router.set_limit("plan", tenant, limit=limit)
        except ConfigurationError as error:
            raise HTTPException(422, str(error)) from error

    return pages
