"""Pages of the list of models."""

from __future__ import annotations

import pytest

from tierline.testing._catalogue import model_info, model_page
from tierline.testing._problem import Problem
from tierline.testing._rules import MODELS


def test_pages() -> None:
    """Pages go on where the one before ended, in both directions."""
    ids = sorted(MODELS)
    first = model_page({"limit": "3"})
    assert [info["id"] for info in first["data"]] == ids[:3]
    assert (first["has_more"], first["first_id"], first["last_id"]) == (True, ids[0], ids[2])
    rest = model_page({"after_id": ids[2]})
    assert ([info["id"] for info in rest["data"]], rest["has_more"]) == (ids[3:], False)
    assert [info["id"] for info in model_page({"before_id": ids[4], "limit": "2"})["data"]] == ids[2:4]
    assert model_page({"after_id": ids[-1]})["first_id"] is None


@pytest.mark.parametrize("limit", ["0", "1001", "many"])
def test_limits(limit: str) -> None:
    """A limit is a number from 1 to 1,000."""
    with pytest.raises(Problem, match="limit"):
        model_page({"limit": limit})


def test_capabilities_follow_the_rules() -> None:
    """What the list says of a model is what the fake enforces; a dated id is found too."""
    for rules in MODELS.values():
        info = model_info(rules.id)
        types = info["capabilities"]["thinking"]["types"]
        assert {kind for kind, can in types.items() if can["supported"]} == rules.thinking
        efforts = info["capabilities"]["effort"]
        assert {level for level, can in efforts.items() if level != "supported" and can["supported"]} == rules.efforts
    assert model_info("claude-haiku-4-5-20251001")["id"] == "claude-haiku-4-5"
