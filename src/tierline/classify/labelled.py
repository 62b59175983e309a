"""What came of texts of an app's own that were labelled: see `Router.classify_many`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from tierline.values import usd

Origin = Literal["claude", "cache", "file"]

BATCH: Final = 20
"""Texts of one request, where the app does not say."""
CONCURRENCY: Final = 5
"""Requests at a time, where it does not."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """What came of one text.

    - `label` is one of the labels; None where there is none, and `why` then says why
    - `confidence` is from 0 to 1
    - `source`: Claude was asked now (`claude`), it was in the cache or the same text stood before (`cache`), or in the
      file of an earlier run (`file`); None without a label
    - `cost` is the text's part of the requests that asked for it, in nano-USD, with or without a label
    """

    label: str | None
    confidence: float = 0.0
    source: Origin | None = None
    why: str = ""
    cost: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: texts that are done with, of `total`; those of them `without` a label; nano-USD spent."""

    done: int
    total: int
    without: int
    cost: int


@dataclass(frozen=True, slots=True)
class Labels:
    """What came of many texts: `items` in their order. `str(…)` is a line for people.

    - `cost` is what the run cost, in nano-USD: the sum of its items' costs
    - `requests` is how many were made, failed ones included
    - `stopped` says why the run ended before its end; empty where it did not. What it had is kept
    """

    items: tuple[Labelled, ...]
    cost: int = 0
    requests: int = 0
    stopped: str = ""

    @property
    def labels(self) -> list[str | None]:
        """The labels alone, in the order of the texts."""
        return [each.label for each in self.items]

    @property
    def asked(self) -> int:
        """Texts whose label Claude was asked for in this run."""
        return self._from("claude")

    @property
    def cached(self) -> int:
        """Texts whose label came from the cache, or that stood before in the same run."""
        return self._from("cache")

    @property
    def resumed(self) -> int:
        """Texts whose label stood in the file."""
        return self._from("file")

    @property
    def without(self) -> int:
        """Texts without a label."""
        return self._from(None)

    def _from(self, source: Origin | None) -> int:
        return sum(each.source == source for each in self.items)

    def __str__(self) -> str:
        line = (
            f"{len(self.items):,} texts: {self.asked:,} asked, {self.cached:,} cached, {self.resumed:,} resumed, "
            f"{self.without:,} without a label; {usd(self.cost)} in {self.requests:,} requests"
        )
        return f"{line}; stopped: {self.stopped}" if self.stopped else line
