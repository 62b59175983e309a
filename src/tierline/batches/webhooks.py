"""Signed webhooks, as Standard Webhooks 1.0.0 has them: made for answers that were deferred, and checked by receivers.

A request is signed with HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}`. The id is the same however often an
answer is sent, the timestamp is that of the attempt.
"""

from __future__ import annotations

import hmac
import json
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tierline.errors import ConfigurationError, TierlineError
from tierline.limits import retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

TOLERANCE: Final = 300.0
"""Seconds that the clocks of sender and receiver may be apart, with the way in between."""
_PREFIX: Final = "whsec_"
_SHORTEST, _LONGEST = 24, 64
"""Bytes of a secret."""
_TIMEOUT: Final = 20.0
_GONE: Final = 410


class WebhookSignatureError(TierlineError):
    """What came in is not signed as it must be, or not now. As HTTP: 401. It says no more than that to who sent it."""

    status = 401
    title = "The webhook is not signed as it must be"


@dataclass(frozen=True)
class Webhook:
    """Where answers are sent to, and the secrets that they are signed with.

    - `url`: the app author's own, https, or http of this machine. One that a client may choose lets clients make this
      server send requests into its own network: never take it from a request
    - `secret`: `"whsec_…"`, base64 of 24 to 64 random bytes; or several, while one takes the place of another: each
      signs. `new_secret()` makes one

    ConfigurationError for what cannot be.
    """

    url: str = field(repr=False)
    secret: str | tuple[str, ...] = field(repr=False)
    _keys: tuple[bytes, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_url(self.url)
        object.__setattr__(self, "_keys", _keys_of(self.secret))

    async def send(self, id: str, body: bytes, now: float) -> Sent:  # noqa: A002  (as the header is called)
        """Send one message once. Redirects are not followed, and nothing of the answer is read but its head."""
        import httpx2  # noqa: PLC0415  (only for who has webhooks; the SDK brings it)

        headers = {"content-type": "application/json", **signed(self._keys, id, int(now), body)}
        try:
            async with httpx2.AsyncClient(timeout=_TIMEOUT, follow_redirects=False) as client:
                request = client.build_request("POST", self.url, content=body, headers=headers)

                async def sending(*_: object) -> None:
                    # The client logs each request at INFO when it is answered. From here on nothing else needs the URL.
                    request.url = request.url.copy_with(raw_path=b"/", userinfo=b"", fragment=None)

                request.extensions["trace"] = sending
                answer = await client.send(request, stream=True)
                try:
                    good = 200 <= answer.status_code < 300  # noqa: PLR2004
                    wait = retry_after(answer.headers)
                    return Sent(good, f"{answer.status_code}", gone=answer.status_code == _GONE, wait=wait)
                finally:
                    await answer.aclose()
        except Exception as error:  # noqa: BLE001  (whatever it is, it is tried again, and its text may have the URL in it)
            return Sent(good=False, said=type(error).__name__)


@dataclass(frozen=True, slots=True)
class Sent:
    """How sending went. `gone`: whoever was there wants no more; `wait`: seconds that it asks for."""

    good: bool
    said: str
    gone: bool = False
    wait: float | None = None


def new_secret() -> str:
    """A secret that nobody else has."""
    import secrets  # noqa: PLC0415  (once in the life of a webhook)

    return _PREFIX + b64encode(secrets.token_bytes(32)).decode()


def signed(keys: tuple[bytes, ...], id: str, timestamp: int, body: bytes) -> dict[str, str]:  # noqa: A002
    """The headers of a message."""
    signatures = (b64encode(_signature(key, id, str(timestamp), body)).decode() for key in keys)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{each}" for each in signatures),
    }


def verify(
    secret: str | tuple[str, ...],
    headers: Mapping[str, str],
    body: bytes,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> dict[str, Any]:
    """What a webhook says, once it is known who sent it: for whoever receives one.

    `headers` are those of the request, `body` its bytes, as they came in. `now` is in seconds since the epoch. Who has
    handled a `webhook-id` before, does nothing: the same answer may come twice.

    WebhookSignatureError where a header is missing, no signature is right, or the message is more than `tolerance`
    seconds old or ahead. ConfigurationError for what is no secret.
    """
    keys = _keys_of(secret)
    found = {name.lower(): value for name, value in headers.items()}
    try:
        id_, stamp, given = (found[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as error:
        raise WebhookSignatureError(f"there is no header {error.args[0]}") from None
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 15):  # noqa: PLR2004  (no date is that late)
        raise WebhookSignatureError("webhook-timestamp is no number of seconds")
    if abs((time.time() if now is None else now) - int(stamp)) > tolerance:
        raise WebhookSignatureError(f"webhook-timestamp is more than {tolerance:g} s off")
    right = [_signature(key, id_, stamp, body) for key in keys]
    good = False
    for version, _, text in (each.partition(",") for each in given.split(" ")):
        if version == "v1" and (offered := _decoded(text)) is not None:
            # All are compared, so that the time tells nothing.
            for each in right:
                good |= hmac.compare_digest(offered, each)
    if not good:
        raise WebhookSignatureError("no signature of webhook-signature is right")
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise WebhookSignatureError("the body is no JSON object")
    return said


def _signature(key: bytes, id_: str, stamp: str, body: bytes) -> bytes:
    return hmac.digest(key, f"{id_}.{stamp}.".encode() + body, sha256)


def _decoded(text: str) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return None


def _keys_of(secret: object) -> tuple[bytes, ...]:
    texts = (secret,) if isinstance(secret, str) else secret
    if isinstance(texts, (tuple, list)) and texts:
        keys = [_decoded(text.removeprefix(_PREFIX)) if isinstance(text, str) else None for text in texts]
        good = [key for key in keys if key is not None and _SHORTEST <= len(key) <= _LONGEST]
        if len(good) == len(texts):
            return tuple(good)
    # What it is must not be told.
    raise ConfigurationError(
        f'a secret of a webhook is "{_PREFIX}…" with base64 of {_SHORTEST} to {_LONGEST} random bytes: '
        "new_secret() makes one"
    )


def _check_url(url: object) -> None:
    text = url if isinstance(url, str) else ""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    # urlsplit passes over the end of a line that was read with it from a file; whoever sends does not.
    if (
        not text.isprintable()
        or not host
        or not (parts.scheme == "https" or (parts.scheme == "http" and _is_here(host)))
    ):
        # The whole of it may have a token in it.
        raise ConfigurationError("Webhook(url=…): write https://…, or http:// for this machine alone")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
