"""The event stream of AWS, as botocore and the SDK read it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.lib.bedrock._stream_decoder import AWSEventStreamDecoder

from tests.needs import need
from tierline.testing._eventstream import encode

need("botocore")


def decoded(data: bytes) -> list[tuple[str | None, Any]]:
    """What the SDK makes of a stream: it checks the checksums."""
    return [(event.event, json.loads(event.data)) for event in AWSEventStreamDecoder().iter_bytes(iter([data]))]


def test_events_arrive() -> None:
    """Events come back as they went in, their text in any script."""
    events = [{"type": "ping"}, {"type": "content_block_delta", "index": 0, "delta": {"text": "ü\n漢"}}]
    assert decoded(b"".join(encode(event) for event in events)) == [(event["type"], event) for event in events]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("overloaded_error", "serviceUnavailableException"),
        ("rate_limit_error", "throttlingException"),
        ("api_error", "internalServerException"),
    ],
)
def test_errors_are_exceptions(kind: str, name: str) -> None:
    """An error is an exception frame, with the name that Bedrock has for it."""
    ((event, data),) = decoded(encode({"type": "error", "error": {"type": kind, "message": "no"}}))
    assert (event, data["error"]) == ("error", {"type": name, "message": "no"})
