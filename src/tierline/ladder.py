"""Tiers and the ladder that they form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, overload

from tierline.errors import ConfigurationError
from tierline.numeric import is_whole
from tierline.values import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterator

_DATED: Final = re.compile(r"-20\d{6}\Z")
_BEDROCK: Final = re.compile(r"(?:[a-z-]+\.)?anthropic\.(claude-[a-z0-9-]+?)(?:-v\d+(?::\d+k?)*)?")
# What the app's request says by itself, and what changes its price: that is reserved and judged by what it asks.
_NOT_PATCHED: Final = frozenset({
    "cache_control", "compaction", "container", "context_management", "fallbacks", "inference_geo", "max_tokens",
    "mcp_servers", "messages", "model", "service_tier", "speed", "stream", "system", "thread", "tool_choice", "tools",
})  # fmt: skip


def base_id(model: str) -> str:
    """The model that an id names, whoever sells it.

    `us.anthropic.claude-x-v1:0` (Bedrock), `claude-x@20260801` (Vertex) and `claude-x-20260801` are all `claude-x`.
    """
    if "anthropic." in model:
        found = _BEDROCK.fullmatch(resource(model))
        model = found[1] if found is not None else model
    elif "@" in model and model.startswith("claude-"):
        model = model.partition("@")[0]
    return _DATED.sub("", model) if "-20" in model else model


def resource(model: str) -> str:
    """A model id of Bedrock without the ARN that it may end."""
    return model.rpartition("/")[2] if model.startswith("arn:") else model


def check_tokens(value: object, what: str) -> None:
    """ConfigurationError unless `value` is None or a whole number of tokens above 0."""
    if value is not None and not is_whole(value, 1):
        raise ConfigurationError(f"{what} must be a whole number of tokens above 0, got {value!r}")


@dataclass(frozen=True, slots=True)
class Tier:
    """A rung of the ladder.

    `max_tokens` caps what a routed call may ask for here (tokens of output, thinking included).
    `patch` gives top-level fields that a request going here gets where the app did not set them,
    such as `{"output_config": {"effort": "low"}}`. Raises ConfigurationError for what cannot work.
    """

    name: str
    model: str
    max_tokens: int | None = None
    patch: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name and isinstance(self.model, str) and self.model):
            raise ConfigurationError(f"a tier needs a name and a model id, got {self.name!r} and {self.model!r}")
        if self.model == "auto":
            raise ConfigurationError(f"tier {self.name!r}: a tier needs a real model id, not 'auto'")
        check_tokens(self.max_tokens, f"tier {self.name!r}: max_tokens")
        if not isinstance(self.patch, Mapping):
            raise ConfigurationError(f"tier {self.name!r}: patch must be a mapping, got {type(self.patch).__name__}")
        if frozen := _NOT_PATCHED.intersection(self.patch):
            raise ConfigurationError(f"tier {self.name!r}: patch cannot set {', '.join(sorted(frozen))}")


class Ladder:
    """The tiers, cheapest first.

    `labels` says which tier a label begins at; by default `simple` is the first, `complex` the last and
    `moderate` number n // 2, counted from 0. `max_tokens` caps the output of routed calls by label.
    Raises ConfigurationError for what cannot work.
    """

    __slots__ = ("_by_model", "_by_name", "caps", "labels", "tiers")

    def __init__(
        self,
        *tiers: Tier,
        labels: Mapping[str, str] | None = None,
        max_tokens: Mapping[str, int] | None = None,
    ) -> None:
        if not tiers:
            raise ConfigurationError('a ladder needs at least one tier, such as Tier("haiku", "claude-haiku-5-5")')
        self.tiers: tuple[Tier, ...] = tiers
        self._by_name: dict[str, int] = {}
        self._by_model: dict[str, int] = {}
        for index, tier in enumerate(tiers):
            if not isinstance(tier, Tier):
                raise ConfigurationError(f"a ladder is made of tiers, got {tier!r:.80}: write Ladder.of(name=model)")
            if tier.name in self._by_name:
                raise ConfigurationError(f"the ladder has two tiers named {tier.name!r}: give each a name of its own")
            self._by_name[tier.name] = index
            self._by_model.setdefault(tier.model, index)
        for index, tier in enumerate(tiers):
            self._by_model.setdefault(base_id(tier.model), index)
        defaults = dict(zip(LABELS, (0, len(tiers) // 2, len(tiers) - 1), strict=True))
        self.labels: dict[str, int] = defaults | {
            _known_label(label): self.index(name, f"ladder: labels[{label!r}]")
            for label, name in (labels or {}).items()
        }
        self.caps: dict[str, int] = {}
        for label, cap in (max_tokens or {}).items():
            check_tokens(cap, f"ladder: max_tokens[{label!r}]")
            self.caps[_known_label(label)] = cap

    @classmethod
    def of(
        cls,
        *,
        labels: Mapping[str, str] | None = None,
        max_tokens: Mapping[str, int] | None = None,
        **tiers: str | Tier,
    ) -> Ladder:
        """A ladder from names and model ids, cheapest first: `Ladder.of(haiku="claude-haiku-5-5", …)`."""
        rungs = (tier if isinstance(tier, Tier) else Tier(name, tier) for name, tier in tiers.items())
        return cls(*rungs, labels=labels, max_tokens=max_tokens)

    def __len__(self) -> int:
        return len(self.tiers)

    def __iter__(self) -> Iterator[Tier]:
        return iter(self.tiers)

    @overload
    def __getitem__(self, index: int) -> Tier: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Tier, ...]: ...
    def __getitem__(self, index: int | slice) -> Tier | tuple[Tier, ...]:
        return self.tiers[index]

    def __repr__(self) -> str:
        return f"Ladder({', '.join(f'{t.name}={t.model!r}' for t in self.tiers)})"

    @property
    def top(self) -> int:
        """The index of the last, dearest tier."""
        return len(self.tiers) - 1

    def index(self, name: str, where: str) -> int:
        """The place of the tier called `name`. ConfigurationError, beginning with `where`, if there is none."""
        try:
            return self._by_name[name]
        except (KeyError, TypeError):
            raise ConfigurationError(
                f"{where}: there is no tier {name!r}; the ladder has {', '.join(self._by_name)}"
            ) from None

    def place_of(self, name: str) -> int | None:
        """The place of the tier called `name`, or None where there is none."""
        return self._by_name.get(name)

    def rung_of(self, model: str) -> int | None:
        """The place of a model id, in the spelling of any platform, or None where it is on no rung."""
        place = self._by_model.get(model)
        return place if place is not None else self._by_model.get(base_id(model))


def _known_label(label: str) -> str:
    if label not in LABELS:
        raise ConfigurationError(f"unknown label {label!r}: the labels are {', '.join(LABELS)}")
    return label


DEFAULT_LADDER: Final = Ladder.of(haiku="claude-haiku-5-5", sonnet="claude-sonnet-5-5", opus="claude-opus-5-5")
