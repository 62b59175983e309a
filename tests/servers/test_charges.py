"""The oracle by itself: it takes nobody's word for what was sent but the transport's, and the API's for what came."""

from __future__ import annotations

from typing import Any

import pytest

from tests.servers.charges import must_be
from tests.servers.heard import Heard
from tierline.testing._log import Received
from tierline.values import Usage

HOLD = {"worst": 10_000_000, "input": 1_000}
BILLED = Received("/v1/messages", {}, billed=900 + 7 * 5_000, usage=Usage(900, 7))


def heard(*chunks: bytes, sent: bool = True) -> dict[str, Any]:
    """What the app sent and read of a stream."""
    found = Heard()
    found.streamed = True
    if sent:
        found.step("connection.connect_tcp.started", None)
        found.step("http11.send_request_headers.started", None)
    for chunk in chunks:
        found.take(chunk)
    return found.told()


START = b'event: message_start\ndata: {"type":"message_start"}\n\n'
TEXT = b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"word"}}\n\n'
END = b'data: {"type":"message_delta","usage":{"output_tokens":7}}\n\n'


@pytest.mark.parametrize(
    ("outcome", "found", "received", "kind", "least"),
    [
        ("connection_error", None, None, "exact", 0),
        ("connection_error", heard(sent=False), None, "exact", 0),
        ("connection_error", heard(), None, "whole", 10_000_000),
        ("connection_error", heard(), BILLED, "whole", 10_000_000),
        ("cancelled", heard(sent=False), None, "input", 1_000),
        ("client_disconnected", heard(), BILLED, "input", 1_000),
        ("client_disconnected", heard(START, TEXT), BILLED, "seen", 900 + 4 * 5_000),
        ("ok", heard(START, TEXT, END), BILLED, "exact", BILLED.billed),
    ],
)
def test_what_must_be_charged(
    outcome: str, found: dict[str, Any] | None, received: Received | None, kind: str, least: int
) -> None:
    """By what reached the API and what came back."""
    assert must_be("plain", outcome, HOLD, found, received)[:2] == (kind, least)


def test_what_is_left_to_think_is_the_whole() -> None:
    """Where a model thinks unseen, what passed bounds nothing."""
    assert must_be("thinking", "cancelled", HOLD, heard(START, TEXT), BILLED) == ("whole", 10_000_000, 10_000_000)
