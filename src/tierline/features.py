"""What can be read of a request's text, as numbers: cheap, bounded, and the same in every process.

    reading = read(text, tools=2)       # looked at once: cut, split into words
    dense(reading)                      # tuple of WIDTH floats, most of them 0 to 1; NAMES says what each is
    hashed(reading)                     # set of buckets: the words, and each two that follow each other
    begun(reading, (4, 6))              # set of buckets: how words begin

- pure: equal input gives equal output on every machine and in every version of Python (CRC-32, never `hash`)
- total: any text, lone surrogates and an empty one included; never raises
- bounded: at most LOOK characters of a text are looked at, its start and its end

`dense` is what may be stored instead of a text: no text can be read back out of it. `hashed` and `begun` are not, for
whoever guesses a word can look up its bucket.

`LocalClassifier.project` (tierline.classify) gives `dense` together with what its frozen weights say of the text: that
is the better thing to store and to learn from.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from math import log1p
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION: Final = "1"
"""Changes with every change of what the numbers mean: those that were stored before are then of no use."""

LOOK: Final = 3_000
"""Most characters of a text that are looked at: two thirds from its start, one third from its end."""
BUCKETS: Final = 1 << 16
"""How many buckets words are hashed into."""
_CONTEXT: Final = 600
"""Characters of the end of the context that are read with a turn that leans on it."""
_LEANING_WORDS: Final = 4
"""So few words, in the middle of a conversation, say nothing by themselves: "yes", "in French?"."""
_LEANING_OPENED: Final = 120
"""Characters of a turn that leans because of how it opens."""
_LEANING_BACK: Final = 60
"""Characters of a turn that leans because it points back."""


def _set(words: str) -> frozenset[bytes]:
    return frozenset(word.encode() for word in words.split())


_FACT: Final = _set("what which who whom whose when where")
_EXPLAIN: Final = _set("why how explain describe compare discuss analyze analyse")
_MAKE: Final = _set(
    "write create implement build design generate develop make draft compose code produce give list plan propose"
)
_REASON: Final = _set(
    "prove derive solve compute calculate evaluate determine find simplify express let suppose given if such maximum "
    "minimum integer integers value values"
)
_LINK: Final = _set(
    "and also then both additionally furthermore finally next after another respectively plus lastly moreover secondly"
)
_PART: Final = _set(
    "each every per half twice times total percent more less fewer remaining left than how many much altogether average"
)
_PERSON: Final = _set("i my me we our you your m please us can could")
_STORY: Final = _set("he she his her they their him had has was were")
_NOT: Final = _set("not except no never without neither nor least false incorrect")
_BACK: Final = _set("it that this those these them him her one ones above previous same")
"""Words that point back, at what was said before."""
_OPENING: Final = _set(
    "and but also so then or now again instead same continue go ok okay yes no yep yeah nope sure do try more shorter "
    "longer thanks great perfect correct right und aber ja nein mach weiter nochmal auch dann et oui non mais encore "
    "alors vas y sí si pero otra hazlo sigue también vale e sim não mas continua fallo anche sì ma и да нет а но ещё "  # noqa: RUF001
    "еще давай продолжай en nee maar doe och nej men 是 好 对 不 那 还 再 继 は い で 네 응 아 그"
)
"""How a turn opens that goes on from the one before it, in several languages."""

_LOWER: Final = bytes(48 if 48 <= code <= 57 else code + 32 if 65 <= code <= 90 else code for code in range(256))  # noqa: PLR2004
"""Lower case, and 0 for every digit: a number is known by how long it is."""
_CAPITALS: Final = bytes(range(65, 91))
_OWN: Final = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af])")
"""Characters of scripts without spaces: each is a word of its own."""
_WORDS: Final = re.compile(rb"[a-z\x80-\xff]+|0+|[^\sa-z0\x80-\xff]")
_FORMAT: Final = re.compile(
    rb"\b(?:json|yaml|xml|csv|markdown|table|bullet|boxed|(?:one|single) word|yes or no|true or false|only the)"
)
_SHAPES: Final = (
    b"json", b"yaml", b"xml", b"csv", b"markdown", b"table", b"bullet", b"boxed", b" word", b"yes or no",
    b"true or false", b"only the",
)  # fmt: skip
"""One of them is in whatever `_FORMAT` finds, and they are looked for in a fifth of the time."""
_CODE: Final = (b"{", b"}", b"()", b");", b"=>", b"->", b"==", b"def ", b"return ", b"import ", b"</", b"```")
_MATHS: Final = ("$", "\\", "^", "∑", "∫", "√", "≤", "≥")
_LIST: Final = (b"\n- ", b"\n* ", b"\n0. ", b"\n0) ")
_CHOICES: Final = re.compile(rb"\n[a-j][. ]")

NAMES: Final = (
    "length", "words", "word_length", "variety", "sentences", "lines", "digits", "numbers", "capitals", "foreign",
    "questions", "code", "maths", "choices", "list", "quotes", "brackets", "commas", "links", "parts", "person",
    "story", "negations", "reasoning", "opens_fact", "opens_explain", "opens_make", "format", "tools", "several_tools",
    "leans",
)  # fmt: skip
"""What each number of `dense` is, in order."""
WIDTH: Final = len(NAMES)


@veiled("raw", "words")
class Reading(NamedTuple):
    """A request's text as it was looked at: cut, in lower case, its digits 0."""

    raw: bytes
    words: list[bytes]
    """Words, numbers and marks, in order."""
    length: int
    """Characters of the whole text."""
    looked: int
    """Characters that were looked at."""
    capitals: int
    maths: int
    tools: int
    leans: bool
    """Says little by itself: what came before is read with it, where it is known."""


def read(text: str, tools: int = 0, context: str = "", turns: int = 1) -> Reading:
    """Look at a request: its latest turn, how many tools are offered, what came before it, and which turn it is.

    A turn that leans on what was said before ("yes", "do it", "and in French?") is read together with the end of
    `context`.
    """
    length = len(text)
    cut = _cut(text)
    raw, words = _split(cut)
    leans = (turns > 1 or bool(context)) and _leans(length, words)
    if leans and context:
        cut = f"{context[-_CONTEXT:]}\n{cut}"
        length += len(context)
        raw, words = _split(cut)
    exact = cut.encode("utf-8", "surrogatepass")
    return Reading(
        raw,
        words,
        length,
        len(cut),
        len(exact) - len(exact.translate(None, _CAPITALS)),
        sum(map(cut.count, _MATHS)),
        max(tools, 0),
        leans,
    )


def dense(reading: Reading) -> tuple[float, ...]:
    """The request as WIDTH numbers, made by hand: what each is stands in NAMES. All are finite, most below 1."""
    raw, words, length, looked, capitals, maths, tools, leans = reading
    times = Counter(words)
    seen = times.keys()
    total = len(words) or 1
    shown = looked or 1
    digits = raw.count(b"0")
    lines = raw.count(b"\n")
    questions = raw.count(b"?")
    head = set(words[:3])
    count = times.__getitem__
    return (
        log1p(length) / 10,
        log1p(len(words)) / 6,
        min(shown / total / 10, 1.5),
        len(seen) / total,
        log1p(raw.count(b". ") + raw.count(b".\n") + questions) / 4,
        log1p(lines) / 4,
        min(digits / shown * 4, 1.0),
        log1p(sum([count(number) for number in _NUMBERS & seen])) / 4,
        min(capitals / shown * 4, 1.0),
        min(max(len(raw) - looked, 0) / shown, 1.0),
        log1p(questions),
        log1p(sum(map(raw.count, _CODE))) / 4,
        log1p(maths) / 4,
        min(len(_CHOICES.findall(raw)), 10) / 4 if lines else 0.0,
        log1p(sum(map(raw.count, _LIST))) / 2 if lines else 0.0,
        log1p(raw.count(b'"') + raw.count(b"'")) / 4,
        log1p(raw.count(b"(") + raw.count(b"[")) / 4,
        min(raw.count(b",") / total * 4, 1.0),
        log1p(sum([count(word) for word in _LINK & seen])) / 2,
        min(sum([count(word) for word in _PART & seen]) / total * 4, 1.0),
        min(sum([count(word) for word in _PERSON & seen]) / total * 4, 1.0),
        min(sum([count(word) for word in _STORY & seen]) / total * 4, 1.0),
        log1p(sum([count(word) for word in _NOT & seen])),
        log1p(sum([count(word) for word in _REASON & seen])) / 2,
        float(not _FACT.isdisjoint(head)),
        float(not _EXPLAIN.isdisjoint(head)),
        float(not _MAKE.isdisjoint(head)),
        float(any(shape in raw for shape in _SHAPES) and _FORMAT.search(raw) is not None),
        float(tools > 0),
        log1p(max(tools - 1, 0)),
        float(leans),
    )


def hashed(reading: Reading) -> set[int]:
    """The buckets, 0 to BUCKETS - 1, of the request's words and of each two that follow each other.

    Whether a word is there counts, not how often. Numbers of equally many digits are one word.
    """
    codes = [crc32(word) % BUCKETS for word in reading.words]
    found = set(codes)
    # The first pair says how the text opens. The multiplier makes the order of two words count.
    found.update([(one * 31 + other) % BUCKETS for one, other in pairwise([1, *codes])])
    return found


def begun(reading: Reading, sizes: Iterable[int]) -> set[int]:
    """The buckets of how words begin: of each size, the first bytes of those that are longer.

    So "orders", "ordered" and "ordering" have something in common, of which few examples tell.
    """
    words = {word for word in reading.words if word[0] >= _LETTERS}
    return {crc32(word[:size], size) % BUCKETS for size in sizes for word in words if len(word) > size}


_LETTERS: Final = ord("a")
"""The first byte of a word is this or more. Of numbers it is less, and marks are one byte long."""
_NUMBERS: Final = frozenset(b"0" * size for size in range(1, 13))


def _cut(text: str) -> str:
    """`text`, without its middle where it is long."""
    if len(text) <= LOOK:
        return text
    tail = LOOK // 3
    return f"{text[: LOOK - tail - 1]}\n{text[-tail:]}"


def _split(text: str) -> tuple[bytes, list[bytes]]:
    """`text` in lower case with its digits 0, as UTF-8, and its words."""
    if not text.isascii():
        # As a substitution would have it, in a third of the time: characters and what is between them, blanks around.
        text = " ".join(_OWN.split(text.lower()))
    raw = text.encode("utf-8", "surrogatepass").translate(_LOWER)
    return raw, _WORDS.findall(raw)


def _leans(length: int, words: list[bytes]) -> bool:
    """Whether a turn that follows another says little without it."""
    if len(words) <= _LEANING_WORDS:
        return True
    if length <= _LEANING_OPENED and words[0] in _OPENING:
        return True
    return length <= _LEANING_BACK and not _BACK.isdisjoint(words)
