"""The stand-in for the API, where there is no key. What it says makes the tour worth walking; it knows no more."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from anthropic import AsyncAnthropic

from tierline.testing import FakeClaude, Received, Reply
from tierline.testing.__main__ import main

log = logging.getLogger("uvicorn.error")


_HINTS = {
    "billing": "charged|invoice|refund|pay",
    "delivery": "parcel|deliver|arriv|order",
    "repair": "dark|broke|squeak|display|brake",
    "warranty": "warrant",
    "contract": "contract|clause",
}
_USUAL = FakeClaude().verdict
_NUMBERS = {"a": 1, "one": 1, "two": 2, "three": 3, "four": 4}


def said(request: Received) -> str | Reply | None:
    """What makes the features of the tour visible. None: the stand-in's own answer."""
    body: dict[str, Any] = request.body
    if "quantity" in str(body.get("output_config")):
        return order_in(str(body["messages"][-1]["content"]), cheap="haiku" in str(request.model))
    if body.get("tools") and body.get("tool_choice", {}).get("type") != "none":
        return next_step(body["messages"])
    return None


def order_in(mail: str, *, cheap: bool) -> str:
    """The order in a mail. Where there is none, the cheapest tier says so in words, which is no order by its form."""
    found = re.search(r"\b(\d+|a|one|two|three|four)\s+((?:\w+\s?){1,2}?)(?:\s(?:for|please)\b|[,.]|$)", mail.lower())
    if found is None and cheap:
        return "I see no order in this mail."
    item, number = (found[2].strip(), found[1]) if found else ("nothing", "0")
    return json.dumps({"item": item, "quantity": _NUMBERS.get(number) or int(number)})


def next_step(messages: list[Any]) -> Reply:
    """An agent looks up the order, then the town, and then it knows."""
    results = [
        str(block["content"])
        for message in messages
        if isinstance(message["content"], list)
        for block in message["content"]
        if block.get("type") == "tool_result"
    ]
    match results:
        case []:
            number = re.search(r"\d{3,}", str(messages[-1]["content"]))
            return Reply(tool="look_up_order", input={"number": number[0] if number else "1000"})
        case [order]:
            return Reply(tool="delivery_slots", input={"town": order.rstrip(".").rpartition(" ")[2]})
        case _:
            return Reply(text=f"Your parcel is on its way. {results[-1]}")


def sorted_as(text: str, labels: Sequence[str]) -> tuple[str, float] | str:
    """A category of the shop's for a mail of its customers; of everything else, what the stand-in thinks of it."""
    if "warranty" not in labels:
        return _USUAL(text, labels)
    return next((label for label, words in _HINTS.items() if re.search(words, text.lower())), "other"), 0.9


def stand_in(chunk_delay: float = 0.0) -> FakeClaude:
    """It. `chunk_delay` is in seconds, between the events of a stream."""
    return FakeClaude(answer=said, verdict=sorted_as, chunk_delay=chunk_delay)


def offline(resources: AsyncExitStack) -> AsyncAnthropic | None:
    """A client of the stand-in, where there is no key; None where there is one."""
    if os.environ.get("ANTHROPIC_API_KEY"):
        return None
    log.warning("no ANTHROPIC_API_KEY: the answers come from an offline stand-in for the API")
    fake = stand_in(float(os.environ.get("DESK_CHUNK_DELAY", "0")))
    client = AsyncAnthropic(api_key=fake.api_key, base_url=resources.enter_context(fake.serve_in_thread()))
    resources.push_async_callback(client.close)
    return client


if __name__ == "__main__":  # several workers need one that is no part of any: python -m example_app.offline
    main(make=stand_in)
