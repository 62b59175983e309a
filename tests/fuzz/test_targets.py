"""What reads bytes of others, with bytes that Hypothesis makes, and with those that have found something before."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS: Final = Path(__file__).with_name("corpus")
SEEDS: Final = {name: sorted((CORPUS / name).iterdir()) for name in TARGETS}


def words(name: str) -> list[str]:
    """The words of a target's seeds: those that mean something to it."""
    return sorted({word for seed in SEEDS[name] for word in re.findall(r"[\w$./:-]+", seed.read_text("latin-1"))})


def documents(name: str) -> st.SearchStrategy[bytes]:
    """JSON with those words in it, one document or several lines."""
    known = st.sampled_from(words(name))
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | known
    tree = st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(known | st.text(max_size=5), inner, max_size=6),
    )
    return st.lists(tree, min_size=1, max_size=3).map(lambda found: "\n".join(map(json.dumps, found)).encode())


def changed(name: str) -> st.SearchStrategy[bytes]:
    """A seed with a part of it replaced."""
    seeds = st.sampled_from([seed.read_bytes() for seed in SEEDS[name]])
    parts = st.binary(max_size=12) | st.sampled_from(words(name)).map(str.encode)

    def spliced(seed: bytes, place: float, length: int, part: bytes) -> bytes:
        at = int(place * len(seed))
        return seed[:at] + part + seed[at + length :]

    return st.builds(spliced, seeds, st.floats(0, 1), st.integers(0, 40), parts)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    """What the fuzzers begin with, and what they found."""
    assert SEEDS[name]
    for seed in SEEDS[name]:
        TARGETS[name](seed.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    """Whatever comes, the errors are those that are promised, and what has to hold does."""
    lead = st.sampled_from([b"", b"\0", b"\1", b"\2", b"\3"])

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(lead, st.binary(max_size=400) | documents(name) | changed(name))
    def tried(first: bytes, data: bytes) -> None:
        TARGETS[name](first + data)

    tried()


def test_each_seed_belongs_to_a_target() -> None:
    """No folder of seeds is left behind."""
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
