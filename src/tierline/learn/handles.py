"""Handles: short texts that let whoever saw an answer grade it later, and tell nothing and allow nothing else.

A handle carries all that a grade needs, so that no process has to remember a call that is perhaps never graded: it is
good in every worker and after a restart. It is encrypted and signed in one (a synthetic IV, as in RFC 5297): the
signature, HMAC-SHA256 over the whole content, is also what the key stream begins with, which is SHAKE-256. So neither
the names of routes and tiers nor features of the text can be read out of it, and no bit of it can be changed.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, urlsafe_b64encode
from hashlib import blake2b, shake_256
from typing import Final, NamedTuple

_VERSION: Final = 1
_TAG: Final = 16
"""Bytes of the signature: to guess one takes 2^128 tries."""
_PURPOSES: Final = (b"tierline sign", b"tierline hide")
_LONGEST: Final = 4_000
"""Characters: nothing longer is even decoded."""


class Grip(NamedTuple):
    """What a handle says: which answer it is of, and whose.

    `account` is a digest (hexadecimal), `features` are as in `Evidence`, `until` is in seconds since the epoch.
    """

    id: str
    route: str
    tier: str
    account: str
    features: bytes
    until: int


class Handles:
    """Makes handles with a secret, and reads them again. Anything else that it is given to read is None."""

    def __init__(self, secret: bytes) -> None:
        keys = [blake2b(key=blake2b(secret, digest_size=32).digest(), person=person) for person in _PURPOSES]
        self._signs, self._hides = (key.digest() for key in keys)

    def make(self, grip: Grip) -> str:
        """The handle of an answer: always the same one."""
        texts = [grip.id.encode(), grip.route.encode(), grip.tier.encode(), bytes.fromhex(grip.account)]
        lengths = [len(text).to_bytes(2, "big") for text in texts]
        head = _VERSION.to_bytes(1, "big") + grip.until.to_bytes(5, "big")
        content = b"".join((head, *lengths, *texts, grip.features))
        tag = self._tag(content)
        return urlsafe_b64encode(tag + self._hidden(tag, content)).rstrip(b"=").decode()

    def read(self, handle: object, now: float) -> Grip | None:
        """What a handle says; None for one that is not of this secret, was changed, or is older than it may be."""
        if not isinstance(handle, str) or not 0 < len(handle) <= _LONGEST:
            return None
        try:
            sealed = b64decode(handle + "=" * (-len(handle) % 4), altchars=b"-_", validate=True)
        except ValueError:
            return None
        tag, hidden = sealed[:_TAG], sealed[_TAG:]
        content = self._hidden(tag, hidden)
        if not hmac.compare_digest(tag, self._tag(content)) or content[0] != _VERSION:
            return None
        until = int.from_bytes(content[1:6], "big")
        if until <= now:
            return None
        # Signed by us: from here on it is what `make` wrote.
        place, texts = 14, []
        for at in range(6, 14, 2):
            end = place + int.from_bytes(content[at : at + 2], "big")
            texts.append(content[place:end])
            place = end
        name, route, tier = (text.decode() for text in texts[:3])
        return Grip(name, route, tier, texts[3].hex(), content[place:], until)

    def _tag(self, content: bytes) -> bytes:
        return hmac.digest(self._signs, content, "sha256")[:_TAG]

    def _hidden(self, tag: bytes, content: bytes) -> bytes:
        """The content, hidden; and what was hidden, as it was."""
        stream = shake_256(self._hides + tag).digest(len(content))
        return (int.from_bytes(content, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(content), "big")
