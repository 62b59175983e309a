"""From bytes to a request that the API would look at: its key, its size, its JSON."""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING, Any, Final, NoReturn

import anyio

from tierline.testing._problem import Problem, invalid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import Receive, Send

MAX_BYTES: Final = 32_000_000
"""A larger body is a 413."""
_SIGNED: Final = b"AWS4-HMAC-SHA256 Credential="
SECRETS: Final = ("x-api-key", "authorization", "cookie", "proxy-authorization")


class Gone(Exception):  # noqa: N818 - an event, not an error
    """The client left while it was still sending."""


def shown(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers as they may be kept: names in lower case, keys redacted."""
    named = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers)
    return {name: "[redacted]" if name in SECRETS else value for name, value in named}


def check_headers(headers: list[tuple[bytes, bytes]], api_key: str, *, versioned: bool = True) -> None:
    """Raise a 401 for a wrong or missing key, a 400 without `anthropic-version` where the header has to tell it.

    Of a request that is signed for AWS, the access key is looked at and not the signature.
    """
    sent = {name.lower(): value for name, value in headers}
    key, bearer = sent.get(b"x-api-key"), sent.get(b"authorization")
    if key is None and bearer is None:
        raise Problem(401, "x-api-key header is required")
    good = api_key.encode()
    bearer_key = (bearer or b"").removeprefix(b"Bearer ").removeprefix(_SIGNED).partition(b"/")[0]
    if not any(hmac.compare_digest(value, good) for value in (key, bearer_key) if value):
        raise Problem(401, "invalid x-api-key" if bearer is None else "invalid bearer token")
    if versioned and b"anthropic-version" not in sent:
        raise invalid("anthropic-version: header is required")


async def read_body(receive: Receive, most: int = MAX_BYTES) -> bytes:
    """The whole body. Raises Gone for a client that leaves, a 413 past `most` bytes."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > most:
            chunks.clear()  # read on, or the client would meet a closed connection instead of the answer
        if not message.get("more_body", False):
            break
    if size > most:
        raise Problem(413, "Request exceeds the maximum size")
    return b"".join(chunks)


def decode(raw: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises a 400 for anything else: NaN, lone surrogates and bottomless nesting too."""
    try:
        body = json.loads(raw, parse_constant=_no_constant)
        if b"\\u" in raw:  # the only way in for a lone surrogate
            json.dumps(body, ensure_ascii=False).encode()
    except RecursionError:
        raise invalid("The request body is nested too deeply") from None
    except ValueError:  # bad JSON, bad UTF-8 and lone surrogates all are
        raise invalid("The request body is not valid JSON") from None
    if not isinstance(body, dict):
        raise invalid("Input should be a valid dictionary")
    return body


def query_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """The query string as a mapping; the last of a repeated name counts."""
    from urllib.parse import parse_qsl  # noqa: PLC0415

    return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))


def path_of(scope: Mapping[str, Any]) -> str:
    """The path below the mount point, if there is one."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


async def until_gone(receive: Receive, work: Callable[[], Awaitable[None]]) -> bool:
    """Do the work unless the client leaves before it is done; say whether it was done."""
    done = False
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            await work()
            done = True
        except OSError:
            pass  # how a server of ASGI 2.4 says that the client has left
        group.cancel_scope.cancel()
    return done


async def lifespan(receive: Receive, send: Send) -> None:
    """Start up and shut down with the server: there is nothing to do."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
