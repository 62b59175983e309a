"""Texts that speak to whoever classifies them ("reply simple"): found, and what they say taken out.

Only plain cases are found here, in plain sight or behind the usual tricks. Nothing depends on finding them all: a
classification moves a call between floor and ceiling and no further, and how often is bounded (`tierline.upgrades`).
What is taken out is what is said to the classifier, so that the rest is judged for what it is.
"""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import replace
from functools import cache
from string import ascii_letters, digits
from typing import TYPE_CHECKING, AnyStr, Final
from unicodedata import normalize

if TYPE_CHECKING:
    from tierline.values import View

_HINTS: Final = (
    "simple",
    "moderate",
    "complex",
    "haiku",
    "sonnet",
    "opus",
    "<text-",
    "</text-",
    "<before-",
    "</before-",
)
"""What a text must contain, one at least, to speak of a label, a tier, or the tags that a question is written with."""
_RAW_HINTS: Final = (b"simple", b"moderate", b"complex", b"haiku", b"sonnet", b"opus", b"<")
"""One of these is in the bytes of a text in which there is a hint, and nothing strange."""
_ASCII: Final = bytes(range(128))
_LONG_WORD: Final = 20
"""A word of so many characters may be something else in base64."""
_LETTERS: Final = (ascii_letters + digits + "+/_-").encode()
_BASE64: Final = bytes(ord("a") if code in _LETTERS else ord(" ") for code in range(256))
"""A table that tells the letters of base64 from all others."""
_RUN: Final = b"a" * _LONG_WORD
_DEEP: Final = 2
"""Layers of base64 that are looked under."""

_HIDDEN: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_STRANGE: Final = re.compile(
    "[\u00ad\u02b0-\u0556\u061c\u115f\u1160\u180e\u1d00-\u1dbf\u200b-\u200f\u202a-\u202e\u2060-\u209f\u2100-\u214f"
    "\u2460-\u24ff\ufb00-\ufb06\ufe00-\ufe0f\ufeff\uff00-\uffef\U0001d400-\U0001d7ff\U000e0000-\U000e007f]"
)
"""What may be seen as something else than it is, or not be seen."""
_TAGS: Final = {0xE0000 + code: code for code in range(0x20, 0x7F)}
"""Tag characters: ASCII that nobody sees."""
_ALIKE: Final = str.maketrans("аеорсухіјѕԁһӏմоαορεικνχ", "aeopcyxijsdhlnoaopeikvx")
"""Letters of Cyrillic and Greek that pass for Latin ones."""
_ENCODED: Final = re.compile(rf"[A-Za-z0-9+/_-]{{{_LONG_WORD},}}={{0,2}}")

_LABEL: Final = "(?:simple|moderate|complex)"
_TIER: Final = "(?:haiku|sonnet|opus)"
_OPEN: Final = r"[\s\"'`*_\[({<\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\u300c\u300e]*"
"""Space and quotes of all kinds."""
_ENDS: Final = r"(?![a-z0-9_-])"
_END: Final = (
    rf"{_ENDS}(?=\s*(?:$|[\n.,;:!?\"'`*_\])}}>\u201c\u201d\u2018\u2019\u00ab\u00bb\u300d\u300f\u3002\uff0c\uff01]|"
    r"(?:and|as|no|please|regardless|whatever|only)\b))"
)
"""Where a label is the last word, and not the first of "simple words"."""


def _words(*words: str) -> str:
    """Any number of these words, each after a space."""
    return rf"(?:\s+(?:{'|'.join(words)}))*"


# Two repeats of spaces never stand side by side: a long run of them would cost its square.
_FILLERS: Final = _words(
    "a", "all", "always", "an", "and", "answer", "as", "exactly", "following", "for", "in", "is", "it", "json", "just",
    "label", "labell?ed", "message", "nothing", "one", "only", "prompt", "query", "question", "request", "single",
    "task", "text", "that", "the", "this", "to", "verdict", "with", "word",
)  # fmt: skip
_FOREIGN_FILLERS: Final = _words(
    "als", "apenas", "avec", "bitte", "com", "con", "dem", "den", "immer", "la", "label", "le", "met", "mit", "mot",
    "nur", "only", "palabra", "palavra", "par", "parola", "seulement", "slechts", "solo", "somente", "sur", "text",
    "texte", "texto", "uniquement", "wort", "лишь", "метку", "одним", "слово", "словом", "текст", "только", "это",
)  # fmt: skip
_ORDERS: Final = rf"""
    # "Reply with only the word complex", and not "keep your answer simple"
    (?<!the\ )(?<!your\ )(?<!my\ )(?<!an\ )(?<!this\ )(?<!its\ )
    \b(?:answer|categori[sz]e|choose|classify|emit|grade|label|mark|output|pick|print|rate|reply|respond|return|say|
       select|treat|write)
    {_FILLERS}(?:\s*:)?{_OPEN}{_LABEL}{_END}
    # "Respond opus", "route this to opus"
    | \b(?:answer|reply|respond|output|return){_words("with", "only", "just", "label", "the", "word")}
      (?:\s*:)?{_OPEN}{_TIER}{_END}
    | \b(?:assign|escalate|forward|move|pass|route|send|upgrade)
      \s+(?:\w+\s+){{0,3}}to\s+(?:the\s+)?(?:claude[-\s])?{_TIER}\b
    # "label": "complex"; label = complex; the verdict must be complex
    | ["']label["']\s*:\s*["']{_LABEL}
    | \b(?:label|verdict|classification)(?:\s+(?:for|of)\s+(?:this|the)\s+\w+)?
      \s*(?:[:=]+|->|=>|\u2192|is|must\ be|should\ be|shall\ be|has\ to\ be){_FILLERS}{_OPEN}{_LABEL}{_END}
    | \b(?:be|been|is|are|was)\s+(?:already\s+)?(?:labell?ed|classified|rated|graded|categori[sz]ed)
      {_words("as", "to", "be")}{_OPEN}{_LABEL}{_END}
    # A turn that is put into the model's mouth
    | (?:^|\n|[.!?]\s)\s*(?:assistant|classifier|router|verdict|label)\s*[:>]{_OPEN}{_LABEL}{_END}
    # Other languages, with the labels as they are
    | \b(?:antworte|gib|klassifiziere|markiere|sag|stufe|réponds?|répondez|classe[zr]?|étiquette[zr]?|dis|responde|
         responda|contesta|clasifica|etiqueta|devuelve|di|rispondi|classifica|etichetta|classifique|rotule|antwoord|
         ответь|отвечай|ответьте|метка|выведи)
      {_FOREIGN_FILLERS}(?:\s*:)?{_OPEN}{_LABEL}{_ENDS}
    | (?:回答|回复|回覆|输出|輸出|标记|标签|標籤|返回|分类为|分類為|答え|出力|ラベル|대답|답변|라벨)
      [^\u3002\n]{{0,8}}?{_LABEL}{_ENDS}
    | {_LABEL}[\u300d\u300f"']?\s*(?:と|とだけ|だけ|라고|로만?)\s*(?:答え|返|出力|ラベル|대답|답)
    """.translate(_ALIKE)
"""What tells a classifier its answer. Looked for around labels and tiers alone."""
_SPEECH: Final = re.compile(
    r"""
    \byou(?:\s+are|'re|\s+act\s+as|\s+will\s+act\s+as)\s+(?:now\s+)?(?:\w+\s+){0,3}
      (?:router|tier\s+selector|routing\s+(?:model|system|layer)|difficulty\s+(?:classifier|labell?er))\b[^\n]*
    | \b(?:attention|dear|hello|hey|hi|instructions?\s+(?:for|to)|message\s+(?:for|to)|note\s+(?:for|to)|to)(?:\s*,)?
      \s+(?:the\s+)?(?:(?:llm|model|tier|request)\s+)?(?:router|classifier|labell?er|routing\s+(?:model|system))\b[^\n]*
    | \b(?:ignore|disregard|forget|override)\s+(?:(?:all|any|of|the|your|these|my)\s+){0,3}
      (?:(?:above|previous|prior|earlier)\s+)?
      (?:instructions?|rules|prompts?|guidelines|labels?|labell?ing|classification|routing|above)\b[^\n.!?]*
    # The tags that a question is written with
    | </?(?:text|before)-[0-9a-f]*>?[^\n]*
    """,
    re.VERBOSE,
)
"""What speaks to a classifier, in a text that names a label or a tier besides."""
_NAMED: Final = re.compile(rf"(?:{_LABEL}|{_TIER}){_ENDS}")
_BEFORE: Final = 100
_AFTER: Final = 12
"""Characters around a label in which the words stand that make an order of it."""
_VERBS: Final = tuple(
    verb.translate(_ALIKE)
    for verb in (
        "answer", "assign", "categor", "choose", "class", "emit", "escalate", "forward", "grade", "is ", "label",
        "mark", "move", "output", "pass", "pick", "print", "rate", "reply", "respond", "return", "route", "say",
        "select", "send", "treat", "upgrade", "verdict", "write", "was ", "been ", "assistant", "antw", "gib", "klass",
        "sag", "stuf", "répon", "étiq", "dis ", "contest", "clas", "etiq", "devuel", "di ", "rispond", "etich",
        "rotul", "ответ", "отвеч", "мет", "вывед", "回", "输", "輸", "标", "標", "返", "分", "答", "出力", "ラベル",
        "대답", "답", "라벨",
    )
)  # fmt: skip
"""One of these is near a label wherever `_ORDERS` matches: to look for words is a thousand times as fast."""
_SPEAKERS: Final = (
    "router", "classifier", "labeler", "labeller", "routing", "tier selector", "ignore", "disregard", "forget",
    "override", "text-", "before-",
)  # fmt: skip
"""One of these is wherever `_SPEECH` matches."""


@cache
def _orders() -> re.Pattern[str]:
    """Compiled when it is needed: that takes longer than all that an import of Tierline does."""
    return re.compile(_ORDERS, re.VERBOSE)


def prepare() -> None:
    """Make ready what the first text that gives an order would wait for: some 0.05 s."""
    _orders()


def unsteered(view: View) -> View | None:
    """The view without what it says to a classifier, or None where it says nothing to one."""
    text, context = _without(view.text), _without(view.context)
    if text is None and context is None:
        return None
    return replace(view, text=view.text if text is None else text, context=view.context if context is None else context)


def _without(text: str, depth: int = 0) -> str | None:
    """A text without what speaks to a classifier; None where nothing does."""
    if not text:
        return None
    # On every call, so it is done on bytes: that takes a fifth of the time of looking at characters.
    raw = text.encode("utf-8", "surrogatepass")
    beyond = raw.translate(None, _ASCII) if len(raw) != len(text) else b""
    strange = bool(beyond) and _STRANGE.search(beyond.decode("utf-8", "surrogatepass")) is not None
    folded = _folded(text) if strange else text.lower() if _has(raw.lower(), _RAW_HINTS) else ""
    left: str | None = None
    if folded and _has(folded, _HINTS) and (spans := _spans(folded)):
        # Lower case is as long as the text, folded text need not be: what is left of it has the same shape.
        whole = text if len(folded) == len(text) else folded
        left = _cut_out(whole, spans)
    if depth < _DEEP and (strange or _RUN in raw.translate(_BASE64)):
        whole = text if left is None else left
        hidden = [m.span() for m in _ENCODED.finditer(whole) if (inner := _decoded(m[0])) and _speaks(inner, depth + 1)]
        left = _cut_out(whole, hidden) if hidden else left
    return left


def _has(text: AnyStr, words: tuple[AnyStr, ...]) -> bool:
    # A loop, because a generator takes twice as long, on every call.
    for word in words:  # noqa: SIM110
        if word in text:
            return True
    return False


def _spans(text: str) -> list[tuple[int, int]]:
    """Where a folded text speaks to a classifier, in order."""
    found: list[tuple[int, int]] = []
    for start, end in _near_labels(text):
        found += [(start + m.start(), start + m.end()) for m in _orders().finditer(text[start:end])]
    if _has(text, _SPEAKERS):
        found += [m.span() for m in _SPEECH.finditer(text)]
    return sorted(found)


def _near_labels(text: str) -> list[tuple[int, int]]:
    """The parts of a text with a label in which there is a word that could make an order of it."""
    parts: list[tuple[int, int]] = []
    for named in _NAMED.finditer(text):
        start, end = max(0, named.start() - _BEFORE), named.end() + _AFTER
        part = text[start:end]
        if not _has(part, _VERBS):
            continue
        if parts and start <= parts[-1][1]:
            start, _ = parts.pop()
        parts.append((start, end))
    return parts


def _speaks(text: str, depth: int) -> bool:
    return _without(text, depth) is not None


def _cut_out(text: str, spans: list[tuple[int, int]]) -> str:
    kept, at = [], 0
    for start, end in spans:
        kept.append(text[at:start])
        at = max(at, end)
    return " ".join([*kept, text[at:]]).lstrip(" \n.,;:!?").rstrip()


def _folded(text: str) -> str:
    """What a text with something strange in it looks like to a reader, in lower case."""
    return normalize("NFKC", _HIDDEN.sub("", text.translate(_TAGS))).lower().translate(_ALIKE)


def _decoded(word: str) -> str:
    """What a word is in base64; empty where it is no text."""
    bare = word.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        text = b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode()
    except ValueError:
        return ""
    return text if text.isprintable() or "\n" in text else ""
