"""How hard a request is, by the words of its text: a small model that comes with the package and asks nobody.

What it learned from are prompts with known outcomes: how well a weak and a strong model answered them. They are of a
few kinds (sums in words, hard maths, tools, exam questions, short tasks, plain requests), and what makes one of them
hard says nothing of another kind. So there is an expert for each, and a gate that says which kind a text is like:

    need = Σ gate(kind) * expert(kind)        how much is lost, at the cheapest tier, of what the top tier would do

Nothing that was learned transfers to kinds of text that were not there. The less a text is like any of them (its
`familiarity`, 0 to 1), the more the answer is the prior, and where it is like none there is no opinion.
"""

from __future__ import annotations

import secrets
from functools import cache, cached_property
from importlib.resources import files
from math import exp, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.classify.base import check_confidence, fingerprint_of
from tierline.classify.prose import is_prose
from tierline.classify.weights import Weights
from tierline.errors import ConfigurationError
from tierline.features import NAMES, VERSION, WIDTH, read
from tierline.numeric import is_whole
from tierline.recent import Recent, keyed
from tierline.values import LABELS, Classification

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tierline.classify.base import Consult
    from tierline.classify.weights import Weighed
    from tierline.values import Label, View

_SHIPPED: Final = "local.weights"
_REMEMBERED: Final = 10_000
"""Views whose opinions are remembered, at some 400 bytes: as many as the verdict cache has by default."""


class Opinion(NamedTuple):
    """What the weights say of a text."""

    probabilities: dict[Label, float]
    """Of each label; they add up to 1."""
    familiarity: float
    """How much the text is like what the weights were trained on: 0 (not at all: the prior) to 1."""
    kind: str
    """The kind of text that it is most like."""


class LocalClassifier:
    """Judges a text by weights that were trained on prompts with known outcomes. No network, no API call.

    - `weights`: a file that `tierline train` wrote, for an app's own; by default those that come with the package
    - no opinion where the familiarity is below `familiar` (0 to 1), nor one less sure than `least` (0 to 1)
    - a turn that leans on what came before ("yes", "and in French?") is read with the context, and where there is none
      it is unlike anything

    Of the weights that come with the package, p(simple) is how likely the cheapest tier's answer is as good as the top
    tier's, by outcomes of benchmarks with older models; an app's own figures come from `tierline eval`. A label is
    `simple` where that is 0.85 or more, `complex` where it is below 0.65, and `moderate` between. Its confidence is how
    likely it is that the cheapest tier is good enough (then a dearer one is, too), for `complex` that it is not. Of an
    app's own weights it is the likeliest label and its probability.

    Raises `ConfigurationError` for a file that cannot be read or was trained for another version of the features.
    """

    name = "local"
    cacheable = False

    def __init__(
        self, weights: str | Path | Weights | None = None, *, familiar: float = 0.25, least: float = 0.0
    ) -> None:
        check_confidence("LocalClassifier(familiar=…)", familiar)
        check_confidence("LocalClassifier(least=…)", least)
        self._familiar, self._least = familiar, least
        self._given = weights
        self._keyed = keyed(secrets.token_bytes(32), b"tierline local")
        self._said: Recent[bytes, tuple[Classification | None]] = Recent(_REMEMBERED)
        """What was said of the latest views: a prompt that comes again, of the same tenant, is not weighed again."""
        if weights is not None:
            _ = self.weights  # A file that is no good fails here, and not at the first call.

    @cached_property
    def weights(self) -> Weights:
        """What it judges by. Those of the package are read at their first use, not when Tierline is imported."""
        given = self._given
        if given is None:
            return _shipped()
        return _checked(given if isinstance(given, Weights) else Weights.load(Path(given)))

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the weights, and with what is read of a text."""
        return fingerprint_of(self.name, self.weights.version, VERSION, self._familiar, self._least)

    def prepare(self) -> None:
        """Read the weights now, and make ready what they are looked up in: some 0.1 s that no call then waits for."""
        self.weights.prepare()
        _ = self.fingerprint

    def probabilities(self, text: str, tools: int = 0, context: str = "", turns: int = 1) -> dict[Label, float]:
        """How likely each label is, for the latest turn's `text` with `tools` offered: they add up to 1.

        `context` is the end of what came before, `turns` which turn of the user's it is.
        """
        return self.opinion(text, tools, context, turns).probabilities

    def opinion(self, text: str, tools: int = 0, context: str = "", turns: int = 1) -> Opinion:
        """The probabilities, and how much the text is like what the weights know."""
        return self.weigh(text, tools, context, turns)[1]

    def project(self, text: str, tools: int = 0, context: str = "", turns: int = 1) -> tuple[float, ...]:
        """The request as a few numbers (44), to be stored and learned from instead of its text.

        First `features.dense`, then what each head of the weights makes of it, then the familiarity. They mean
        something else as soon as `fingerprint` changes.
        """
        found, opinion = self.weigh(text, tools, context, turns)
        return (*found.numbers, *found.scores.values(), opinion.familiarity)

    def weigh(self, text: str, tools: int = 0, context: str = "", turns: int = 1) -> tuple[Weighed, Opinion]:
        """All that is made of a text, for those who learn from it too: it is read once."""
        reading = read(text, tools, context, turns)
        found = self.weights.weigh(reading)
        # What a leaning turn leans on is not known: then the text is not what the request is about. And of what is no
        # text the weights of the package know nothing; an app's own may have learned from such.
        blind = (reading.leans and not context) or (self.weights.kind == _EXPERTS and not is_prose(reading))
        return found, _WAYS[self.weights.kind](self.weights.about, found, blind)

    async def classify(self, view: View, consult: Consult) -> Classification | None:
        """The label of `view`, or None where it is unlike anything that the weights know. Asks nobody."""
        key = self._key(view, consult.tenant)
        if (said := self._said.find(key)) is None:
            said = (self._judged(view),)
            self._said.keep(key, said)
        return said[0]

    def _key(self, view: View, tenant: str | None) -> bytes:
        """What a view is remembered by, for each tenant apart: it tells nothing of its text."""
        context = view.context.encode("utf-8", "surrogatepass")
        digest = self._keyed.copy()
        # The only zero byte of a header is its last: no two views are the same bytes. A tenant's name has none.
        digest.update(f"{len(context)},{view.tools},{view.turns},{tenant or ''}\0".encode() + context)
        digest.update(view.text.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def _judged(self, view: View) -> Classification | None:
        found = self.opinion(view.text, view.tools, view.context, view.turns)
        if found.familiarity < self._familiar:
            return None
        if self.weights.kind == _LABELS:
            label = max(LABELS, key=lambda each: found.probabilities[each])
            sure = found.probabilities[label]
        else:
            label, sure = _label(found.probabilities["simple"])
        if sure < self._least:
            return None
        reason = f"like {found.kind}, familiarity {found.familiarity:.2f}"
        return Classification(label, sure, "local", reason=reason)


_EXPERTS: Final = "experts"
_LABELS: Final = "labels"
_KNOWN: Final = 0.5
"""Share of words and pairs that an app's own weights know from which on a text is like theirs."""
_LENGTH: Final = NAMES.index("length")
_WORD_LENGTH: Final = NAMES.index("word_length")
_VARIETY: Final = NAMES.index("variety")
_SIMPLE: Final = 0.85
_COMPLEX: Final = 0.65
"""Chances that the cheapest tier is good enough, from which on, and below which, a label is given."""


def _label(good_enough: float) -> tuple[Label, float]:
    """The label, and how sure it is."""
    if good_enough < _COMPLEX:
        return "complex", 1 - good_enough
    # A tier that is better than the cheapest is good enough at least as often: the doubt is in the label already.
    return ("simple" if good_enough >= _SIMPLE else "moderate"), good_enough


@cache
def _shipped() -> Weights:
    """The weights of the package: a constant of 6 MB, once for all who judge by it."""
    return _checked(Weights.load(Path(str(files("tierline.classify") / _SHIPPED))))


def _checked(weights: Weights) -> Weights:
    if weights.kind not in _WAYS:
        raise ConfigurationError(f"weights of the kind {weights.kind!r:.40} are none that LocalClassifier knows")
    kinds = weights.about.get("kinds", ())
    needed = {f"{part} {kind}" for kind in kinds for part in ("gate", "need")}
    ends = [weights.about.get(end, ()) for end in ("lowest", "highest")]
    whole = all(len(end) == WIDTH for end in ends)
    if weights.kind == _LABELS:
        needed = {"words", "numbers", "known"}
        whole = whole and len(weights.about.get("cuts", ())) == len(LABELS) - 1 and _sizes(weights.about)
    if not whole or not needed or needed - set(weights.heads):
        raise ConfigurationError("the weights are not whole: heads or their ranges are missing; train them again")
    return weights


def _sizes(about: Mapping[str, Any]) -> bool:
    """Whether it says which beginnings of words are read."""
    sizes = about.get("beginnings")
    return isinstance(sizes, list) and all(is_whole(size, 1) for size in sizes)


def ordered(place: float, cuts: Sequence[float]) -> list[float]:
    """How likely each label is, of a text at this place of a line with cuts: see `tierline.classify.training`."""
    above, far = (sigmoid(place - cut) for cut in cuts)
    # Cuts may lie in the wrong order, where hardly any text is moderate.
    found = [1 - above, max(above - far, 0.0), far]
    total = sum(found)
    return [share / total for share in found]


def sigmoid(odds: float) -> float:
    """The chance that log-odds of any size stand for."""
    return 1 / (1 + exp(-min(max(odds, -_FAR), _FAR)))


_FAR: Final = 30.0
"""Log-odds past which a chance is as good as 0 or 1."""


def _labelled(about: Mapping[str, Any], found: Weighed, blind: bool) -> Opinion:
    """Of an app's own labels: shrunk to how often each was given, by the share of words that are not known."""
    root = sqrt(found.read)
    # All heads divide by that root; here words are added up.
    place = found.scores["words"] * root + found.scores["numbers"]
    shares = ordered(place, about["cuts"])
    known = 0.0 if blind or not found.read else found.scores["known"] / root
    familiarity = min(known / _KNOWN, 1.0)
    mixed = [usual + familiarity * (share - usual) for share, usual in zip(shares, about["prior"], strict=True)]
    return Opinion(dict(zip(LABELS, mixed, strict=True)), familiarity, "the app's own")


def _gated(about: Mapping[str, Any], found: Weighed, blind: bool) -> Opinion:
    """Of the gate and the experts: shrunk to the prior, the less the best gate is open."""
    gates = [found.scores[f"gate {kind}"] for kind in about["kinds"]]
    best = max(range(len(gates)), key=gates.__getitem__)
    low, high = about["familiar"]
    familiarity = (
        0.0 if blind or _no_prose(about, found.numbers) else min(max((gates[best] - low) / (high - low), 0.0), 1.0)
    )
    shares = [exp(min(about["sharpness"] * (gate - gates[best]), 0.0)) for gate in gates]
    scores = [found.scores[f"need {kind}"] for kind in about["kinds"]]
    need = sum(share * score for share, score in zip(shares, scores, strict=True)) / sum(shares)
    need = about["prior"] + familiarity * (need - about["prior"])
    base, slope = about["loss"]
    loss = min(max(base + slope * need, 0.01), 0.99)
    top = about["top"]
    return Opinion(
        {"simple": 1 - loss, "moderate": loss * (1 - top), "complex": loss * top}, familiarity, about["kinds"][best]
    )


def _no_prose(about: Mapping[str, Any], numbers: tuple[float, ...]) -> bool:
    """Whether it is not made of words as all texts that were trained on are: empty, one run of letters, one word again.

    Of what may well grow, such as the length or the number of tools, more than was there is no reason to know nothing.
    """
    lowest, highest = about["lowest"], about["highest"]
    return numbers[_LENGTH] < lowest[_LENGTH] or any(
        not lowest[at] <= numbers[at] <= highest[at] for at in (_WORD_LENGTH, _VARIETY)
    )


_WAYS: Final = {_EXPERTS: _gated, _LABELS: _labelled}
