"""The glossary has each word once, and those that the code itself says."""

from __future__ import annotations

import re
from typing import get_args

from tests.pages import DOCS
from tierline.policies import Policy
from tierline.values import Role

PAGE = (DOCS / "glossary.md").read_text("utf-8")
VOCABULARY = (
    "tier", "ladder", "floor", "ceiling", "policy", "label", "classification", "verdict", "outcome", "plan", "offer",
    "decision", "usage", "cost", "price", "budget", "window", "account", "ledger", "reserve", "settle", "release",
    "hold", "lease", "attempt", "call", "escalation", "fallback", "downgrade",
)  # fmt: skip
WORDS = re.findall(r"\*\*([\w -]+)\*\*", PAGE)


def test_each_word_means_one_thing() -> None:
    """No word is explained twice, and each is explained."""
    assert len(WORDS) == len(set(WORDS)) > 50
    assert all(row.count("|") == 3 for row in PAGE.splitlines() if row.startswith("| **"))


def test_the_vocabulary_is_there() -> None:
    """The words that code and messages are made of are among them."""
    assert [word for word in VOCABULARY if word not in WORDS] == []


def test_what_the_code_says_is_there() -> None:
    """So are the roles of attempts, and the words of a policy that need more than their name."""
    roles = {"speculation" if role == "speculative" else role for role in get_args(Role)} - {"first"}
    assert roles <= {*WORDS}
    fields = {"floor", "ceiling", "critical", "label", "quality", "sticky"}
    assert fields <= {*Policy.__dataclass_fields__} & {*WORDS}
