"""Bytes that are no good request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from tierline.testing._problem import Problem
from tierline.testing._request import MAX_BYTES, decode, path_of, shown

if TYPE_CHECKING:
    from tierline.testing import FakeClaude


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"\xff",
        b'{"a": "\\ud800"}',
        b'{"\\udc00": 1}',
        b"[" * 100_000,
    ],
)
def test_no_json_object(raw: bytes) -> None:
    """Whatever is no JSON object in valid Unicode is a 400."""
    with pytest.raises(Problem) as caught:
        decode(raw)
    assert caught.value.status == 400


def test_surrogate_pairs_are_fine() -> None:
    """Two halves make a character."""
    assert decode(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


def test_keys_are_not_kept() -> None:
    """Headers that authenticate are redacted, whatever their case."""
    headers = [(b"X-Api-Key", b"secret"), (b"Authorization", b"Bearer secret"), (b"Accept", b"*/*")]
    assert shown(headers) == {"x-api-key": "[redacted]", "authorization": "[redacted]", "accept": "*/*"}


@pytest.mark.parametrize(
    ("path", "root", "found"), [("/v1/x", "", "/v1/x"), ("/a/v1/x", "/a", "/v1/x"), ("/v1/x", "/a", "/v1/x")]
)
def test_mounted_paths(path: str, root: str, found: str) -> None:
    """The mount point is taken off, where it is there."""
    assert path_of({"path": path, "root_path": root}) == found


async def test_too_large_over_a_socket(fake: FakeClaude) -> None:
    """A body over 32 MB is read to its end and answered with a 413."""
    headers = {"x-api-key": fake.api_key, "anthropic-version": "2023-06-01"}
    async with fake.serve() as url, httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(f"{url}/v1/messages", content=b" " * (MAX_BYTES + 1), headers=headers)
        broken = await http.post(f"{url}/v1/messages", content=b"{", headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")
    assert (broken.status_code, broken.json()["error"]["type"]) == (400, "invalid_request_error")
    assert [entry.body for entry in fake.requests] == [None, None]
