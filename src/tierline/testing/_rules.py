"""What each model accepts, as the Messages API enforces it (November 2026).

This table is on purpose not shared with the rest of Tierline: it is the check on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class ModelRules:
    """One column of the table. Windows, outputs and minimums are in tokens."""

    id: str
    display_name: str
    line: Literal["haiku", "sonnet", "opus", "fable", "mythos"]
    window: int
    """The most tokens of a prompt."""
    max_output: int
    """The most that `max_tokens` may be."""
    sampling: bool
    """Whether `temperature`, `top_p` and `top_k` are accepted at all."""
    thinking: frozenset[str]
    """The `thinking.type` values that are accepted."""
    thinks: Literal["on_request", "by_default", "always"]
    efforts: frozenset[str]
    default_effort: str
    forced_tools: bool
    prefill: bool
    geo: bool
    fast: bool
    min_cacheable: int
    """Shorter prefixes are not cached, silently."""
    computer_tools: frozenset[str]
    """The versions of the computer tool that are accepted."""
    millitokens_per_byte: int
    """Of the tokenizer stand-in: 250 is four bytes a token."""
    verbosity: int
    """Length of the default answer, in percent."""
    disabled_efforts: frozenset[str] = frozenset(EFFORTS)
    """The efforts that thinking may be switched off with."""
    prefix_check: bool = False
    """Whether an edit of what stood before a thinking block is a 400."""
    unreadable: frozenset[str] = frozenset()
    """Lines of 5.x models whose thinking this one drops silently."""


_OLD_TOKENS: Final = 250
_NEW_TOKENS: Final = 325  # 4.7 and later count about 30% more for the same text
_ALL: Final = frozenset(EFFORTS)
_UP_TO_HIGH: Final = frozenset({"low", "medium", "high"})
_COMPUTER_1: Final = "computer_20250124"
_COMPUTER_2: Final = "computer_20251124"
_TOOLSET: Final = "computer_toolset_20260801"

_HAIKU_4_5: Final = ModelRules(
    id="claude-haiku-4-5",
    display_name="Claude Haiku 4.5",
    line="haiku",
    window=200_000,
    max_output=64_000,
    sampling=True,
    thinking=frozenset({"enabled", "disabled"}),
    thinks="on_request",
    efforts=frozenset(),
    default_effort="high",
    forced_tools=True,
    prefill=True,
    geo=False,
    fast=False,
    min_cacheable=4096,
    computer_tools=frozenset({_COMPUTER_1}),
    millitokens_per_byte=_OLD_TOKENS,
    verbosity=100,
)
_SONNET_4_6: Final = replace(
    _HAIKU_4_5,
    id="claude-sonnet-4-6",
    display_name="Claude Sonnet 4.6",
    line="sonnet",
    window=1_000_000,
    max_output=128_000,
    thinking=frozenset({"enabled", "disabled", "adaptive"}),
    efforts=_ALL - {"xhigh"},
    prefill=False,
    geo=True,
    min_cacheable=1024,
    computer_tools=frozenset({_COMPUTER_2}),
    verbosity=110,
)
_OPUS_4_8: Final = replace(
    _SONNET_4_6,
    id="claude-opus-4-8",
    display_name="Claude Opus 4.8",
    line="opus",
    sampling=False,
    thinking=frozenset({"disabled", "adaptive"}),
    efforts=_ALL,
    fast=True,
    millitokens_per_byte=_NEW_TOKENS,
    verbosity=120,
)
_HAIKU_5_5: Final = ModelRules(
    id="claude-haiku-5-5",
    display_name="Claude Haiku 5.5",
    line="haiku",
    window=1_000_000,
    max_output=128_000,
    sampling=False,
    thinking=frozenset({"adaptive", "disabled"}),
    thinks="by_default",
    efforts=_ALL,
    default_effort="medium",
    forced_tools=True,
    prefill=False,
    geo=True,
    fast=False,
    min_cacheable=512,
    computer_tools=frozenset({_TOOLSET}),
    millitokens_per_byte=_NEW_TOKENS,
    verbosity=100,
    disabled_efforts=_UP_TO_HIGH,
    prefix_check=True,
)
_SONNET_5_5: Final = replace(
    _HAIKU_5_5,
    id="claude-sonnet-5-5",
    display_name="Claude Sonnet 5.5",
    line="sonnet",
    thinking=frozenset({"adaptive", "between_tools"}),
    default_effort="high",
    forced_tools=False,
    verbosity=110,
    unreadable=frozenset({"opus", "fable", "mythos"}),
)
_OPUS_5_5: Final = replace(
    _SONNET_5_5,
    id="claude-opus-5-5",
    display_name="Claude Opus 5.5",
    line="opus",
    thinking=frozenset({"adaptive"}),
    thinks="always",
    fast=True,
    verbosity=120,
    unreadable=frozenset(),
)
_FABLE_5_2: Final = replace(
    _OPUS_5_5, id="claude-fable-5-2", display_name="Claude Fable 5.2", line="fable", verbosity=130
)
_MYTHOS_5_2: Final = replace(_FABLE_5_2, id="claude-mythos-5-2", display_name="Claude Mythos 5.2", line="mythos")
_OPUS_4_5: Final = replace(
    _HAIKU_4_5,
    id="claude-opus-4-5",
    display_name="Claude Opus 4.5",
    line="opus",
    efforts=_UP_TO_HIGH,
    computer_tools=frozenset({_COMPUTER_2}),
    verbosity=120,
)
# The API ignores `speed="fast"` here. It is refused instead, so that no test takes a slow answer for a fast one.
_OPUS_4_6: Final = replace(
    _SONNET_4_6,
    id="claude-opus-4-6",
    display_name="Claude Opus 4.6",
    line="opus",
    min_cacheable=4096,
    verbosity=120,
)
_OPUS_4_7: Final = replace(
    _OPUS_4_8, id="claude-opus-4-7", display_name="Claude Opus 4.7", fast=False, min_cacheable=2048
)
_SONNET_5: Final = replace(
    _OPUS_4_7,
    id="claude-sonnet-5",
    display_name="Claude Sonnet 5",
    line="sonnet",
    thinks="by_default",
    min_cacheable=1024,
    computer_tools=frozenset({_COMPUTER_2, _TOOLSET}),
    verbosity=110,
)
_OPUS_5: Final = replace(
    _SONNET_5,
    id="claude-opus-5",
    display_name="Claude Opus 5",
    line="opus",
    fast=True,
    min_cacheable=512,
    verbosity=120,
    disabled_efforts=_UP_TO_HIGH,
)
_FABLE_5: Final = replace(
    _OPUS_5,
    id="claude-fable-5",
    display_name="Claude Fable 5",
    line="fable",
    thinking=frozenset({"adaptive"}),
    thinks="always",
    fast=False,
    verbosity=130,
)
_FABLE_5_1: Final = replace(
    _FABLE_5, id="claude-fable-5-1", display_name="Claude Fable 5.1", forced_tools=False, prefix_check=True
)

# Not here, for want of a price: claude-mythos-5 and claude-mythos-5-1, which are as Fable 5 and 5.1.
MODELS: Final[Mapping[str, ModelRules]] = {
    rules.id: rules
    for rules in (
        _HAIKU_4_5, _OPUS_4_5, _SONNET_4_6, _OPUS_4_6, _OPUS_4_7, _OPUS_4_8, _SONNET_5, _OPUS_5, _FABLE_5, _FABLE_5_1,
        _HAIKU_5_5, _SONNET_5_5, _OPUS_5_5, _FABLE_5_2, _MYTHOS_5_2,
    )
}  # fmt: skip

SIGNED_BY: Final = "fake"
"""How the signature of a thought begins that was made here: `fake:model:prefix:thought`."""

# The dated ids that the API also answers to.
DATED: Final[Mapping[str, str]] = {
    "claude-haiku-4-5-20251001": "claude-haiku-4-5",
    "claude-opus-4-5-20251101": "claude-opus-4-5",
}

# Sonnet 4.5 retires on 2026-11-30. It counts as gone already, so that no test changes on that day.
RETIRED: Final = ("claude-1", "claude-2", "claude-instant", "claude-3", "claude-opus-4-0", "claude-opus-4-20",
                  "claude-sonnet-4-0", "claude-sonnet-4-20", "claude-sonnet-4-5", "claude-opus-4-1",
                  "claude-mythos-preview")  # fmt: skip
"""Prefixes of ids that were public and are a 404 now."""


def line_of(signature: object) -> str | None:
    """The line of the model whose thought has this signature; None for a signature from elsewhere."""
    match str(signature).split(":"):
        case [first, model, _, _] if first == SIGNED_BY and model in MODELS:
            return MODELS[model].line
        case _:
            return None
