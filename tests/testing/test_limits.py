"""Rate limits of the fake that are enforced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from anthropic import RateLimitError

from tierline.errors import ConfigurationError
from tierline.testing import FakeClaude
from tierline.testing._limits import Limits
from tierline.testing._problem import Problem

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic


async def asked(client: AsyncAnthropic, model: str = "claude-haiku-4-5") -> dict[str, str]:
    answer = await client.messages.with_raw_response.create(
        model=model, max_tokens=50, messages=[{"role": "user", "content": "hi"}]
    )
    return dict(answer.headers)


async def test_what_is_more_than_a_minute_takes_is_a_429() -> None:
    """Each model by itself; nothing is billed; and the answer says when to come back, and means it."""
    fake = FakeClaude(limits={"requests": 2}, clock=lambda: 0.0)
    async with fake.client(max_retries=0) as client:
        left = [(await asked(client))["anthropic-ratelimit-requests-remaining"] for _ in range(2)]
        assert left == ["1", "0"]
        billed = fake.billed
        with pytest.raises(RateLimitError, match="rate limit of 2 requests per minute") as caught:
            await asked(client)
        headers = caught.value.response.headers
        assert (headers["retry-after"], headers["anthropic-ratelimit-requests-remaining"]) == ("30", "0")
        assert fake.billed == billed
        assert (await asked(client, "claude-opus-4-8"))["anthropic-ratelimit-requests-limit"] == "2"
        fake.advance(30)
        await asked(client)


def test_tokens_have_buckets_of_their_own() -> None:
    """Those of input are taken when a request comes, those of output when they are written."""
    now = 0.0
    limits = Limits({"input-tokens": 6_000, "output-tokens": 3_000}, lambda: now)
    limits.admit("a", 4_000)
    limits.wrote("a", 6_000)
    headers = dict(limits.headers("a"))
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "2000"
    assert headers["anthropic-ratelimit-output-tokens-remaining"] == "0"
    with pytest.raises(Problem, match="output tokens") as caught:
        limits.admit("a", 1_000)
    assert caught.value.headers == (("retry-after", "61"),)
    now = 61.0
    limits.admit("a", 6_000)
    with pytest.raises(Problem, match="6000 input tokens") as caught:
        limits.admit("a", 3_000)
    assert caught.value.headers == (("retry-after", "30"),)
    limits.admit("b", 60_000)


def test_a_prompt_of_more_than_a_minute_takes_is_let_in_when_all_is_left() -> None:
    """Or it would never be."""
    limits = Limits({"input-tokens": 100}, lambda: 0.0)
    limits.admit("a", 1_000)
    with pytest.raises(Problem):
        limits.admit("a", 1_000)


@pytest.mark.parametrize("wrong", [{"tokens": 5}, {"requests": 0}, {"requests": True}, {"requests": 1.5}])
def test_limits_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    """With what may be written."""
    with pytest.raises(ConfigurationError, match="limits: "):
        FakeClaude(limits=wrong)
