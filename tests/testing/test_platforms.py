"""Doors: the paths, ids and errors of the platforms, told apart without a socket."""

from __future__ import annotations

import pytest

from tierline.testing._platforms import Door, door_of
from tierline.testing._problem import Problem


@pytest.mark.parametrize(
    ("path", "door"),
    [
        ("/v1/messages", Door("/v1/messages")),
        ("/v1/models/x", Door("/v1/models/x")),
        ("/anthropic/v1/messages", Door("/v1/messages", "hosted")),
        ("/model/us.anthropic.claude-x/invoke", Door("/v1/messages", "bedrock", "us.anthropic.claude-x", False)),
        (
            "/model/arn:aws:1:p/us.anthropic.claude-x/invoke-with-response-stream",
            Door("/v1/messages", "bedrock", "arn:aws:1:p/us.anthropic.claude-x", True),
        ),
        (
            "/projects/p/locations/global/publishers/anthropic/models/claude-x@20260101:rawPredict",
            Door("/v1/messages", "vertex", "claude-x@20260101", False, "global"),
        ),
        (
            "/v1/projects/p/locations/us/publishers/anthropic/models/claude-x:streamRawPredict",
            Door("/v1/messages", "vertex", "claude-x", True, "us"),
        ),
        (
            "/v1/projects/p/locations/us/publishers/anthropic/models/count-tokens:rawPredict",
            Door("/v1/messages/count_tokens", "vertex", region="us"),
        ),
        ("/model/x/converse", Door("/model/x/converse")),
    ],
)
def test_doors(path: str, door: Door) -> None:
    """Each path leads to the one that the API has for it."""
    assert door_of(path) == door


@pytest.mark.parametrize(
    ("platform", "model", "name"),
    [
        ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
        ("bedrock", "arn:aws:bedrock:r:1:inference-profile/eu.anthropic.claude-opus-5-5", "claude-opus-5-5"),
        ("hosted", "anthropic.claude-opus-5-5", "claude-opus-5-5"),
        ("vertex", "claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("vertex", "claude-opus-5-5@default", "claude-opus-5-5"),
        ("vertex", "claude-opus-5-5", "claude-opus-5-5"),
    ],
)
def test_names(platform: str, model: str, name: str) -> None:
    """A platform's id is the model that it sells."""
    assert Door("", platform).names(model) == {model: name}  # type: ignore[arg-type]


def test_names_of_others() -> None:
    """An id of the API itself is none of Bedrock's; behind `/anthropic` and at the API nothing is renamed."""
    with pytest.raises(Problem, match="identifier is invalid"):
        Door("", "bedrock").names("claude-opus-5-5")
    assert Door("", "hosted").names("claude-opus-5-5") == {}
    assert Door("").names("anthropic.claude-opus-5-5") == {}
    assert Door("", "vertex").names(7) == {}


def test_the_body_says_its_version() -> None:
    """Bedrock and Vertex want the version in the body; what is theirs alone is taken out of it."""
    with pytest.raises(Problem, match="anthropic_version"):
        Door("", "vertex").whole({"messages": []})
    body = {"anthropic_version": "1", "anthropic_beta": ["x"], "messages": []}
    assert Door("", "bedrock", "m", True).whole(body) == {"messages": [], "model": "m", "stream": True}
    assert Door("").whole({"messages": []}) == {"messages": []}


def test_errors() -> None:
    """Bedrock's errors are those of AWS."""
    body, headers = Door("", "bedrock").error(Problem(429, "slow down"), "req")
    assert (body, headers) == ({"message": "slow down"}, (("x-amzn-errortype", "ThrottlingException"),))
    assert Door("").error(Problem(429, "slow down"), "req")[0]["error"]["type"] == "rate_limit_error"
