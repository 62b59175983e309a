"""Rules on the words of a request: what it asks for, where a phrase says so clearly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from unicodedata import normalize

from tierline.classify.base import check_confidence, fingerprint_of
from tierline.classify.phrases import COMPLEX, LOOKUPS, SIMPLE
from tierline.errors import ConfigurationError
from tierline.values import Classification

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tierline.classify.base import Consult
    from tierline.values import Label, View

_HEAD: Final = 700
_TAIL: Final = 300
"""Characters from the start and the end of a text that are read: instructions stand there, data between."""
_SHORT: Final = 80
"""Characters of a text that a phrase of LOOKUPS can be the whole point of."""
_FEW_TOKENS: Final = 500
"""Tokens of an expected answer above which no phrase makes a request simple."""
_PHRASE_CHARS: Final = 200

_SURE: Final = 0.9
_TWICE: Final = 0.85
_ONCE: Final = 0.7
_DOUBTFUL: Final = 0.6

_BREAKS: Final = ".!?:;\r\n"
_ASCII: Final = {
    code: char.lower() if (char := chr(code)).isalnum() or char == "_" else "\n" if char in _BREAKS else " "
    for code in range(128)
}
# Characters without spaces between words are words of their own; marks that Unicode does not count as letters still
# belong to the word they stand in.
_OWN: Final = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS: Final = r"\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u109f\u1780-\u17ff"
_WORD: Final = re.compile(rf"[{_OWN}]|(?:[^\W{_OWN}]|[{_MARKS}])+")
_BREAK: Final = re.compile(r"[.!?:;\r\n\u2028\u2029\u0964\u3002\uff01\uff1f\uff1a\uff1b]")
_HIDDEN: Final = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
"""Soft hyphens, zero-width and direction marks: nobody sees them, so they are not there."""

_SUM: Final = re.compile(r"[\d$\\^=<>{}]")
"""Numbers and formulas: "what is the remainder of …" is short, and no question of fact."""
# fmt: off
_POLITE: Final = frozenset({
    "a", "an", "and", "can", "could", "d", "dear", "first", "for", "hello", "help", "hey", "hi", "i", "in", "just",
    "kindly", "let", "like", "ll", "me", "need", "next", "now", "ok", "okay", "please", "pls", "s", "so", "task",
    "thanks", "the", "then", "to", "us", "want", "we", "will", "with", "would", "you", "your",
})
# fmt: on
"""Words that stand before an instruction without being part of it."""


class _Phrase(NamedTuple):
    """A pattern: each word, and whether any ending of it will do."""

    words: tuple[tuple[str, bool], ...]
    label: Label
    text: str
    """As it was configured: what a reason may quote."""
    known: bool
    """One of the defaults, which are guesses about everyone's traffic: it has to stand where it is plain."""
    lookup: bool

    def at(self, words: Sequence[str], start: int) -> bool:
        """Whether the phrase is there, its first word having been looked up already."""
        if start + len(self.words) > len(words):
            return False
        for word, open_ended in self.words[1:]:
            start += 1
            said = words[start]
            # Most phrases end here, at their second word.
            if said != word and not (open_ended and said.startswith(word)):
                return False
        return True


class KeywordClassifier:
    """Says `simple` or `complex` where phrases of one side only are found, and nothing otherwise.

    - `simple`, `complex`: phrases that replace the defaults of that side. Plain words, in any case and script, with
      an optional `*` at the end of a word ("refactor*"); they match whole words, and never across a sentence's end
    - the route's `task` is looked at first, then the start and the end of the text, without its code blocks
    - a phrase of the app's own counts wherever it stands; of the defaults, a simple one counts only where it opens an
      instruction, and a complex one that does not is not sure
    - of phrases that start at the same word the longest counts: "review the contract" beats "review"
    - no opinion where nothing matches, or both sides do
    - `least`: opinions less sure than this (0 to 1) are not given

    Free and fast: one pass over at most 1,000 characters. Raises `ConfigurationError`, naming the phrase, for one that
    is not a text, has no word, has a `*` elsewhere, is too long, or stands on both sides.
    """

    name = "keyword"
    cacheable = False

    def __init__(
        self,
        *,
        simple: Iterable[str] | None = None,
        complex: Iterable[str] | None = None,  # noqa: A002 - the label's name
        least: float = 0.0,
    ) -> None:
        sides = _sides(simple, complex)
        check_confidence("KeywordClassifier(least=…)", least)
        self.fingerprint = fingerprint_of(self.name, least, [(p.words, p.label, p.known, p.lookup) for p in sides])
        self._least, self._own = least, not all(phrase.known for phrase in sides)
        self._exact: dict[str, list[_Phrase]] = {}
        self._stems: dict[str, list[_Phrase]] = {}
        stems = [phrase.words[0][0] for phrase in sides if phrase.words[0][1]]
        self._stem = min(map(len, stems), default=0)
        for phrase in sides:
            word, open_ended = phrase.words[0]
            if open_ended:
                self._stems.setdefault(word[: self._stem], []).append(phrase)
            else:
                self._exact.setdefault(word, []).append(phrase)

    async def classify(self, view: View, consult: Consult) -> Classification | None:  # noqa: ARG002
        """What the phrases in `view` say. Asks nobody."""
        opinion = self._of_task(view, guess=True) or self._of_text(view, guess=True)
        return opinion if opinion is not None and opinion.confidence >= self._least else None

    def certain(self, view: View) -> Classification | None:
        """What phrases of the app's own say of `view`; None where they say nothing sure.

        The Router asks for it before all else: what an app knows comes before what was learned, or is guessed.
        """
        if not self._own:
            return None
        opinion = self._of_task(view, guess=False) or self._of_text(view, guess=False)
        return opinion if opinion is not None and opinion.confidence >= _SURE else None

    def _of_task(self, view: View, *, guess: bool) -> Classification | None:
        if not view.task:
            return None
        told = [
            (phrase, opens) for phrase, opens in self._found(view.task[:_PHRASE_CHARS]) if guess or not phrase.known
        ]
        labels = {phrase.label for phrase, _ in told}
        if len(labels) != 1:
            return None
        return Classification(labels.pop(), _SURE, "keyword", reason=f"the task has {_quote(told)}")

    def _of_text(self, view: View, *, guess: bool) -> Classification | None:
        """What the text's phrases say: those of the app's own, and with `guess` the defaults."""
        found = [
            (phrase, opens)
            for phrase, opens in self._found(_instruction(view.text))
            if (guess or not phrase.known) and _counts(phrase, opens, view)
        ]
        labels = {phrase.label for phrase, _ in found}
        if len(labels) != 1:
            return None
        label = labels.pop()
        return Classification(label, _confidence(label, found, view), "keyword", reason=f"the text has {_quote(found)}")

    def _found(self, text: str) -> Iterator[tuple[_Phrase, bool]]:
        """Every phrase in `text`, the longest of those that start at one word, and whether it opens an instruction."""
        exact, stems, length = self._exact, self._stems, self._stem
        for words in _sentences(text):
            # Most sentences have no phrase, and are over after one pass in C.
            if exact.keys().isdisjoint(words) and (not stems or stems.keys().isdisjoint([w[:length] for w in words])):
                continue
            opening = 0
            while opening < len(words) and words[opening] in _POLITE:
                opening += 1
            for start, word in enumerate(words):
                candidates = exact.get(word)
                if stems and (more := stems.get(word[:length])):
                    open_ended = [phrase for phrase in more if word.startswith(phrase.words[0][0])]
                    candidates = [*(candidates or ()), *open_ended]
                if candidates and (there := [phrase for phrase in candidates if phrase.at(words, start)]):
                    most = max(len(phrase.words) for phrase in there)
                    yield from ((phrase, start <= opening) for phrase in there if len(phrase.words) == most)


def _counts(phrase: _Phrase, opens: bool, view: View) -> bool:
    """Whether a phrase says anything where it stands."""
    if phrase.label == "complex" or not phrase.known:
        return True
    return opens and (not phrase.lookup or _is_lookup(view))


def _is_lookup(view: View) -> bool:
    """Whether a question may be one of fact: short, with nothing to work out, and not about what was said before."""
    return len(view.text) <= _SHORT and not view.context and not _SUM.search(view.text)


def _confidence(label: Label, found: list[tuple[_Phrase, bool]], view: View) -> float:
    if label == "complex":
        if any(opens or not phrase.known for phrase, opens in found):
            return _SURE
        return _TWICE if len({phrase for phrase, _ in found}) > 1 else _ONCE
    # Words alone do not make work with tools, documents or a long answer simple.
    free_tools = view.tools > 1 or (view.tools == 1 and not view.forced_tool)
    heavy = free_tools or view.documents > 0 or (view.expected_output or 0) > _FEW_TOKENS
    return _DOUBTFUL if heavy else _SURE


def _quote(found: list[tuple[_Phrase, bool]]) -> str:
    """The first two phrases: they are the app's or ours, and no part of the prompt."""
    return " and ".join(f'"{text}"' for text in list(dict.fromkeys(phrase.text for phrase, _ in found))[:2])


def _instruction(text: str) -> str:
    """The parts of a text where instructions stand."""
    if "```" in text:
        text = "\n".join(text[: 8 * (_HEAD + _TAIL)].split("```")[::2])
    if len(text) <= _HEAD + _TAIL:
        return text
    # Cut between words, so that no half of a word matches.
    head, tail = text[:_HEAD], text[-_TAIL:]
    return f"{head.rpartition(' ')[0] or head}\n{tail.partition(' ')[2] or tail}"


def _sentences(text: str) -> Iterator[list[str]]:
    """The words of each sentence, folded for comparison."""
    if text.isascii():
        # What the expressions below do, several times as fast.
        for sentence in text.translate(_ASCII).split("\n"):
            yield sentence.split()
        return
    text = _HIDDEN.sub("", normalize("NFKC", text).casefold())
    for sentence in _BREAK.split(text):
        yield _WORD.findall(sentence)


def _sides(simple: Iterable[str] | None, hard: Iterable[str] | None) -> list[_Phrase]:
    """The phrases of both sides, checked. What an app writes on one side leaves the defaults of the other."""
    ours = {side: _compile(side, texts) for side, texts in (("simple", SIMPLE), ("complex", COMPLEX))}
    apps = {
        side: None if texts is None else _compile(side, texts)
        for side, texts in (("simple", simple), ("complex", hard))
    }
    if apps["simple"] and apps["complex"]:
        for words in apps["simple"].keys() & apps["complex"].keys():
            raise ConfigurationError(f"the phrase {apps['simple'][words]!r} is on both sides; keep it on one")
    lookups = _compile("simple", LOOKUPS)
    phrases: list[_Phrase] = []
    sides: tuple[tuple[Label, Label], ...] = (("simple", "complex"), ("complex", "simple"))
    for side, other in sides:
        written = apps[side]
        chosen = ours[side] if written is None else written
        taken = (apps[other] or {}) if written is None else {}
        phrases += [
            _Phrase(words, side, text, words in ours[side], words in lookups)
            for words, text in chosen.items()
            if words not in taken
        ]
    return phrases


def _compile(side: str, texts: Iterable[str]) -> dict[tuple[tuple[str, bool], ...], str]:
    """Each phrase's words, with the text they were written as."""
    if isinstance(texts, str):
        raise ConfigurationError(f"{side}={texts!r:.80} is one text; write a list of phrases: [{texts!r:.80}]")
    return {_words(side, text): text for text in texts}


def _words(side: str, text: object) -> tuple[tuple[str, bool], ...]:
    if not isinstance(text, str):
        raise ConfigurationError(f"{side}: {text!r:.80} is not a text; a phrase is one or more words")
    if len(text) > _PHRASE_CHARS:
        raise ConfigurationError(f"{side}: {text!r:.80} is longer than {_PHRASE_CHARS} characters")
    if sum(map(bool, _sentences(text.replace("*", "")))) > 1:
        raise ConfigurationError(f"{side}: {text!r} has the end of a sentence in it; phrases do not cross one")
    words: list[tuple[str, bool]] = []
    for part in text.split():
        bare, star = part.removesuffix("*"), part.endswith("*")
        if "*" in bare or (star and not bare[-1:].isalnum()):
            raise ConfigurationError(f"{side}: {text!r} has a * that is not at the end of a word")
        found = [word for sentence in _sentences(bare) for word in sentence]
        words += [(word, star and at == len(found)) for at, word in enumerate(found, 1)]
    if not words:
        raise ConfigurationError(f"{side}: the phrase {text!r} has no word in it")
    return tuple(words)
