"""A bounded memory of what was seen lately."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from cachetools import LRUCache

K = TypeVar("K")
V = TypeVar("V")


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
