"""Trained numbers: how they are kept in a file, and how a text is weighed with them.

A file is one line of JSON, which says what is in it, and after it, compressed, one table for each head: a signed byte
for each bucket of `tierline.features.hashed`, and of `begun` where `about["beginnings"]` has sizes. A head is a linear
function: what its table has for the buckets of a text, over the square root of how many there are, and a number for
each of `dense`.
"""

from __future__ import annotations

import json
import zlib
from array import array
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from math import isfinite, sqrt
from operator import mul
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.errors import ConfigurationError
from tierline.features import BUCKETS, VERSION, WIDTH, begun, dense, hashed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tierline.features import Reading

_FORMAT: Final = 1
_MOST: Final = 127
_ZERO: Final = 128
_RAISED: Final = bytes((code + _ZERO) % 256 for code in range(256))
"""A signed byte as one above 0: `_ZERO` more."""
_LANE: Final = 3
_LANE_MASK: Final = (1 << 8 * _LANE) - 1
"""Bytes of a lane: they hold the sum of many times more buckets than a text can have."""
_MOST_BYTES: Final = 64 << 20
"""Of the tables of one file: a guard against a file that is none of ours."""


@dataclass(frozen=True, slots=True)
class Head:
    """A linear function of what was read of a text."""

    table: array[int]
    """A signed byte for each bucket, in units of `unit`."""
    unit: float
    numbers: tuple[float, ...]
    """For each of `dense`."""
    bias: float

    @classmethod
    def of(cls, buckets: Mapping[int, float], numbers: Iterable[float], bias: float) -> Head:
        """A head with these weights, those of buckets rounded to a 127th of the largest."""
        largest = max(map(abs, buckets.values()), default=0.0)
        unit = largest / _MOST or 1.0
        table = array("b", bytes(BUCKETS))
        for bucket, weight in buckets.items():
            table[bucket] = round(weight / unit)
        return cls(table, _short(unit), tuple(map(_short, numbers)), _short(bias))


class Weighed(NamedTuple):
    """What the heads make of a text, and what they were given."""

    scores: dict[str, float]
    numbers: tuple[float, ...]
    """`dense` of it."""
    buckets: set[int]
    """`hashed` of it."""
    read: int
    """How many buckets the heads were given: these, and those of `begun`."""


@dataclass(frozen=True)
class Weights:
    """Heads by name, and in `about` all else that there is to know of them: kinds, labels, calibration.

    `kind` says how the heads are to be taken together; see `LocalClassifier`.
    """

    kind: str
    heads: Mapping[str, Head]
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def version(self) -> str:
        """A short digest of all of it: other weights have another. Nothing is compressed for it: that takes 0.3 s."""
        digest = blake2b(self._header(), digest_size=8)
        for head in self.heads.values():
            digest.update(head.table)
        return digest.hexdigest()

    @cached_property
    def _lanes(self) -> list[int]:
        """For each bucket, what the tables of all heads have there, each in a lane of its own and above 0.

        About 5 MB, made at the first use in some 20 ms.
        """
        width = _LANE * len(self.heads)
        lanes = bytearray(width * BUCKETS)
        for at, head in enumerate(self.heads.values()):
            lanes[_LANE * at :: width] = head.table.tobytes().translate(_RAISED)
        return [int.from_bytes(lanes[at : at + width], "little") for at in range(0, len(lanes), width)]

    @cached_property
    def _beginnings(self) -> tuple[int, ...]:
        """The sizes of the beginnings of words that the heads are given."""
        return tuple(self.about.get("beginnings", ()))

    def prepare(self) -> None:
        """Make at once what is otherwise made at the first use."""
        _ = self.version, self._lanes

    def _within(self, numbers: tuple[float, ...]) -> Iterable[float]:
        """The numbers, none beyond what the weights were trained on: a line says nothing of what lies past its end."""
        if "lowest" not in self.about:
            return numbers
        ends = zip(numbers, self.about["lowest"], self.about["highest"], strict=True)
        return [low if number < low else min(number, high) for number, low, high in ends]

    def weigh(self, reading: Reading) -> Weighed:
        """What the heads make of a text."""
        numbers = dense(reading)
        buckets = hashed(reading)
        read = buckets | begun(reading, self._beginnings) if self._beginnings else buckets
        # All heads are added up at once, as one long number with a lane for each: a look-up for each head and bucket
        # would take longer than all else together.
        total = sum(map(self._lanes.__getitem__, read))
        zero = _ZERO * len(read)
        over = sqrt(len(read)) or 1.0
        within = self._within(numbers)
        scores: dict[str, float] = {}
        for at, (name, head) in enumerate(self.heads.items()):
            words = (total >> 8 * _LANE * at & _LANE_MASK) - zero
            scores[name] = head.bias + head.unit * words / over + sum(map(mul, head.numbers, within))
        return Weighed(scores, numbers, buckets, len(read))

    def pack(self) -> bytes:
        """As the bytes of a file: the same weights give the same bytes."""
        tables = b"".join(head.table.tobytes() for head in self.heads.values())
        return self._header() + b"\n" + zlib.compress(tables, 9)

    def _header(self) -> bytes:
        """All but the tables."""
        header = {
            "format": _FORMAT,
            "features": VERSION,
            "kind": self.kind,
            "heads": [
                {"name": name, "unit": head.unit, "bias": head.bias, "numbers": head.numbers}
                for name, head in self.heads.items()
            ],
            "about": self.about,
        }
        return json.dumps(header).encode()

    @classmethod
    def load(cls, path: Path) -> Weights:
        """The weights of a file. ConfigurationError for one that cannot be read, or was made by another version."""
        try:
            line, _, packed = path.read_bytes().partition(b"\n")
            header = json.loads(line)
            if (header["format"], header["features"]) != (_FORMAT, VERSION):
                raise ConfigurationError(
                    f"the weights in {path} were trained for other features than this version of Tierline reads; "
                    "train them again"
                )
            tables = zlib.decompressobj().decompress(packed, _MOST_BYTES)
            heads = {
                each["name"]: _head(each, tables[at * BUCKETS : (at + 1) * BUCKETS])
                for at, each in enumerate(header["heads"])
            }
            return cls(header["kind"], heads, header["about"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError, zlib.error) as error:
            raise ConfigurationError(f"the weights in {path} cannot be read: {type(error).__name__}") from error


def _head(each: Mapping[str, Any], table: bytes) -> Head:
    numbers = tuple(map(float, each["numbers"]))
    unit, bias = float(each["unit"]), float(each["bias"])
    if len(table) != BUCKETS or len(numbers) != WIDTH or not all(map(isfinite, (unit, bias, *numbers))):
        raise ValueError("a head is not whole")
    return Head(array("b", table), unit, numbers, bias)


def _short(value: float) -> float:
    """Six digits: what comes after differs between machines, and means nothing."""
    return float(f"{value:.6g}")
