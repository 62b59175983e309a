"""What each model accepts and how it behaves: one entry for each, and nothing but data.

Read on the day of `READ_ON` from the Claude API documentation, under https://platform.claude.com/docs/en, and checked
against the API's answers for Haiku 4.5 and 5.5, Sonnet 4.6 and 5.5, Opus 4.8 and 5.5, and Fable 5.2. Where each field
stands there:

- `window`                                  build-with-claude/context-windows
- `max_output`, `sampling`, `prefill`, `forced_tools`
                                            build-with-claude/thinking ("Limits and feature compatibility")
- `thinking`, `thinks`, `quiet_efforts`     build-with-claude/thinking-troubleshooting
- `efforts`                                 build-with-claude/effort
- `min_cacheable`                           build-with-claude/prompt-caching ("Cache limitations")
- `wordy`                                   build-with-claude/token-counting
- `geo`                                     manage-claude/data-residency
- `fast`                                    build-with-claude/fast-mode
- `unread`                                  build-with-claude/preserved-thinking, and each model's "What's new"
- `computer`                                agents-and-tools/tool-use/computer-use-tool ("Earlier tool versions")
- `deprecated`, `retires`, `instead`        about-claude/model-deprecations

Each entry names its own page. A model that is not here is taken to accept everything: the API has the last word.
`docs/new-model.md` says how to add one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Final, Literal

from tierline.ladder import base_id

if TYPE_CHECKING:
    from collections.abc import Mapping

READ_ON: Final = date(2026, 11, 21)
"""When the documentation was read last."""
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
    - `computer`: the versions of the computer tool that it takes
    - `quiet`: the type of `thinking` with which it gives a short answer to a short question; empty: none does
    - `unread`: how the ids of models begin whose thoughts it does not read
    - `deprecated`, `retires`: when that was announced, and the first day without it; None: not announced
    - `instead`: the id to write instead of a deprecated one
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
    computer: tuple[str, ...]
    quiet: str = ""
    unread: tuple[str, ...] = ("claude-",)
    deprecated: date | None = None
    retires: date | None = None
    instead: str = ""
    rejects: frozenset[str] = field(init=False)
    """What `tierline.call` may find in a request and this model answers with a 400."""

    def __post_init__(self) -> None:
        refused = {"temperature with top_p"}
        refused |= {f"thinking {kind}" for kind in THINKING if kind not in self.thinking}
        refused |= {f"effort {level}" for level in EFFORTS if level not in self.efforts}
        refused |= {tool for tool in COMPUTER_TOOLS if tool not in self.computer}
        loud = [level for level in EFFORTS if level not in self.quiet_efforts]
        for off in {"disabled", "between_tools"}.intersection(self.thinking):
            refused |= {f"thinking {off}, effort {level}" for level in loud}
        if "enabled" in self.thinking:
            refused |= {"thinking with a forced tool"}  # where it may think, and need not, the tool comes first
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

    @property
    def drops(self) -> bool:
        """Whether thoughts that it does not read are dropped silently; before 5.0 they are an error in a tool loop."""
        return self.thinks != "asked"


# What the models of one generation have in common.

_4_5: Final = Model(
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
    computer=("computer_20250124",),
)
_4_6: Final = replace(
    _4_5,
    window=1_000_000,
    max_output=128_000,
    min_cacheable=1_024,
    thinking=("enabled", "adaptive", "disabled"),
    efforts=("low", "medium", "high", "max"),
    prefill=False,
    geo=True,
    computer=("computer_20251124",),
)
_4_7: Final = replace(_4_6, wordy=True, sampling=False, thinking=("adaptive", "disabled"), efforts=EFFORTS)
_LATER: Final = ("claude-haiku-5-", "claude-sonnet-5-", "claude-opus-5-", "claude-fable-5-", "claude-mythos-5-")
"""Models after 5.0: those before read none of their thoughts."""
_GREATER: Final = ("claude-opus-5", "claude-fable", "claude-mythos")
_5_0: Final = replace(
    _4_7,
    min_cacheable=512,
    thinks="default",
    computer=("computer_20251124", "computer_toolset_20260801"),
    quiet="disabled",
    unread=_LATER,
)
_5_0_FABLE: Final = replace(_5_0, thinking=("adaptive",), thinks="always", quiet="")
_5_1_FABLE: Final = replace(_5_0_FABLE, forced_tools=False, unread=_LATER[:2])
_5_5: Final = replace(_5_0, computer=("computer_toolset_20260801",))
_5_2_FABLE: Final = replace(_5_1_FABLE, fast=True, computer=_5_5.computer)

MODELS: Final[Mapping[str, Model]] = {
    # Measured.
    "claude-haiku-4-5": _4_5,
    # models/sonnet-4-5/overview
    "claude-sonnet-4-5": replace(
        _4_5,
        min_cacheable=1_024,
        deprecated=date(2026, 9, 30),
        retires=date(2026, 11, 30),
        instead="claude-sonnet-5-5",
    ),
    # models/opus-4-5/overview: the one of its generation that takes an effort
    "claude-opus-4-5": replace(_4_5, efforts=("low", "medium", "high"), computer=("computer_20251124",)),
    # Measured.
    "claude-sonnet-4-6": _4_6,
    # models/opus-4-6/overview. The API ignores speed="fast" here; it is left out, because there is no price for it.
    "claude-opus-4-6": replace(_4_6, min_cacheable=4_096),
    # models/opus-4-7/overview
    "claude-opus-4-7": replace(_4_7, min_cacheable=2_048),
    # Measured; fast mode until 2026-11-30.
    "claude-opus-4-8": replace(_4_7, fast=True),
    # models/sonnet-5/migration-guide
    "claude-sonnet-5": replace(_5_0, min_cacheable=1_024),
    # models/opus-5/whats-new-opus-5
    "claude-opus-5": replace(_5_0, quiet_efforts=("low", "medium", "high"), fast=True),
    # models/fable-5/migration-guide, which is one for both; they differ in who may use them
    "claude-fable-5": _5_0_FABLE,
    "claude-mythos-5": _5_0_FABLE,
    # models/fable-5-1/migration-guide, which is one for both
    "claude-fable-5-1": _5_1_FABLE,
    "claude-mythos-5-1": _5_1_FABLE,
    # Measured.
    "claude-haiku-5-5": replace(_5_5, quiet_efforts=("low", "medium", "high"), unread=("claude-sonnet-5-5", *_GREATER)),
    # Measured.
    "claude-sonnet-5-5": replace(
        _5_5,
        thinking=("adaptive", "between_tools"),
        quiet_efforts=("low", "medium", "high"),
        forced_tools=False,
        quiet="between_tools",
        unread=_GREATER,
    ),
    # Measured.
    "claude-opus-5-5": replace(
        _5_5, thinking=("adaptive",), thinks="always", forced_tools=False, fast=True, quiet="", unread=_GREATER[1:]
    ),
    # Measured; Mythos 5.2 is the same model: models/fable-5-2/whats-new-fable-5-2
    "claude-fable-5-2": _5_2_FABLE,
    "claude-mythos-5-2": _5_2_FABLE,
}

UNKNOWN: Final[Mapping[str, str]] = {
    # The SDK's list of deprecated models says June 30th, 2026; about-claude/model-deprecations gave no date.
    "claude-mythos-preview": "was retired on 2026-06-30, and which computer tool it took is written nowhere",
}
"""Ids of the SDK's list that have no entry, and why."""

SMALLEST_WINDOW: Final = min(model.window for model in MODELS.values())
"""Every model has room for a prompt of so many tokens."""

LARGEST_WINDOW: Final = 1_000_000
"""The window of a model that is not in the table, in tokens: the largest there is."""


def model_of(model: str) -> Model | None:
    """What is known of a model id, in the spelling of any platform."""
    found = MODELS.get(model)  # most ids are written as the table has them
    return found if found is not None else MODELS.get(base_id(model))


def reads_thoughts(reader: str, writer: str) -> bool:
    """Whether a model makes use of what another has thought; of one that is not in the table nobody knows: it does."""
    mine, theirs = base_id(reader), base_id(writer)
    facts = MODELS.get(mine)
    return mine == theirs or facts is None or not theirs.startswith(facts.unread)


def notice_of(model: str, today: date) -> str:
    """What an operator must know of a model id: that it goes, went, or is unknown; empty for nothing."""
    facts = model_of(model)
    if facts is None:
        why = UNKNOWN.get(base_id(model))
        return f"{model} {why}" if why else ""
    if facts.retires is None:
        return f"{model} is deprecated: write {facts.instead}" if facts.deprecated else ""
    went = today >= facts.retires
    return f"{model} {'was retired' if went else 'is deprecated and retires'} on {facts.retires}: write {facts.instead}"
