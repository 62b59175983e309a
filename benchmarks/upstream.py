"""A local Messages API with canned answers, in a process of its own, so that its work is in nobody's figures.

    with running() as url: ...

It answers every POST: with a stream where the body asks for one, with a verdict where it allows 32 tokens of output
(as a classifier's question does), else with a short message. It ends when whoever started it goes away.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAM_EVENTS: Final = 1_000
PROSE: Final = (
    "A noise that comes only under load is most often the chain, the bottom bracket or a loose crank. Turn the pedals "
    "by hand: if it stays quiet, look at what bends when you push. Tighten the crank bolts first, for it costs nothing."
)
_USAGE: Final[dict[str, Any]] = {
    "input_tokens": 260,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 64,
    "service_tier": "standard",
    "inference_geo": "global",
}
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAMS: Final = re.compile(rb'"stream": ?true')
_ASKS: Final = re.compile(rb'"max_tokens": ?32[,}]')


def _message(text: str | None) -> dict[str, Any]:
    return {
        "id": "msg_01Benchmark",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": [] if text is None else [{"type": "text", "text": text}],
        "stop_reason": None if text is None else "end_turn",
        "stop_sequence": None,
        "usage": _USAGE,
    }


def _whole(text: str) -> bytes:
    body = json.dumps(_message(text)).encode()
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_1\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _stream() -> bytes:
    """Each event in an HTTP chunk of its own, as the API sends them: a reader meets every one by itself."""
    words = PROSE.split()
    texts = [f" {words[n % len(words)]}" for n in range(STREAM_EVENTS - 5)]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": _message(None)},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in texts),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": len(texts)},
        },
        {"type": "message_stop"},
    ]
    frames = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_1\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return head + b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames) + b"0\r\n\r\n"


_ANSWER: Final = _whole(PROSE)
_VERDICT: Final = _whole('{"label": "simple", "confidence": 0.95}')
_EVENTS: Final = _stream()


def answer_to(request: bytes | bytearray) -> bytes:
    """The whole HTTP response to a request, or to its body."""
    # What the SDK adds to `messages` stands at one end of the body or the other.
    ends = request if len(request) < 8192 else request[:4096] + request[-4096:]
    return _EVENTS if _STREAMS.search(ends) else _VERDICT if _ASKS.search(ends) else _ANSWER


class _Connection(asyncio.Protocol):
    """Answers one request after the other; what they ask for is only looked at where the answer depends on it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.buffer = bytearray()
        self.length = -1  # of the whole request, once its head is there

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self._answered():
            pass

    def _answered(self) -> bool:
        if self.length < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return False
            found = _LENGTH.search(self.buffer, 0, end)
            self.length = end + 4 + (int(found[1]) if found else 0)
        if len(self.buffer) < self.length:
            return False
        self.transport.write(answer_to(self.buffer[: self.length]))
        del self.buffer[: self.length]
        self.length = -1
        return True


async def serve() -> None:
    """Serve on a free port of the loopback, say which, and stop when stdin ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    orphaned = asyncio.Event()
    # Nobody writes to stdin: it is readable when the other end is closed, however that came about.
    loop.add_reader(sys.stdin.fileno(), orphaned.set)
    await orphaned.wait()


@contextmanager
def running() -> Iterator[str]:
    """The base URL of an upstream that lives as long as the block."""
    command = [sys.executable, "-m", "benchmarks.upstream"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            process.wait(timeout=10)


if __name__ == "__main__":
    asyncio.run(serve())
