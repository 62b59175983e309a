"""Steps of an agent loop: what each is about, read off its last turn, and where it is best made. Pure.

| step | is told by | is judged |
|---|---|---|
| plan | an error came back, a call was repeated, a person spoke beside the results | as what began the loop |
| read | the results of tools, which are all well; others may be called next | one label easier |
| fill | one tool is forced, or nothing may follow but an answer of a given schema | `simple` |
| answer | no tool may be called any more | as what began the loop |

What a model thought in a loop is tied to it. Others drop what they cannot read of that, and would plan anew: so a step
that decides what comes next goes to no model that does not read the thoughts of the one that decided before. One that
fills in a form decides nothing; the thoughts come to life again when the loop goes back. Models of before 5.0 answer
with an error where thoughts of others are in a loop, and keep it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from tierline.budgets import DEFAULT_ACCOUNT
from tierline.choice import NO_OPINION
from tierline.conversation import turn_cost
from tierline.models import model_of, reads_thoughts
from tierline.values import LABELS, Classification, usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tierline.call import Call
    from tierline.conversation import Conversation
    from tierline.ladder import Ladder
    from tierline.prices import PriceBook
    from tierline.values import Label, Terms

Kind = Literal["plan", "read", "fill", "answer"]
_THOUGHTS: Final = ("thinking", "redacted_thinking")


class Step(NamedTuple):
    """A later step of a tool loop. `why` says what it was told by; `thoughts` whether a model thought in the loop."""

    kind: Kind
    why: str
    thoughts: bool = False

    @property
    def decides(self) -> bool:
        """Whether it has a say in what comes next."""
        return self.kind != "fill"

    @property
    def eased(self) -> bool:
        """Whether it is easier than the request that began the loop."""
        return self.kind in ("read", "fill")


def step_of(call: Call, *, known: bool = True) -> Step | None:
    """The step that a call is; None where it is no later step of a tool loop. Bodies come from anywhere.

    `known` says whether it is known which tier made the steps before.
    """
    if not call.in_tool_loop:
        return None
    messages: list[Any] = call.body["messages"]
    kind, why = _kind(call.body, messages)
    thoughts = any(block.get("type") in _THOUGHTS for turn in _answers(messages) for block in turn)
    if thoughts and not known and kind == "read":
        return Step("plan", "step: nobody knows here whose thoughts are in the loop, so it is planned anew", thoughts)
    return Step(kind, why, thoughts)


def _kind(body: Mapping[str, Any], messages: list[Any]) -> tuple[Kind, str]:
    last = _blocks(messages[-1])
    choice = body.get("tool_choice")
    chosen = choice.get("type") if isinstance(choice, dict) else None
    if any(block.get("type") == "tool_result" and block.get("is_error") is True for block in last):
        return "plan", "step: a tool failed, and what to do is planned anew"
    if chosen == "tool":
        return "fill", "step: a form is filled in, for one tool is forced"
    if chosen == "none" or not body.get("tools"):
        if _has_schema(body):
            return "fill", "step: a form is filled in, for the answer has a schema and no tool may be called"
        return "answer", "step: the final answer is written"
    if any(isinstance(text := block.get("text"), str) and text.strip() for block in last):
        return "plan", "step: somebody speaks beside the results, and what to do is planned anew"
    if _repeated(messages):
        return "plan", "step: the same calls were made twice, and what to do is planned anew"
    return "read", "step: results of tools are read"


def _has_schema(body: Mapping[str, Any]) -> bool:
    output = body.get("output_config")
    return bool(body.get("output_format") or (isinstance(output, dict) and output.get("format")))


def _repeated(messages: list[Any]) -> bool:
    """Whether the last two answers called the same tools with the same input."""
    calls = []
    for turn in _answers(messages):
        calls.append([(block.get("name"), block.get("input")) for block in turn if block.get("type") == "tool_use"])
        if len(calls) == 2:  # noqa: PLR2004
            return bool(calls[0]) and calls[0] == calls[1]
    return False


def _answers(messages: list[Any]) -> Iterator[list[dict[str, Any]]]:
    """The blocks of what the model said since a person began the loop, the latest first."""
    for message in reversed(messages):
        blocks = _blocks(message)
        role = message.get("role") if isinstance(message, dict) else None
        if role == "assistant":
            yield blocks
        elif role == "user" and not any(block.get("type") == "tool_result" for block in blocks):
            return


def _blocks(message: object) -> list[dict[str, Any]]:
    content = message.get("content") if isinstance(message, dict) else None
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def learned_on(route: str | None, step: Step | None) -> str | None:
    """On which route outcomes of a call are learned: steps that are easier than their loop have their own."""
    return f"{route or DEFAULT_ACCOUNT} [{step.kind}]" if step is not None and step.eased else route


def eased(step: Step, opinion: Classification | None, place: int | None, ladder: Ladder) -> Classification:
    """What a step that is easier than its loop is.

    `opinion` is that on the request that began the loop, `place` where its route has that go, None where it has not
    taught enough.
    """
    if step.kind == "fill":
        return Classification("simple", 1.0, "step")
    label = opinion.label if opinion is not None and place is None else _label_at(place, ladder)
    at = max(0, LABELS.index(label) - 1) if label in LABELS else 0
    sure = opinion.confidence if opinion is not None and place is None else 1.0
    return Classification(LABELS[at], sure, "step", reason=f"the loop is {label}, reading in it {LABELS[at]}")


def _label_at(place: int | None, ladder: Ladder) -> Label:
    if place is None:
        return NO_OPINION
    return next((label for label in LABELS if ladder.labels[label] >= place), LABELS[-1])


def best_place(
    step: Step,
    talk: Conversation,
    place: int,
    ladder: Ladder,
    prices: PriceBook,
    terms: Terms,
    now: float,
    *,
    arithmetic: bool = True,
) -> tuple[int, str]:
    """Where a step goes that is for `place` on the ladder, and why.

    Every tier from there up to the one that decided last, or answered last, is good enough: of those that may have it,
    the one on which this step costs least, with what is warm in the prompt cache of each; without `arithmetic` the
    lowest. Moving up is never held.
    """
    here, decider = ladder.place_of(talk.tier), ladder.place_of(talk.decider or talk.tier)
    if here is None or decider is None or place >= max(here, decider):
        return place, ""
    among = range(place, max(here, decider) + 1)
    able = [p for p in among if _may(step, ladder[decider].model, ladder[p].model)] or [decider]
    best = able[0]
    costs = {p: turn_cost(talk, ladder[p].model, now, prices, terms) for p in {place, here, *able}}
    known = {p: cost for p, cost in costs.items() if cost is not None}
    if arithmetic and len(known) == len(costs):
        best = min(able, key=lambda p: (known[p], p))
    name, wanted = ladder[best].name, ladder[place].name
    if place not in able:
        return best, f"step on {name}: {wanted} would drop the thoughts of {ladder[decider].name}"
    if best == here == place or len(known) < len(costs):
        return best, ""
    if best != place:
        return best, f"step on {name}: {usd(known[best])} there, {usd(known[place])} on {wanted} with its cold cache"
    return best, f"step moves from {ladder[here].name} to {name}: {usd(known[best])} instead of {usd(known[here])}"


def _may(step: Step, decider: str, there: str) -> bool:
    """Whether a step may go there, for what was thought in its loop."""
    if not step.thoughts or reads_thoughts(there, decider):
        return True
    facts = [model_of(decider), model_of(there)]
    return not step.decides and all(known is None or known.drops for known in facts)
