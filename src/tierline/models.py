"""What each model accepts and how it behaves: one entry for each, and nothing but data.

Read on 2026-11-21 from the models' pages and migration guides of the Claude API documentation at
https://platform.claude.com/docs/en/about-claude/models, and checked against its answers. A model that is not here is
taken to accept everything: the API has the last word. `docs/new-model.md` says how to add one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from tierline.ladder import base_id

if TYPE_CHECKING:
    from collections.abc import Mapping

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
THINKING: Final = ("enabled", "adaptive", "between_tools", "disabled")
COMPUTER_TOOLS: Final = ("computer_20250124", "computer_20251124", "computer_toolset_20260801")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model. Sizes are in tokens.

    - `window`: most tokens of a prompt; `max_output`: most that `max_tokens` may be
    - `min_cacheable`: shorter prefixes are not cached, silently
    - `wordy`: whether its tokenizer counts about 30% more for the same text than that of the 4.6 generation
    - `sampling`: whether it takes `temperature` or `top_p` (never both) and `top_k`
    - `thinking`: the types of `thinking` that it takes
    - `thinks`: `asked` for, by `default` where the request does not say, or `always`
    - `efforts`: the levels of `output_config.effort` that it takes
    - `quiet_efforts`: those that it takes with thinking switched off
    - `forced_tools`: whether `tool_choice` may be `any` or `tool`
    - `prefill`: whether the last turn may be the assistant's
    - `geo`: whether it takes `inference_geo`; `fast`: whether it takes `speed="fast"`
    - `computer`: the one version of the computer tool that it takes
    - `quiet`: the type of `thinking` with which it gives a short answer to a short question; empty: none does
    """

    window: int
    max_output: int
    min_cacheable: int
    wordy: bool
    sampling: bool
    thinking: tuple[str, ...]
    thinks: Literal["asked", "default", "always"]
    efforts: tuple[str, ...]
    quiet_efforts: tuple[str, ...] = EFFORTS
    forced_tools: bool
    prefill: bool
    geo: bool
    fast: bool
    computer: str
    quiet: str = ""
    rejects: frozenset[str] = field(init=False)
    """What `tierline.call` may find in a request and this model answers with a 400."""

    def __post_init__(self) -> None:
        refused = {"temperature with top_p"}
        refused |= {f"thinking {kind}" for kind in THINKING if kind not in self.thinking}
        refused |= {f"effort {level}" for level in EFFORTS if level not in self.efforts}
        refused |= {tool for tool in COMPUTER_TOOLS if tool != self.computer}
        if "disabled" in self.thinking:
            refused |= {f"thinking disabled, effort {level}" for level in EFFORTS if level not in self.quiet_efforts}
        if self.thinks == "asked":
            refused |= {"thinking with a forced tool"}
        for known, feature in (
            (self.sampling, "sampling"),
            (self.forced_tools, "forced tool"),
            (self.prefill, "prefill"),
            (self.geo, "inference_geo"),
            (self.fast, "speed fast"),
        ):
            if not known:
                refused |= {feature}
        object.__setattr__(self, "rejects", frozenset(refused))


MODELS: Final[Mapping[str, Model]] = {
    "claude-haiku-4-5": Model(
        window=200_000,
        max_output=64_000,
        min_cacheable=4_096,
        wordy=False,
        sampling=True,
        thinking=("enabled", "disabled"),
        thinks="asked",
        efforts=(),
        forced_tools=True,
        prefill=True,
        geo=False,
        fast=False,
        computer="computer_20250124",
    ),
    "claude-haiku-5-5": Model(
        window=1_000_000,
        max_output=128_000,
        min_cacheable=512,
        wordy=True,
        sampling=False,
        thinking=("adaptive", "disabled"),
        thinks="default",
        efforts=EFFORTS,
        quiet_efforts=("low", "medium", "high"),
        forced_tools=True,
        prefill=False,
        geo=True,
        fast=False,
        computer="computer_toolset_20260801",
        quiet="disabled",
    ),
    "claude-sonnet-4-6": Model(
        window=1_000_000,
        max_output=128_000,
        min_cacheable=1_024,
        wordy=False,
        sampling=True,
        thinking=("enabled", "adaptive", "disabled"),
        thinks="asked",
        efforts=("low", "medium", "high", "max"),
        forced_tools=True,
        prefill=False,
        geo=True,
        fast=False,
        computer="computer_20251124",
    ),
    "claude-sonnet-5-5": Model(
        window=1_000_000,
        max_output=128_000,
        min_cacheable=512,
        wordy=True,
        sampling=False,
        thinking=("adaptive", "between_tools"),
        thinks="default",
        efforts=EFFORTS,
        forced_tools=False,
        prefill=False,
        geo=True,
        fast=False,
        computer="computer_toolset_20260801",
        quiet="between_tools",
    ),
    "claude-opus-4-8": Model(
        window=1_000_000,
        max_output=128_000,
        min_cacheable=1_024,
        wordy=True,
        sampling=False,
        thinking=("adaptive", "disabled"),
        thinks="asked",
        efforts=EFFORTS,
        forced_tools=True,
        prefill=False,
        geo=True,
        fast=True,
        computer="computer_20251124",
    ),
    "claude-opus-5-5": Model(
        window=1_000_000,
        max_output=128_000,
        min_cacheable=512,
        wordy=True,
        sampling=False,
        thinking=("adaptive",),
        thinks="always",
        efforts=EFFORTS,
        forced_tools=False,
        prefill=False,
        geo=True,
        fast=True,
        computer="computer_toolset_20260801",
    ),
    "claude-fable-5-2": Model(
        window=1_000_000,
        max_output=128_000,
        min_cacheable=512,
        wordy=True,
        sampling=False,
        thinking=("adaptive",),
        thinks="always",
        efforts=EFFORTS,
        forced_tools=False,
        prefill=False,
        geo=True,
        fast=True,
        computer="computer_toolset_20260801",
    ),
}

LARGEST_WINDOW: Final = 1_000_000
"""The window of a model that is not in the table, in tokens: the largest there is."""


def model_of(model: str) -> Model | None:
    """What is known of a model id, in the spelling of any platform."""
    return MODELS.get(base_id(model))
