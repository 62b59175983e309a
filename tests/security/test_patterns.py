"""Texts, paths, schemas and ids that make a pattern go astray: F of the hostile catalogue, 80.

Nothing is timed. What is tried here ends at once, or not within the days that a pattern with every way to try takes.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from tierline import policy
from tierline.call import VIEW_CHARS, read_call, view_of
from tierline.classify import FixedClassifier, KeywordClassifier, View, default_classifier
from tierline.classify.steering import unsteered
from tierline.errors import ConfigurationError
from tierline.escalation.answers import Answer, Wanted
from tierline.escalation.checks import structural
from tierline.escalation.rules import Escalate
from tierline.escalation.schema import unmet
from tierline.features import read
from tierline.ladder import DEFAULT_LADDER
from tierline.policies import combine
from tierline.routes import LONGEST_PATH, RouteTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline import Router
    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

MEGABYTE = 1_000_000
PUMPS = [
    " ", "\n", "\t", "a", "a ", "A", "0", "-", "=", "[", '"', "`", "é", "\u200b", "回答", "reply ", "reply with the ",
    "label ", "label: ", "label for this x ", "assistant:", "you are ", "you are now the ", "ignore all ", "hi, ",
    "to the ", "route a b c to ", "</text-0", "sorry, ", "i'm ", "as an ai ", "complex ", "reply complex ", "is ",
    "prove the ", "QUFB", "```",
]  # fmt: skip
OPENINGS = ["", "reply ", "assistant: ", "you are ", "sorry", "label = "]


def texts(size: int = MEGABYTE) -> list[str]:
    """Each pump behind each opening, for so many characters."""
    return [(opening + pump * (size // len(pump)))[:size] for opening, pump in product(OPENINGS, PUMPS)]


async def test_redos_rule_1mb(make_router: MakeRouter, fake: FakeClaude) -> None:
    """80: no text of a megabyte holds up the rules, the signals or the weights that a call is classified with."""
    rules = KeywordClassifier(simple=["a*", "reply with the*", "a a a a a a a a a*"], complex=["prove the*"])
    held = combine([policy()], DEFAULT_LADDER)
    for text in texts():
        call = read_call("create", {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": text}]})
        assert call is not None
        view = view_of(call, held)
        assert len(view.text) <= VIEW_CHARS
        await rules.classify(view, None)  # type: ignore[arg-type]  (it asks nobody)
        unsteered(view)
        read(view.text)
    router = make_router(classifier=default_classifier())
    for text in (texts()[0], texts()[15], texts()[-1]):
        async with router.bind() as binding:
            await router.claude.messages.create(
                model="auto", max_tokens=9, messages=[{"role": "user", "content": text or "x"}]
            )
        assert binding.decisions[-1].settled
    # Of a text so long, what is quoted to Claude for a verdict is as bounded as what is read here.
    assert all(len(str(r.body)) < 20_000 for r in fake.requests if r.body["max_tokens"] != 9)


def test_redos_of_answers() -> None:
    """80: nor does an answer hold up the look at its form, whatever it begins with."""
    rules = Escalate(phrases=("a a a a", "sorry"))
    for text in texts(100_000):
        structural(Answer(text=text, whole=True), Wanted(), rules)
        structural(Answer(text=text, whole=False), Wanted(json=True), rules)


@pytest.mark.parametrize(
    "pattern",
    ["^(a+)+$", "(a*)*b", "(a|aa)+$", "(.*a){30}", "^(([a-z])+.)+[A-Z]([a-z])+$", r"(\w+\s?)*!", "a*a*a*a*a*a*b",
     "(?=(a+))a*b", r"(a+)\1+b", "a{1,99}a{1,99}a{1,99}b", "x?" * 60 + "y"],
)  # fmt: skip
def test_redos_of_schemas(pattern: str) -> None:
    """80: a `pattern` that could be tried for hours says nothing, and an answer that it is given to is no poorer."""
    for text in ("a" * 33 + "!", "a" * 100_000, "ab " * 40, "x" * 60):
        assert unmet(text, {"pattern": pattern}) in ("", "pattern")
    assert unmet("a" * 199 + "!", {"pattern": pattern}) == ""


@pytest.mark.parametrize("pattern", ["^[A-Z]{3}-[0-9]+$", r"^\d{4}-\d{2}-\d{2}$", r"^[^@]+@[^@]+\.[^@]+$", "yes|no"])
def test_patterns_that_people_write(pattern: str) -> None:
    """80: those that end in time are read as before."""
    assert unmet("!", {"pattern": pattern}) == "pattern"


def test_redos_of_references() -> None:
    """80: a schema of a line that leads to itself twice is no endless one."""
    twice: Any = {"$ref": "#"}
    for rule in ({"anyOf": [twice, twice]}, {"allOf": [twice, twice, {"not": twice}]}, {"oneOf": [twice] * 9}):
        assert unmet([[{"a": 1}] * 9] * 9, rule | {"items": twice, "additionalProperties": twice}) == ""


@pytest.mark.parametrize("depth", [2, 5, 9])
def test_redos_of_paths(depth: int) -> None:
    """80: a raw path of a thousand segments is matched against wildcards at once, and escapes none of them."""
    floor = policy(floor="opus")
    wild = "".join(f"/{{p{n}}}" for n in range(depth))
    table = RouteTable({f"{wild}/end": floor, f"/a{wild.replace('p1', 'q')}/*/b": floor}, DEFAULT_LADDER)
    segments = (LONGEST_PATH - 10) // 2
    assert table.policies_for({"path": "/a" * segments}, None) == ()
    assert table.policies_for({"path": "/a" * segments + "/end"}, None) == (floor,)
    assert table.policies_for({"path": "/a" * segments + "/b"}, None) == (floor,)
    assert table.policies_for({"path": "/end" * (segments // 2)}, None) == (floor,)


async def test_redos_of_model_ids(make_router: MakeRouter, fake: FakeClaude) -> None:
    """80: an id of a model that is a megabyte long is refused or sent on, and takes nobody's time or memory."""
    router = make_router(classifier=FixedClassifier("simple"), policy=policy(explicit_model="route"))
    for model in (
        "a-" * (MEGABYTE // 2),
        "anthropic." * 100_000,
        "eu.anthropic.claude-" + "-v1" * 300_000,
        "-20" * 9999,
    ):
        async with router.bind() as binding:
            await router.claude.messages.create(model=model, max_tokens=9, messages=[{"role": "user", "content": "hi"}])
        assert fake.requests[-1].model == "claude-haiku-5-5"
        assert len(repr(binding.decisions[-1])) < 5_000


def test_rules_that_would_be_slow_are_refused() -> None:
    """80: phrases are words and not expressions, so an app cannot write one that goes astray."""
    for phrase in ("(a+)+$ *b*c", "a" * 201, "*"):
        with pytest.raises(ConfigurationError):
            KeywordClassifier(simple=[phrase])
    assert View("x").text == "x"
