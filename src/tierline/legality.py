"""What each model rejects, as data, and the one question asked of it.

From the models' own documentation and the API's answers, as of 2026-11-21. A model that is not here is taken
to accept everything: the API has the last word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tierline.ladder import base_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierline.call import Call


@dataclass(frozen=True, slots=True)
class Accepts:
    """The limits of a model, in tokens, and the features of a call that it answers with a 400."""

    window: int
    max_output: int
    rejects: frozenset[str]
    thinks: bool = False
    """Whether the model thinks when the request does not say."""
    quiet: str = ""
    """The type of `thinking` with which a model that thinks gives a short answer to a short question; empty: none."""


_M = 1_000_000
_K = 1_000
_COMPUTER_2025 = "computer_20250124"
_COMPUTER_TOOLSET = "computer_toolset_20260801"
_COMPUTER_LATE_2025 = "computer_20251124"

_MODERN = frozenset({"sampling", "thinking enabled", _COMPUTER_2025, _COMPUTER_LATE_2025})
_CLASSIC = frozenset({"temperature with top_p", "speed fast", _COMPUTER_TOOLSET})

MODELS: Final[Mapping[str, Accepts]] = {
    "claude-haiku-4-5": Accepts(
        200 * _K,
        64 * _K,
        _CLASSIC | {"thinking adaptive", "effort", "inference_geo", _COMPUTER_LATE_2025},
    ),
    "claude-haiku-5-5": Accepts(
        _M,
        128 * _K,
        _MODERN | {"thinking disabled above effort high", "prefill", "speed fast"},
        thinks=True,
        quiet="disabled",
    ),
    "claude-sonnet-4-6": Accepts(_M, 128 * _K, _CLASSIC | {"effort xhigh", "prefill", _COMPUTER_2025}),
    "claude-sonnet-5-5": Accepts(
        _M,
        128 * _K,
        _MODERN | {"thinking disabled", "forced tool", "prefill", "speed fast"},
        thinks=True,
        quiet="between_tools",
    ),
    "claude-opus-4-8": Accepts(
        _M,
        128 * _K,
        frozenset({"sampling", "thinking enabled", "prefill", _COMPUTER_2025, _COMPUTER_TOOLSET}),
    ),
    "claude-opus-5-5": Accepts(_M, 128 * _K, _MODERN | {"thinking disabled", "forced tool", "prefill"}, thinks=True),
    "claude-fable-5-2": Accepts(_M, 128 * _K, _MODERN | {"thinking disabled", "forced tool", "prefill"}, thinks=True),
}

LARGEST_WINDOW: Final = _M
"""The window of a model that is not in the table, in tokens: the largest there is."""


def accepts(model: str) -> Accepts | None:
    """What is known of a model id, in the spelling of any platform."""
    return MODELS.get(base_id(model))


def objection(call: Call, model: str, max_tokens: int | None) -> str:
    """Why the API would answer this call on `model` with a 400; empty where nothing is known to be wrong."""
    known = MODELS.get(base_id(model))
    if known is None:
        return ""
    if rejected := known.rejects & call.features:
        return min(rejected)
    if max_tokens is not None and max_tokens > known.max_output:
        return f"max_tokens over {known.max_output}"
    # Four bytes a token is as few as any of these tokenizers makes of plain text: what is over the window
    # by that measure is over it by any.
    if call.input_bound is not None and call.input_bound > known.window * 5:
        return f"a prompt over {known.window} tokens"
    return ""
