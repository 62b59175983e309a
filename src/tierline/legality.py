"""Makes a call legal for a model that it was not written for. Pure: what is wrong, what mends it, what nothing mends.

For each kind of trouble there is one action:

- `rewrite`  the request is changed so that the model takes it, and the decision says how
- `raise`    the model is passed over: the next tier up is tried, then (except for critical calls) the next one down
- `refuse`   IllegalRequestError
- `send`     nothing: the API has the last word

What a rewrite may not do: change `system`, `tools`, messages or an output schema, or what an answer is in kind.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from tierline.errors import ConfigurationError
from tierline.models import EFFORTS, model_of
from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tierline.call import Call
    from tierline.models import Model
    from tierline.values import Terms

Action = Literal["rewrite", "raise", "refuse", "send"]

ACTIONS: Final[Mapping[str, Action]] = MappingProxyType(
    {
        "sampling": "rewrite",  # temperature, top_p, top_k: left out
        "thinking": "rewrite",  # another type, or a budget as an effort and back: see `EFFORT_TOKENS`
        "effort": "rewrite",  # the next lower level that there is; left out where there is none
        "speed": "rewrite",  # the answer is the same, and comes later
        "max_tokens": "rewrite",  # down to what the model can write
        "forced tool": "raise",  # an answer without the tool would be another kind of answer
        "prefill": "raise",  # it is a message
        "inference_geo": "raise",  # it may be the law
        "computer tool": "raise",  # it is a tool
        "window": "raise",  # nothing can be left out of a prompt
    }
)
"""What is done by default about each kind of trouble."""

_REWRITABLE: Final = frozenset(kind for kind, action in ACTIONS.items() if action == "rewrite")
_KINDS: Final = (("sampling", "sampling"), ("temperature", "sampling"), ("thinking", "thinking"), ("effort", "effort"),
                 ("speed", "speed"), ("computer", "computer tool"))  # fmt: skip

EFFORT_TOKENS: Final[Mapping[str, int]] = MappingProxyType(
    {"low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 32_768, "max": 57_344}
)
"""The thinking budget, in tokens, that an effort stands for. A budget becomes the lowest effort that covers it, the
highest where none does; so an effort that became a budget becomes the same effort again."""
_LEAST_BUDGET: Final = 1_024
_SPARSE: Final = 5
"""More bytes than that of any plain text are never one token, by the tokenizers of these models."""
_DENSE: Final = 2
"""As few bytes of common text are still one token, whatever its language; tokenizers that count more have less."""
_WORDIER: Final = 1.3


@veiled("changes")
class Fit(NamedTuple):
    """What it takes to send a call to a model.

    - `changes`: top-level fields of the body; None leaves a field out
    - `reasons`: what was changed and why, for the decision
    - `terms`: what the changed request is billed by; None: as the call is
    - `blocked`: what the model rejects and nothing mends; empty where it can be sent
    - `refuse`: whether that is to be an error, and not a matter for another tier
    """

    changes: Mapping[str, Any] = MappingProxyType({})
    reasons: tuple[str, ...] = ()
    terms: Terms | None = None
    blocked: str = ""
    refuse: bool = False


AS_IT_IS: Final = Fit()


def actions_of(changed: Mapping[str, Action] | None) -> Mapping[str, Action]:
    """The table of actions with an app's own. ConfigurationError for what cannot be."""
    for kind, action in (changed or {}).items():
        if kind not in ACTIONS:
            raise ConfigurationError(f"legality: there is no {kind!r:.40}; there are {', '.join(ACTIONS)}")
        if action not in get_args(Action):
            raise ConfigurationError(f"legality[{kind!r}]: {action!r:.40} is none of {', '.join(get_args(Action))}")
        if action == "rewrite" and kind not in _REWRITABLE:
            raise ConfigurationError(
                f"legality[{kind!r}]: nothing can be rewritten there; write 'raise', 'refuse' or 'send'"
            )
    return {**ACTIONS, **(changed or {})}


def fit(
    call: Call,
    model: str,
    limit: int | None,
    actions: Mapping[str, Action] = ACTIONS,
    counted: Mapping[str, int] = MappingProxyType({}),
) -> Fit:
    """What it takes to send `call` to `model` with `max_tokens=limit`. `counted` has its prompt's tokens by model."""
    facts = model_of(model)
    if facts is None:
        return AS_IT_IS
    features, size = call.features, call.input_bound
    wrong = facts.rejects & features if features else features
    over = limit is not None and limit > facts.max_output
    # How long a prompt is may be asked of any.
    short = not counted and size is not None and size <= facts.window >= call.text_bytes
    long = not short and call.kind == "create" and _room(call, facts, counted.get(model)) == "none"
    if not (wrong or over or long):
        return AS_IT_IS
    kinds = dict.fromkeys(map(_kind, sorted(wrong)))
    if over:
        kinds["max_tokens"] = None
    if long:
        kinds["window"] = None
    kinds = {kind: None for kind in kinds if actions[kind] != "send"}
    if not kinds:
        return AS_IT_IS
    for kind in kinds:
        if actions[kind] != "rewrite":
            return Fit(blocked=_told(kind, wrong, facts), refuse=actions[kind] == "refuse")
    return _rewritten(call, facts, limit, kinds)


def _room(call: Call, facts: Model, counted: int | None = None) -> Literal["enough", "unsure", "none"]:
    """Whether a prompt fits into a model's window, by its tokens, or else by its size alone."""
    if counted is not None:
        return "none" if counted > facts.window else "enough"
    if call.text_bytes > facts.window * _SPARSE:
        return "none"
    size = call.input_bound
    if size is None:
        return "unsure"
    tokens = size / _DENSE * (_WORDIER if facts.wordy else 1)
    return "enough" if size <= facts.window or tokens <= facts.window else "unsure"


def unsure(call: Call, models: Iterable[str]) -> list[str]:
    """The models on which a prompt may not fit, and should be counted.

    Of one whose length nobody can tell (documents, files) only those that have less room than another.
    """
    known = {model: facts for model in models if (facts := model_of(model)) is not None}
    most = max((facts.window for facts in known.values()), default=0)
    return [
        model
        for model, facts in known.items()
        if _room(call, facts) == "unsure" and (call.input_bound is not None or facts.window < most)
    ]


def _kind(feature: str) -> str:
    return next((kind for start, kind in _KINDS if feature.startswith(start)), feature)


def _told(kind: str, wrong: Iterable[str], facts: Model) -> str:
    """What a model rejects, for reasons and errors."""
    if kind == "window":
        return f"a prompt over {facts.window} tokens"
    if kind == "max_tokens":
        return f"max_tokens over {facts.max_output}"
    return min(feature for feature in wrong if _kind(feature) == kind)


def _rewritten(call: Call, facts: Model, limit: int | None, kinds: Iterable[str]) -> Fit:
    body, changes, reasons, terms = call.body, dict[str, Any](), list[str](), None
    if "max_tokens" in kinds:
        limit = changes["max_tokens"] = facts.max_output
        reasons.append(f"max_tokens is {facts.max_output} there at most")
    if "sampling" in kinds:
        # A model that takes one of them, and not both, keeps the temperature.
        dropped = ("top_p",) if facts.sampling else ("temperature", "top_p", "top_k")
        gone = [name for name in dropped if body.get(name) is not None]
        changes.update(dict.fromkeys(gone))
        reasons.append(f"{', '.join(gone)} left out")
    if "speed" in kinds:
        changes["speed"] = None
        terms = call.terms._replace(fast=False)
        reasons.append("speed fast left out")
    if not {"thinking", "effort", "max_tokens"}.isdisjoint(kinds):
        changes |= _thinking(body, facts, limit, reasons)
    return Fit(changes, tuple(reasons), terms)


def _thinking(body: Mapping[str, Any], facts: Model, limit: int | None, reasons: list[str]) -> dict[str, Any]:
    """`thinking` and `output_config.effort` as a model takes them: the one stands for the other where it must."""
    asked = body.get("thinking")
    thinking: dict[str, Any] | None = dict(asked) if isinstance(asked, dict) else None
    kind = thinking.get("type") if thinking is not None else None
    output = body.get("output_config")
    effort = said = output.get("effort") if isinstance(output, dict) else None
    if kind == "enabled" and thinking is not None and kind not in facts.thinking:
        budget = thinking.pop("budget_tokens", None)
        thinking["type"], effort = "adaptive", effort or effort_for(budget)
    elif kind == "adaptive" and thinking is not None and kind not in facts.thinking:
        budget = min(EFFORT_TOKENS.get(effort or "", EFFORT_TOKENS["high"]), (limit or 0) // 2)
        # It may think, which is not that it must: where there is no room for both, the answer comes first.
        thinking = {**thinking, "type": "enabled", "budget_tokens": budget} if budget >= _LEAST_BUDGET else None
    elif kind in ("disabled", "between_tools") and kind not in facts.thinking:
        thinking = {"type": facts.quiet or "disabled"}
        if thinking["type"] not in facts.thinking:
            thinking, effort = None, effort or "low"
    now = thinking.get("type") if thinking is not None else None
    if thinking is not None and now == "enabled":
        if _forced(body):
            thinking = None
        elif limit == facts.max_output and _tokens(thinking.get("budget_tokens")) >= limit:
            thinking["budget_tokens"] = limit // 2  # of a `max_tokens` that was over what the model can write
    effort = _level(effort, facts, quiet=now in ("disabled", "between_tools"))
    changes: dict[str, Any] = {}
    if thinking != asked:
        changes["thinking"] = thinking
        reasons.append(f"thinking {kind} is {_spelt(thinking)} there")
    if effort != said:
        rest = {name: value for name, value in (output or {}).items() if name != "effort"}
        changes["output_config"] = {**rest, **({"effort": effort} if effort is not None else {})} or None
        reasons.append(f"effort {said or 'unsaid'} is {effort or 'left out'} there")
    return changes


def _forced(body: Mapping[str, Any]) -> bool:
    choice = body.get("tool_choice")
    return isinstance(choice, dict) and choice.get("type") in ("any", "tool")


def _level(effort: object, facts: Model, *, quiet: bool) -> str | None:
    """The effort itself, or the next lower one that the model takes; None where it takes none."""
    if effort not in EFFORTS:
        return effort if isinstance(effort, str) and facts.efforts else None
    allowed = [level for level in EFFORTS[: EFFORTS.index(effort) + 1] if level in facts.efforts]
    if quiet:
        allowed = [level for level in allowed if level in facts.quiet_efforts]
    return allowed[-1] if allowed else None


def _spelt(thinking: Mapping[str, Any] | None) -> str:
    if thinking is None:
        return "left out"
    budget = thinking.get("budget_tokens")
    return f"{thinking['type']} with {budget} tokens" if budget is not None else str(thinking["type"])


def effort_for(budget: object) -> str:
    """The lowest effort that covers a thinking budget, in tokens."""
    return next((effort for effort, most in EFFORT_TOKENS.items() if _tokens(budget) <= most), "max")


def _tokens(budget: object) -> int:
    return budget if isinstance(budget, int) else 0
