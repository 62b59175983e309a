"""What a request looks like, apart from its words: its length, code, tools, pages, and what it leans on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tierline.classify.base import fingerprint_of
from tierline.errors import ConfigurationError
from tierline.numeric import is_whole
from tierline.values import Classification

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierline.classify.base import Consult
    from tierline.values import View

_LOOK: Final = 4_200
"""Most characters that are looked at. A view is cut shorter than that; one made by hand need not be."""
_CODE: Final = ("{", "}", "()", ");", "=>", "->", "==", "def ", "return ", "import ", "SELECT ", "</")
_CODE_MARKS: Final = 8
"""So many of them are code, and not a stray bracket."""
_MATHS: Final = ("\\frac", "\\sum", "\\int", "\\begin{", "$$", "∑", "∫", "√", "∀", "∃", "≤", "≥")
_LIST: Final = ("\n- ", "\n* ", "\n1.", "\n2.", "\n3.", "\n4.", "\n5.")
_LIST_ITEMS: Final = 4
_QUESTIONS: Final = 3
_SEVERAL_DOCUMENTS: Final = 2

_SURE: Final = {4: 0.8, 3: 0.7}
"""How sure is complex, by points. Below three points the middle is meant, and nobody is sure of the middle."""
_MIDDLING: Final = {2: 0.55, 1: 0.5}
_FORCED: Final = 0.85
_SHORT_ANSWER: Final = 0.8
_DOUBTFUL: Final = 0.55


class SignalClassifier:
    """Judges a request by its shape.

    Simple needs a sign of it: one tool that must be called, or a short request whose answer is expected to be short.
    Points for length, code, maths, lists, tools, pictures, documents, a long answer and many turns lead up from the
    middle. A shape that says nothing gives no opinion; being short says nothing.

    A short turn in a conversation leans on what was said before ("yes", "and in French?"): it is judged by that, and is
    never simple.

    - `short_text`, `long_text`, `leaning_text`: characters of the latest turn, below or above which it is called so
    - `short_output`, `long_output`: tokens of the answer that the policy expects
    - `many_tools`: tools offered; `many_turns`: turns of the user's

    Free: looks at no more than the view. Raises `ConfigurationError` for a threshold that is no whole number above 0,
    and for a short one above its long one.
    """

    name = "signal"
    cacheable = False

    def __init__(
        self,
        *,
        short_text: int = 400,
        long_text: int = 1_500,
        leaning_text: int = 60,
        short_output: int = 100,
        long_output: int = 1_000,
        many_tools: int = 5,
        many_turns: int = 12,
    ) -> None:
        thresholds = {
            "short_text": short_text,
            "long_text": long_text,
            "leaning_text": leaning_text,
            "short_output": short_output,
            "long_output": long_output,
            "many_tools": many_tools,
            "many_turns": many_turns,
        }
        for name, value in thresholds.items():
            _check(name, value)
        for low, high in (("short_text", "long_text"), ("short_output", "long_output")):
            if thresholds[low] >= thresholds[high]:
                raise ConfigurationError(
                    f"SignalClassifier: {low}={thresholds[low]} must be below {high}={thresholds[high]}"
                )
        self._short_text, self._long_text, self._leaning_text = short_text, long_text, leaning_text
        self._short_output, self._long_output = short_output, long_output
        self._many_tools, self._many_turns = many_tools, many_turns
        self.fingerprint = fingerprint_of(self.name, tuple(thresholds.values()))

    async def classify(self, view: View, consult: Consult) -> Classification | None:  # noqa: ARG002
        """What the shape of `view` says. Asks nobody."""
        if (view.turns > 1 or view.context) and len(view.text) <= self._leaning_text:
            return _risen(self._context(view), "leans on an answer with ")
        points = list(self._points(view))
        if view.tools == 1 and view.forced_tool:
            sure = _DOUBTFUL if view.documents or len(view.text) > self._long_text else _FORCED
            return Classification("simple", sure, "signal", reason="one tool, and it must be called")
        expected = view.expected_output
        if expected is not None and expected <= self._short_output and len(view.text) <= self._short_text:
            reason = f"a short text, and at most {self._short_output} tokens expected"
            if not points:
                return Classification("simple", _SHORT_ANSWER, "signal", reason=reason)
            # A short answer is not an easy one.
            return Classification("moderate", _DOUBTFUL, "signal", reason=f"{reason}, but {points[0][1]}")
        return _risen(points)

    def _points(self, view: View) -> Iterator[tuple[int, str]]:
        """Points that lead up, each with its reason."""
        if view.expected_output is not None and view.expected_output >= self._long_output:
            yield 2, f"at least {self._long_output} tokens expected"
        if view.tools >= self._many_tools:
            yield 2, f"{self._many_tools} tools or more"
        elif view.tools > 1 or (view.tools == 1 and not view.forced_tool):
            yield 1, "tools"
        if view.documents >= _SEVERAL_DOCUMENTS:
            yield 2, "several documents"
        elif view.documents:
            yield 1, "a document"
        if view.images:
            yield 1, "images"
        if view.turns >= self._many_turns:
            yield 1, f"{self._many_turns} turns or more"
        if len(view.text) >= self._long_text:
            yield 1, f"{self._long_text} characters or more"
        yield from _shape(view.text[:_LOOK])

    def _context(self, view: View) -> Iterator[tuple[int, str]]:
        """Points of what a leaning turn leans on."""
        if view.turns >= self._many_turns:
            yield 1, f"{self._many_turns} turns or more"
        if view.tools >= self._many_tools:
            yield 2, f"{self._many_tools} tools or more"
        yield from _shape(view.context[-_LOOK:])


def _shape(text: str) -> Iterator[tuple[int, str]]:
    """Points of a text's marks. Each mark is counted by one search in C."""
    if "```" in text or sum(map(text.count, _CODE)) >= _CODE_MARKS:
        yield 1, "code"
    if any(mark in text for mark in _MATHS):
        yield 1, "maths"
    if sum(map(text.count, _LIST)) >= _LIST_ITEMS:
        yield 1, "a list of points"
    if text.count("?") >= _QUESTIONS:
        yield 1, "several questions"


def _risen(points: Iterator[tuple[int, str]] | list[tuple[int, str]], lead: str = "") -> Classification | None:
    """The opinion that points add up to: none without any, the middle for a few, complex for many."""
    given = list(points)
    total = min(sum(value for value, _ in given), 4)
    if not total:
        return None
    reason = lead + ", ".join(why for _, why in given)
    if total in _MIDDLING:
        return Classification("moderate", _MIDDLING[total], "signal", reason=reason)
    return Classification("complex", _SURE[total], "signal", reason=reason)


def _check(name: str, value: object) -> None:
    if not is_whole(value, 1):
        raise ConfigurationError(f"SignalClassifier({name}={value!r}): write a whole number above 0")
