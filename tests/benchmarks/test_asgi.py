"""The benchmark of the middleware: what it measures is what it says."""

from __future__ import annotations

import pytest

from benchmarks.asgi import CHUNKS, Column, Memory, block, columns

COLUMNS = columns()


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
async def test_every_column_answers(column: Column, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each app answers an empty request of both frameworks, and streams all of its events."""
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    monkeypatch.setattr("benchmarks.asgi._send", send)
    await column.request()
    await column.fast()
    assert [message["status"] for message in sent if message["type"] == "http.response.start"] == [200, 200]
    sent.clear()
    await column.stream()
    assert sum(message["type"] == "http.response.body" and bool(message["body"]) for message in sent) == CHUNKS


async def test_what_uvicorn_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through uvicorn all events are written, too, and a block tells a time."""
    written: list[bytes] = []
    write = Memory.write

    def kept(memory: Memory, data: bytes) -> None:
        written.append(bytes(data))
        write(memory, data)

    monkeypatch.setattr(Memory, "write", kept)
    assert await block(COLUMNS[0], "served", 1) > 0
    assert b"".join(written).count(b"event: content_block_delta") == CHUNKS
