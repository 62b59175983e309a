"""What a classifier is, and what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tierline.errors import ConfigurationError
from tierline.numeric import is_number
from tierline.values import View
from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.values import Classification

__all__ = [
    "Asking",
    "Certain",
    "Classifier",
    "Consult",
    "Preparing",
    "Question",
    "View",
    "fingerprint_of",
    "members_fingerprint",
]


@veiled("text", "context")
@dataclass(frozen=True, slots=True)
class Question:
    """One question to the cheapest tier, with a closed set of answers.

    Raises `ConfigurationError` where the set cannot be told apart in an answer: no labels, an
    empty one, or two that differ only in case.
    """

    text: str
    labels: tuple[str, ...]
    instruction: str
    examples: tuple[tuple[str, str], ...] = ()
    """(text, label) pairs that are shown to the model."""
    context: str = ""
    """The end of what the text answers to; as little to be trusted as the text."""
    max_tokens: int = 32
    timeout: float = 3.0
    """Seconds until the question is given up."""

    def __post_init__(self) -> None:
        check_labels(self.labels)


class Consult(Protocol):
    """What a classifier may use while it classifies. The Router provides it."""

    @property
    def tenant(self) -> str | None:
        """Whose call it is, or None. What a classifier remembers of texts it remembers for each tenant apart.

        Else how fast it answers would tell one what another has asked.
        """
        ...

    async def consult(self, classifier: Classifier, view: View, sure: float = 0.0) -> Classification | None:
        """Ask another classifier, through the verdict cache where that one is `cacheable`.

        `sure` is the confidence of the best opinion that there is already: the surer that is, the less is a question
        to Claude worth. See `Asking`.
        """
        ...

    async def ask(self, question: Question) -> Classification | None:
        """Ask the cheapest tier, inside the same budgets, attempts and trace as the app's own calls.

        - None is "no opinion": a timeout, a refusal, a budget, or an answer outside `question.labels`
        - never raises for a failure upstream; a cancellation is passed on
        - the returned `cost` is what the answer cost, in nano-USD
        """
        ...


@runtime_checkable
class Classifier(Protocol):
    """Says how hard a request is.

    - `classify` returns one of the labels with a confidence from 0 to 1, or None for no opinion
    - it is pure in (`fingerprint`, `view`): the same two give an equally good answer at any time
    - `fingerprint` changes whenever its rules, examples or prompt change; it is part of the cache key
    - `cacheable` says that an answer costs money or time, so that the Router keeps it in the verdict cache
    - it may raise: the Router then takes no opinion and says so in the decision's reasons
    """

    @property
    def name(self) -> str:
        """How spans and reasons call it: `keyword`."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names the rules, examples and prompt it was built with: see `fingerprint_of`."""
        ...

    @property
    def cacheable(self) -> bool:
        """Whether an answer costs money or time."""
        ...

    async def classify(self, view: View, consult: Consult) -> Classification | None:
        """Say what the request is: see above for what must hold."""
        ...


@runtime_checkable
class Certain(Protocol):
    """A classifier with rules of the app's own: what they say comes before what a route has taught."""

    def certain(self, view: View) -> Classification | None:
        """What they say of `view`, None where they say nothing for certain. Quick, and asks nobody."""
        ...


@runtime_checkable
class Asking(Protocol):
    """A classifier that asks Claude one question: what it will ask is known before, and can be weighed.

    `worth` is how many times its price must be at stake for the call (see `tierline.classify.worth`); 0 asks always.
    """

    worth: float

    def question(self, view: View) -> Question:
        """What it asks about `view`."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A classifier, or a model of outcomes, that has something to read before it can work, such as weights."""

    def prepare(self) -> None:
        """Read it. Called in a thread when the app starts up; whoever is never prepared reads at the first call."""
        ...


def check_labels(labels: object) -> None:
    """Raise `ConfigurationError` unless `labels` is a tuple of texts, at least one, that an answer can tell apart."""
    if not isinstance(labels, tuple) or not all(isinstance(label, str) for label in labels):
        raise ConfigurationError(f"labels must be a tuple of texts, not {labels!r:.80}")
    seen: dict[str, str] = {}
    for label in labels:
        bare = label.strip().casefold()
        if not bare:
            raise ConfigurationError("a label is empty: every label must be a word that can be answered")
        if bare in seen:
            raise ConfigurationError(f"the labels {seen[bare]!r} and {label!r} are the same to a reader; keep one")
        seen[bare] = label
    if not seen:
        raise ConfigurationError("there are no labels to choose from; give at least one, better two")


def check_classifier(where: str, value: object) -> Classifier:
    """`value`, if it is a classifier. ConfigurationError, beginning with `where`, for all else."""
    # A class has all that its instances have, and would only fail at the first call.
    if isinstance(value, type) or not isinstance(value, Classifier):
        raise ConfigurationError(f"{where} is {value!r:.80}, not a classifier")
    return value


def check_confidence(where: str, value: object) -> None:
    """Raise `ConfigurationError` unless `value` is a number from 0 to 1."""
    if not is_number(value, 0, 1):
        raise ConfigurationError(f"{where} is {value!r:.80}; write a number from 0 to 1")


def fingerprint_of(*parts: object) -> str:
    """A short stable digest of what a classifier was built with: of texts, numbers, and tuples of them."""
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(repr(part).encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def members_fingerprint(members: Sequence[Classifier]) -> str:
    """The fingerprint of a classifier made of others."""
    return fingerprint_of(*[(m.name, m.fingerprint) for m in members])
