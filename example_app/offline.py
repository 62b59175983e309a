"""The stand-in for the API, where there is no key: what it says makes the tour worth walking."""

from __future__ import annotations

import logging
import os
import re
from contextlib import AsyncExitStack
from typing import Any

from anthropic import AsyncAnthropic

from tierline.testing import FakeClaude, Received, Reply

log = logging.getLogger("uvicorn.error")


def said(request: Received) -> Reply | None:
    """An agent looks up the order, then the town, and then it knows. All else is the stand-in's own to answer."""
    body: dict[str, Any] = request.body
    if not body.get("tools") or body.get("tool_choice", {}).get("type") == "none":
        return None
    results = [
        str(block["content"])
        for message in body["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block.get("type") == "tool_result"
    ]
    match results:
        case []:
            number = re.search(r"\d{3,}", str(body["messages"][-1]["content"]))
            return Reply(tool="look_up_order", input={"number": number[0] if number else "1000"})
        case [order]:
            return Reply(tool="delivery_slots", input={"town": order.rstrip(".").rpartition(" ")[2]})
        case _:
            return Reply(text=f"Your parcel is on its way. {results[-1]}")


def offline(resources: AsyncExitStack) -> AsyncAnthropic | None:
    """A client of the stand-in for the API, where there is no key; None where there is one."""
    if os.environ.get("ANTHROPIC_API_KEY"):
        return None
    log.warning("no ANTHROPIC_API_KEY: the answers come from an offline stand-in for the API")
    fake = FakeClaude(answer=said, chunk_delay=float(os.environ.get("DESK_CHUNK_DELAY", "0")))
    client = AsyncAnthropic(api_key=fake.api_key, base_url=resources.enter_context(fake.serve_in_thread()))
    resources.push_async_callback(client.close)
    return client
