"""What is kept of a request instead of its text: at most some 300 bytes that the model learns from."""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.features import VERSION, WIDTH
from tierline.learn.prior import NEEDS

if TYPE_CHECKING:
    from collections.abc import Iterable

BUCKETS: Final = 1 << 14
"""How many buckets words are hashed into, and pairs of words. On benchmarks, fewer cost quality and more gain none."""
MOST_WORDS: Final = 128
"""Buckets that are kept of a text; of more, this is the size of the sample. Most prompts of benchmarks have fewer."""
STEP: Final = 0.01
"""The numbers of a shape are kept in steps of this size, from 0 to 255 of them."""

_STEPS: Final = round(1 / STEP)
_MARK: Final = f"1.{VERSION};".encode()
"""Says how the bytes are to be read. Those with another mark are of another version, and say nothing."""


class Sketch(NamedTuple):
    """A request as numbers: how its text looks, and the buckets that its words fall into.

    Neither the order of words nor how often they come is kept, several words share a bucket, and of a long text there
    is a sample. It is no secret, though: who guesses a text can see whether it fits.
    """

    shape: bytes
    """The numbers of `tierline.features.dense`, in steps of STEP."""
    buckets: array[int]
    """Sorted, each once."""
    need: int
    """How much the frozen weights think that a better tier is needed, from 0 to NEEDS."""


BLANK: Final = Sketch(bytes(WIDTH), array("H"), round(NEEDS * 0.14))
"""A request of which nothing is known. The need is the mean of benchmark prompts."""


def sketch(numbers: Iterable[float], buckets: Iterable[int], need: float) -> Sketch:
    """What is kept of a request: of its `dense`, its `hashed`, and its need (0 to 1). Equal in every process."""
    kept = sorted({bucket % BUCKETS for bucket in buckets})
    if len(kept) > MOST_WORDS:
        # The same sample of the same words in every text, so that texts stay comparable.
        kept = sorted(sorted(kept, key=_shuffled)[:MOST_WORDS])
    # None is below 0.
    shape = bytes([step if (step := int(number * _STEPS + 0.5)) < 256 else 255 for number in numbers])  # noqa: PLR2004
    return Sketch(shape, array("H", kept), min(max(round(need * NEEDS), 0), NEEDS))


def pack(kept: Sketch) -> bytes:
    """A sketch as bytes."""
    return b"".join((_MARK, bytes((kept.need,)), kept.shape, _little(kept.buckets).tobytes()))


def unpack(features: bytes) -> Sketch | None:
    """The sketch that was packed. None where another version wrote it, or it is no sketch at all."""
    start = len(_MARK)
    words = start + 1 + WIDTH
    if not features.startswith(_MARK) or len(features) < words or (len(features) - words) % 2:
        return None
    packed = array("H")
    packed.frombytes(features[words:])
    buckets = _little(packed)
    if len(buckets) > MOST_WORDS or (buckets and max(buckets) >= BUCKETS):
        return None
    return Sketch(features[start + 1 : words], buckets, features[start])


def _little(numbers: array[int]) -> array[int]:
    """The numbers, in the order of bytes that is stored."""
    if sys.byteorder == "big":
        numbers = array("H", numbers)
        numbers.byteswap()
    return numbers


def _shuffled(bucket: int) -> int:
    # An odd multiplier leaves no two buckets at the same place.
    return bucket * 40_503 % 65_536
