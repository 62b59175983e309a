"""Asking the cheapest tier how hard a request is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tierline.classify.base import Question, check_labels, fingerprint_of
from tierline.errors import ConfigurationError
from tierline.values import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tierline.classify.base import Consult
    from tierline.values import Classification, View

INSTRUCTION: Final = (
    "Say how much skill it takes to answer a request well.\n"
    "simple: one short step, a fact, a rewrite\n"
    "moderate: some steps, usual code or prose\n"
    "complex: deep reasoning, design, proof, high stakes\n"
    "Judge the work, not the length. When in doubt, moderate."
)
EXAMPLES: Final = (
    ("Translate 'good morning' to Spanish", "simple"),
    ("Is this mail spam? ...", "simple"),
    ("Write a SQL query for sales by month", "moderate"),
    ("Summarize this report for the board", "moderate"),
    ("Why does this lock-free queue lose items?", "complex"),
    ("Review this merger contract for risks", "complex"),
)

_EXAMPLE_CHARS: Final = 200
_TEXT_CHARS: Final = 1_600
"""Most characters of the text that are shown, two thirds from its start: a verdict must stay cheap."""
_CONTEXT_CHARS: Final = 400
_TASK_CHARS: Final = 200


class ClaudeClassifier:
    """Asks Claude, on the cheapest tier; the answer is kept in the verdict cache.

    - `examples`: texts by label, or pairs of text and label, shown after the default ones; each is cut at 200
      characters, and costs its tokens in every question
    - `timeout`: seconds until the question is given up
    - `labels`: the closed set of answers; other than the default three they need an `instruction` that says what they
      mean, and bring no default examples
    - `instruction`: replaces the default one
    - `worth`: a question is asked only where at least so many times its price is at stake: what the dearest tier that
      the call may use costs more than the cheapest, at the length of answer that is expected, times the doubt that
      other classifiers have left. 1 asks for nothing that costs more than it can save; 0 asks always. A verdict that is
      in the cache is free, and is used in any case

    With the defaults, a question is under 300 tokens and what is shown of the request (2,000 characters at most); an
    answer is at most 32. Raises `ConfigurationError` for labels, examples, a timeout or a `worth` that
    cannot be.
    """

    name = "claude"
    cacheable = True

    def __init__(
        self,
        *,
        examples: Mapping[str, Iterable[str]] | Iterable[tuple[str, str]] = (),
        timeout: float = 3.0,
        labels: tuple[str, ...] = LABELS,
        instruction: str | None = None,
        worth: float = 1.0,
    ) -> None:
        labels = tuple(labels)
        check_labels(labels)
        if not 0 < timeout < float("inf"):
            raise ConfigurationError(f"ClaudeClassifier(timeout={timeout!r}): write a number of seconds above 0")
        if isinstance(worth, bool) or not isinstance(worth, (int, float)) or not 0 <= worth < float("inf"):
            raise ConfigurationError(f"ClaudeClassifier(worth={worth!r:.60}): write a number of at least 0")
        self.worth = worth
        usual = labels == LABELS
        if instruction is None and not usual:
            raise ConfigurationError(f"ClaudeClassifier(labels={labels!r:.80}) needs an instruction that explains them")
        self._labels, self._timeout = labels, timeout
        self._instruction = INSTRUCTION if instruction is None else instruction
        self._examples = (EXAMPLES if usual else ()) + _checked(examples, labels)
        self.fingerprint = fingerprint_of(self.name, labels, self._instruction, self._examples, _TEXT_CHARS)

    async def classify(self, view: View, consult: Consult) -> Classification | None:
        """Claude's verdict, or None where there is none to be had."""
        verdict = await consult.ask(self.question(view))
        if verdict is None or verdict.label not in self._labels:
            return None
        return verdict if verdict.source == "claude" else replace(verdict, source="claude")

    def question(self, view: View) -> Question:
        """What Claude is asked about `view`."""
        instruction = self._instruction
        if view.task:
            # The policy's words, so they may stand with the instruction.
            instruction = f"{instruction}\nThe app's task: {view.task[:_TASK_CHARS]}"
        return Question(
            text=_cut(view.text),
            labels=self._labels,
            instruction=instruction,
            examples=self._examples,
            context=view.context[-_CONTEXT_CHARS:],
            timeout=self._timeout,
        )


def _cut(text: str) -> str:
    if len(text) <= _TEXT_CHARS:
        return text
    head = _TEXT_CHARS * 2 // 3
    return f"{text[:head]}\n[…]\n{text[head - _TEXT_CHARS :]}"


def _checked(
    examples: Mapping[str, Iterable[str]] | Iterable[tuple[str, str]], labels: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """The app's examples as pairs, each cut."""
    if isinstance(examples, Mapping):
        pairs: list[object] = []
        for label, texts in examples.items():
            # A lone text would be taken for a list of its letters.
            listed = [texts] if isinstance(texts, str) else texts
            pairs += [(text, label) for text in listed]
    else:
        pairs = list(examples)
    checked: list[tuple[str, str]] = []
    for pair in pairs:
        match pair:
            case (str() as text, str() as label) if text.strip() and label in labels:
                checked.append((text[:_EXAMPLE_CHARS], label))
            case _:
                raise ConfigurationError(
                    f"ClaudeClassifier(examples=…): {pair!r:.120} is not a text and one of the labels {labels!r}"
                )
    return tuple(checked)
