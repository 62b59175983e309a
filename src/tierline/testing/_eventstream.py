"""The event stream of AWS: events as binary frames, as Amazon Bedrock streams them."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPE: Final = "application/vnd.amazon.eventstream"
_STRING: Final = 7
"""The type of a header whose value is text."""
_EXCEPTIONS: Final = {"overloaded_error": "serviceUnavailableException", "rate_limit_error": "throttlingException"}


def encode(data: Mapping[str, Any]) -> bytes:
    """One event of the stream; an `error` is an exception, as Bedrock names it."""
    if data["type"] == "error":
        error = data["error"]
        kind = _EXCEPTIONS.get(error["type"], "internalServerException")
        return _frame({":exception-type": kind, ":message-type": "exception"}, {"message": error["message"]})
    event = json.dumps(data, separators=(",", ":")).encode()
    return _frame(
        {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"},
        {"bytes": base64.b64encode(event).decode(), "p": "abcdefgh"},
    )


def _frame(headers: Mapping[str, str], payload: Mapping[str, str]) -> bytes:
    head = b"".join(_header(name.encode(), value.encode()) for name, value in headers.items())
    body = json.dumps(payload, separators=(",", ":")).encode()
    prelude = struct.pack(">II", len(head) + len(body) + 16, len(head))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    return prelude + head + body + struct.pack(">I", zlib.crc32(prelude + head + body))


def _header(name: bytes, value: bytes) -> bytes:
    return struct.pack("B", len(name)) + name + struct.pack(">BH", _STRING, len(value)) + value
