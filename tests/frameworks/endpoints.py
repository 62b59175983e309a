"""What the apps of Starlette and FastAPI share beside `common`: endpoints that are classes, and a synchronous body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.from_thread
from common import FLOOR, answer
from starlette.endpoints import HTTPEndpoint
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request


@FLOOR
class Floored(HTTPEndpoint):
    async def get(self, _: Request) -> JSONResponse:
        return JSONResponse(await answer())


class Method(HTTPEndpoint):
    @FLOOR
    async def get(self, _: Request) -> JSONResponse:
        return JSONResponse(await answer())


def letters() -> Iterator[str]:
    """A body that is not asynchronous: it is read in a thread."""
    yield anyio.from_thread.run(answer)["tier"]
