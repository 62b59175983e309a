"""Verdicts as they are stored: under keyed digests, and sealed, so that what was changed or cut off is none."""

from __future__ import annotations

import json
from hmac import compare_digest
from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.classify.cache import material
from tierline.recent import keyed
from tierline.values import Classification

if TYPE_CHECKING:
    from tierline.classify.cache import About

VERSION: Final = "1"
"""Of what is sealed. Values of another version are none."""
_KEYS: Final = b"tierline stored"
_SEALS: Final = b"tierline sealed"
_LONGEST_LABEL: Final = 200


class Unsealed(NamedTuple):
    """A stored verdict: what asking for it cost (nano-USD) is in it, and `at` is when that was, since the epoch."""

    verdict: Classification
    at: float


class Sealing:
    """Keys and seals of one secret, for verdicts of one model."""

    def __init__(self, secret: bytes, model: str) -> None:
        self.secret = secret
        self._keys, self._seals = keyed(secret, _KEYS), keyed(secret, _SEALS)
        self._keys.update(f"{VERSION} {len(model)} {model}\0".encode("utf-8", "surrogatepass"))

    def key(self, about: About) -> str:
        """What a verdict is found by: 32 hexadecimal digits, the same in every process that has the secret."""
        digest = self._keys.copy()
        for part in material(*about):
            digest.update(part)
        return digest.hexdigest()

    def seal(self, key: str, verdict: Classification, at: float) -> str | None:
        """A verdict, as text; None for what cannot be kept.

        What a classifier says of its reasons may quote a prompt, and is left out.
        """
        label, confidence, cost = verdict.label, verdict.confidence, verdict.cost
        if (
            not isinstance(label, str)
            or len(label) > _LONGEST_LABEL
            or not 0 <= confidence <= 1
            or type(cost) is not int
        ):
            return None
        content = json.dumps([label, float(confidence), cost, at], separators=(",", ":"))
        return f"{VERSION}.{self._signed(key, content)}.{content}"

    def unseal(self, key: str, value: str) -> Unsealed | None:
        """What was sealed under this key; None for anything else."""
        version, _, rest = value.partition(".")
        signed, _, content = rest.partition(".")
        if version != VERSION or not compare_digest(
            signed.encode("utf-8", "surrogatepass"), self._signed(key, content).encode()
        ):
            return None
        label, confidence, cost, at = json.loads(content)
        return Unsealed(Classification(label, confidence, "cache", cost), at) if isfinite(at) else None

    def _signed(self, key: str, content: str) -> str:
        digest = self._seals.copy()
        digest.update(f"{VERSION} {key} {content}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()
