from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline import Ladder, Tier
from tierline.errors import ConfigurationError
from tierline.ladder import DEFAULT_LADDER, base_id
from tierline.values import LABELS

names = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=5, unique=True)


@given(names)
def test_default_labels(tiers: list[str]) -> None:
    """`simple` is the first tier, `complex` the last, `moderate` number n // 2, on ladders of any length."""
    ladder = Ladder(*[Tier(name, f"model-{name}") for name in tiers])
    n = len(tiers)
    assert ladder.labels == {"simple": 0, "moderate": n // 2, "complex": n - 1}
    assert [tier.name for tier in ladder] == tiers
    assert len(ladder) == n
    assert ladder.top == n - 1


@given(names)
def test_names_and_models_lead_to_their_rung(tiers: list[str]) -> None:
    """A tier is found by its name and by its model, with the date of a snapshot or without."""
    ladder = Ladder(*[Tier(name, f"model-{name}") for name in tiers])
    for place, name in enumerate(tiers):
        assert ladder.index(name, "here") == place
        assert ladder.place_of(name) == place
        assert ladder.rung_of(f"model-{name}") == place
        assert ladder.rung_of(f"model-{name}-20261121") == place
    assert ladder.rung_of("model-other") is None


def test_of_keeps_the_order() -> None:
    """`Ladder.of` takes ids and whole tiers, cheapest first as written."""
    big = Tier("big", "m2", max_tokens=10)
    ladder = Ladder.of(small="m1", big=big)
    assert [t.name for t in ladder] == ["small", "big"]
    assert ladder[1] is big
    assert repr(ladder) == "Ladder(small='m1', big='m2')"


def test_labels_by_name() -> None:
    """Labels may begin elsewhere, and the others keep their default."""
    ladder = Ladder.of(a="m1", b="m2", c="m3", labels={"simple": "b"}, max_tokens={"simple": 100})
    assert ladder.labels == {"simple": 1, "moderate": 1, "complex": 2}
    assert ladder.caps == {"simple": 100}


@pytest.mark.parametrize(
    ("build", "culprit"),
    [
        (Ladder, "at least one tier"),
        (lambda: Ladder("haiku"), "'haiku'"),  # type: ignore[arg-type]
        (lambda: Ladder(Tier("a", "m"), Tier("a", "n")), "'a'"),
        (lambda: Ladder.of(a="auto"), "'auto'"),
        (lambda: Ladder.of(a=""), "'a'"),
        (lambda: Ladder.of(a=None), "'a'"),  # type: ignore[arg-type]
        (lambda: Tier("", "m"), "''"),
        (lambda: Tier("a", "m", max_tokens=0), "max_tokens"),
        (lambda: Tier("a", "m", max_tokens=True), "max_tokens"),
        (lambda: Tier("a", "m", max_tokens=1.5), "max_tokens"),  # type: ignore[arg-type]
        (lambda: Tier("a", "m", patch={"model": "x"}), "model"),
        (lambda: Tier("a", "m", patch={"messages": []}), "messages"),
        (lambda: Tier("a", "m", patch="effort"), "patch"),  # type: ignore[arg-type]
        (lambda: Ladder.of(a="m", labels={"hard": "a"}), "'hard'"),
        (lambda: Ladder.of(a="m", labels={"simple": "b"}), "'b'"),
        (lambda: Ladder.of(a="m", max_tokens={"simple": -1}), "max_tokens"),
        (lambda: Ladder.of(a="m", max_tokens={"hard": 1}), "'hard'"),
    ],
)
def test_what_cannot_work_is_refused(build: Any, culprit: str) -> None:
    """Nonsense is a ConfigurationError that names the culprit."""
    with pytest.raises(ConfigurationError, match=culprit):
        build()


def test_an_unknown_name_lists_the_tiers() -> None:
    """Whoever mistypes a tier is told where, and what the names are; also for what is no name at all."""
    with pytest.raises(
        ConfigurationError, match=r"routes: there is no tier 'opsu'; the ladder has haiku, sonnet, opus"
    ):
        DEFAULT_LADDER.index("opsu", "routes")
    with pytest.raises(ConfigurationError):
        DEFAULT_LADDER.index([], "routes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "bare"),
    [
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-haiku-4-5", "claude-haiku-4-5"),
        ("claude-haiku-4-5-20251001-x", "claude-haiku-4-5-20251001-x"),
        ("claude-haiku-4-5-20251001\n", "claude-haiku-4-5-20251001\n"),
        ("claude-haiku-4-5-19991231", "claude-haiku-4-5-19991231"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("claude-opus-5-5@default", "claude-opus-5-5"),
        ("anthropic.claude-haiku-5-5", "claude-haiku-5-5"),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
        ("us-gov.anthropic.claude-sonnet-4-6-v1:0:200k", "claude-sonnet-4-6"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude-opus-5-5", "claude-opus-5-5"),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", None),
        ("someone-anthropic.claude-opus-5-5/x", None),
        ("my-anthropic.model", None),
        ("mine@home", None),
        ("mine-v1:0", None),
    ],
)
def test_base_id(model: str, bare: str | None) -> None:
    """The date at the very end and the spelling of a known platform are taken off, and nothing else."""
    assert base_id(model) == (model if bare is None else bare)


def test_rungs_of_platform_ids() -> None:
    """An id finds its own rung first, then the lowest of the same model, whoever sells it."""
    ladder = Ladder.of(
        near="eu.anthropic.claude-sonnet-5-5", far="global.anthropic.claude-sonnet-5-5", top="claude-opus-5-5@20260901"
    )
    ids = ["global.anthropic.claude-sonnet-5-5", "us.anthropic.claude-sonnet-5-5-v1:0", "claude-opus-5-5", "mine"]
    assert [ladder.rung_of(model) for model in ids] == [1, 0, 2, None]


def test_two_rungs_of_one_model() -> None:
    """A model on two rungs is known by the lower one."""
    ladder = Ladder(Tier("quick", "m", patch={"thinking": {"type": "disabled"}}), Tier("slow", "m"))
    assert ladder.rung_of("m") == 0


def test_the_default_ladder() -> None:
    """The default ladder has the three current tiers, and a place for every label."""
    assert [t.name for t in DEFAULT_LADDER] == ["haiku", "sonnet", "opus"]
    assert set(DEFAULT_LADDER.labels) == set(LABELS)


def test_a_tier_is_hashable() -> None:
    """A tier with a patch can stand in sets and keys."""
    assert len({Tier("a", "m", patch={"x": {}}), Tier("a", "m", patch={"x": {}})}) == 1


@pytest.mark.parametrize("field", ["speed", "inference_geo", "cache_control", "fallbacks"])
def test_a_patch_cannot_change_the_price(field: str) -> None:
    """What is reserved is read off the app's own request: a patch behind it may not make it dearer."""
    with pytest.raises(ConfigurationError, match=field):
        Tier("opus", "claude-opus-5-5", patch={field: "x"})
