"""A bounded memory of what was seen lately, and the keyed hashes that requests are known by in it."""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import Generic, TypeVar

from cachetools import LRUCache

K = TypeVar("K")
V = TypeVar("V")


def keyed(secret: bytes, purpose: bytes) -> blake2b:
    """A hash (16 bytes) that tells nothing of a text to one who does not have `secret`. Copied for each text.

    `purpose` (at most 16 bytes) keeps apart what is made with the same secret.
    """
    # Hashed first, because blake2b takes a key of at most 64 bytes. Copying a keyed state is cheaper than keying.
    return blake2b(key=blake2b(secret, digest_size=32).digest(), digest_size=16, person=purpose)


class Recent(Generic[K, V]):
    """What was seen lately: bounded, and safe from any thread."""

    def __init__(self, most: int) -> None:
        self._kept: LRUCache[K, V] = LRUCache(most)
        self._lock = threading.Lock()

    def find(self, key: K) -> V | None:
        """What was kept for `key`, if it still is."""
        with self._lock:
            return self._kept.get(key)

    def keep(self, key: K, value: V) -> None:
        """Keep `value`, and drop what was used longest ago if there is no room."""
        with self._lock:
            self._kept[key] = value
