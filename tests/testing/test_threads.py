"""Conversations that the server holds."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from tierline.testing import FakeClaude, Reply

HAIKU = "claude-haiku-4-5"
HELLO = {"role": "user", "content": "Hello " * 50}
CREATE = {"type": "create"}


def following(message: Any) -> dict[str, Any]:
    return {"type": "continue", "previous_message_id": message.id}


async def send(client: AsyncAnthropic, thread: dict[str, Any] | None, *messages: Any, **extra: Any) -> Any:
    ask: dict[str, Any] = {"model": HAIKU, "max_tokens": 300, "messages": list(messages), **extra}
    return await client.beta.messages.create(**ask, **({} if thread is None else {"thread": thread}))


async def test_a_continued_turn_pays_for_the_whole_conversation(client: AsyncAnthropic) -> None:
    """It sends little, and counts as if all had been sent."""
    one = await send(client, CREATE, HELLO, system="Be brief.")
    two = await send(client, following(one), {"role": "user", "content": "More"})
    answer = {"role": "assistant", "content": one.content[0].text}
    whole = await send(client, None, HELLO, answer, {"role": "user", "content": "More"}, system="Be brief.")
    assert two.usage == whole.usage
    three = await send(client, following(two), {"role": "user", "content": "And more"})
    assert three.usage.input_tokens > two.usage.input_tokens


async def test_lost_threads(client: AsyncAnthropic) -> None:
    """An unknown thread is a 404 and one that has been continued a 400, both with their codes."""
    one = await send(client, CREATE, HELLO)
    plain = await send(client, None, HELLO)
    await send(client, following(one), HELLO)
    for message, code in ((one, "thread_already_continued"), (plain, "thread_not_found")):
        with pytest.raises((anthropic.NotFoundError, anthropic.BadRequestError)) as caught:
            await send(client, following(message), HELLO)
        assert caught.value.error_code == code


async def test_five_minutes() -> None:
    """A thread that nobody continues is forgotten."""
    now = [0.0]
    async with FakeClaude(clock=lambda: now[0]).client() as client:
        one = await send(client, CREATE, HELLO)
        now[0] = 299.0
        two = await send(client, following(one), HELLO)
        now[0] = 299.0 + 300.0
        with pytest.raises(anthropic.NotFoundError):
            await send(client, following(two), HELLO)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"model": "claude-sonnet-4-6"}, "differing field"),
        ({"system": "Be brief."}, "system: may not be sent"),
        ({"messages": "hi"}, "messages"),
    ],
)
async def test_what_may_not_change(client: AsyncAnthropic, extra: dict[str, Any], message: str) -> None:
    """The model stays, and what the thread holds is not sent again."""
    one = await send(client, CREATE, HELLO)
    body = {"model": HAIKU, "messages": [HELLO], **extra}
    with pytest.raises(anthropic.BadRequestError, match=message):
        await client.beta.messages.create(max_tokens=9, thread=following(one), **body)
    with pytest.raises(anthropic.BadRequestError, match="thread"):
        await send(client, {"type": "fork"}, HELLO)


async def test_a_refused_turn_is_not_held() -> None:
    """There is nothing to continue after a refusal."""
    async with FakeClaude(answer=lambda received: Reply(text="No", stop_reason="refusal")).client() as client:
        one = await send(client, CREATE, HELLO)
        with pytest.raises(anthropic.NotFoundError):
            await send(client, following(one), HELLO)


async def test_threads_are_bounded(monkeypatch: pytest.MonkeyPatch, client: AsyncAnthropic) -> None:
    """The oldest conversation is dropped first."""
    monkeypatch.setattr("tierline.testing._threads._MOST", 1)
    one = await send(client, CREATE, HELLO)
    two = await send(client, CREATE, HELLO)
    with pytest.raises(anthropic.NotFoundError):
        await send(client, following(one), HELLO)
    await send(client, following(two), HELLO)
