"""Answers from a file: recorded once, given again, with no key in it."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from anthropic import Anthropic, InternalServerError

from tests.apps import ask
from tierline.errors import ConfigurationError
from tierline.testing import FakeClaude, Fault, Received, RecordedAnswers, Reply, offline
from tierline.testing.recorded import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "sk-ant-api03-REAL_key-0123456789"
TOOL = {"name": "look", "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}


@pytest.fixture
def real() -> FakeClaude:
    """What stands for the API, with a key of its own."""
    return FakeClaude(api_key=KEY, answer=lambda received: f"Answer {received.body['messages'][-1]['content']}")


@pytest.fixture
def upstream(real: FakeClaude) -> Iterator[str]:
    with real.serve_in_thread() as url:
        yield url


@pytest.fixture
def client_of() -> Iterator[Callable[[RecordedAnswers], Anthropic]]:
    """A client of a fake that says what was recorded."""
    with ExitStack() as stack:

        def start(answers: RecordedAnswers) -> Anthropic:
            stack.enter_context(offline(FakeClaude(answer=answers)))
            return stack.enter_context(Anthropic())

        yield start


def said(message: Any) -> Any:
    """All that is repeated of an answer."""
    found = message.model_dump(mode="json", exclude={"id", "usage"})
    return found, message.usage.input_tokens, message.usage.output_tokens


def test_what_was_recorded_is_said_again(
    tmp_path: Path, real: FakeClaude, upstream: str, client_of: Callable[[RecordedAnswers], Anthropic]
) -> None:
    """Text, tools and thoughts come back as they were, whole or streamed, and are billed the same."""
    real.answer = lambda received: (
        Reply(text="Let me see.", tool="look", input={"q": "Paris"}) if received.body.get("tools") else "Yes."
    )
    path = tmp_path / "answers" / "desk.jsonl"
    bodies = [
        ask(model="claude-haiku-5-5"),
        ask(model="claude-sonnet-5-5", tools=[TOOL]),
        ask(model="claude-haiku-5-5", thinking={"type": "disabled"}),
    ]
    recorder = client_of(RecordedAnswers(path, api_key=KEY, upstream=upstream))
    first = [said(recorder.messages.create(**body)) for body in bodies]
    assert len(real.requests) == len(bodies)
    assert [said(recorder.messages.create(**body)) for body in bodies] == first
    assert len(real.requests) == len(bodies)

    again = RecordedAnswers(path)
    replayer = client_of(again)
    assert [said(replayer.messages.create(**body)) for body in reversed(bodies)] == first[::-1]
    for body, whole in zip(bodies, first, strict=True):
        with replayer.messages.stream(**body) as stream:
            message = stream.get_final_message()
        assert [block.to_dict() for block in message.content] == [
            {name: value for name, value in block.items() if value is not None} for block in whole[0]["content"]
        ]
        assert (message.stop_reason, message.usage.output_tokens) == (whole[0]["stop_reason"], whole[2])
    assert again.missing == {}
    assert "thinking" in path.read_text("utf-8")


def test_texts_with_ends_of_lines_of_all_kinds(
    tmp_path: Path, real: FakeClaude, upstream: str, client_of: Callable[[RecordedAnswers], Anthropic]
) -> None:
    """What ends a line in one text or another ends none of the file."""
    text = "a\nb\r\nc\u2028d\u2029e\x85f\x0bg\x0ch\x1ci"
    real.answer = lambda _: text
    path = tmp_path / "answers.jsonl"
    bodies = [ask(asked, model="claude-haiku-5-5", max_tokens=2_000) for asked in (text, "plain")]
    recorder = client_of(RecordedAnswers(path, api_key=KEY, upstream=upstream))
    first = [said(recorder.messages.create(**body)) for body in bodies]
    replayer = client_of(RecordedAnswers(path))
    assert [said(replayer.messages.create(**body)) for body in bodies] == first
    assert first[0][0]["content"][-1]["text"] == text


def test_no_key_is_written_down(
    tmp_path: Path, real: FakeClaude, upstream: str, client_of: Callable[[RecordedAnswers], Anthropic]
) -> None:
    """Not that of the recording, and none that stands in a prompt or an answer; and no header and no metadata."""
    path = tmp_path / "answers.jsonl"
    answers = RecordedAnswers(path, api_key=KEY, upstream=upstream)
    body = ask("My key is sk-ant-other_1", model="claude-haiku-5-5", metadata={"user_id": "u-4711"})
    client_of(answers).messages.create(**body)
    text = path.read_text("utf-8")
    for secret in ("sk-ant", KEY, "u-4711", "x-api-key"):
        assert secret not in text
        assert secret not in repr(answers)
    assert "My key is [redacted]" in text
    assert sorted(json.loads(text)["answer"]) == ["content", "stop_reason", "stop_sequence", "usage"]


def test_what_is_not_recorded(tmp_path: Path, client_of: Callable[[RecordedAnswers], Anthropic]) -> None:
    """The call fails at once, says which key, and shows no text of the prompt."""
    path = tmp_path / "answers.jsonl"
    path.write_text("", "utf-8")
    answers = RecordedAnswers(path)
    with pytest.raises(InternalServerError) as raised:
        client_of(answers).messages.create(**ask("Is it secret?", model="claude-haiku-5-5"))
    (key,) = answers.missing
    assert key in str(raised.value)
    assert "secret" not in str(raised.value)


def test_by_hand(tmp_path: Path, client_of: Callable[[RecordedAnswers], Anthropic]) -> None:
    """A line for what was asked last; one for a single model comes before one for all."""
    path = tmp_path / "answers.jsonl"
    path.write_text(
        '{"asked": "Open?", "answer": "Yes."}\n\n{"asked": "Open?", "model": "claude-opus-5-5", "answer": "Ja."}\n',
        "utf-8",
    )
    client = client_of(RecordedAnswers(path))
    found = {
        model: client.messages.create(**ask("Open?", model=model)).content[-1].text  # type: ignore[union-attr]
        for model in ("claude-haiku-5-5", "claude-opus-5-5")
    }
    assert found == {"claude-haiku-5-5": "Yes.", "claude-opus-5-5": "Ja."}


def test_blocks_of_every_kind(tmp_path: Path, client_of: Callable[[RecordedAnswers], Anthropic]) -> None:
    """What a server tool found, a redacted thought and a call of a tool come back, whole and streamed alike."""
    content = [
        {"type": "redacted_thinking", "data": "abc"},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
        {"type": "text", "text": "It is as it was."},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"q": "Paris"}},
    ]
    usage = {"input_tokens": 50, "output_tokens": 60, "server_tool_use": {"web_search_requests": 2}}
    answer = {"content": content, "stop_reason": "stop_sequence", "stop_sequence": "END", "usage": usage}
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"asked": "Look.", "answer": answer}) + "\n", "utf-8")
    client = client_of(RecordedAnswers(path))
    body = ask("Look.", model="claude-haiku-5-5", tools=[TOOL], tool_choice={"type": "auto"}, stop_sequences=["END"])
    whole = client.messages.create(**body)
    with client.messages.stream(**body) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        found = [block.model_dump(mode="json", exclude_none=True) for block in message.content]
        assert [{name: block[name] for name in wanted} for block, wanted in zip(found, content, strict=True)] == content
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
        assert (message.usage.input_tokens, message.usage.output_tokens) == (50, 60)
        assert message.usage.server_tool_use is not None
        assert message.usage.server_tool_use.web_search_requests == 2


def test_an_error_is_not_recorded(
    tmp_path: Path, real: FakeClaude, upstream: str, client_of: Callable[[RecordedAnswers], Anthropic]
) -> None:
    """What the API fails leaves no line, and the call fails."""
    path = tmp_path / "answers.jsonl"
    client = client_of(RecordedAnswers(path, api_key=KEY, upstream=upstream))
    for fault in (Fault.error(400, "Bad"), Fault.html()):
        real.script(fault)
        with pytest.raises(InternalServerError, match="nothing was recorded"):
            client.messages.create(**ask(model="claude-haiku-5-5"))
    assert not path.exists()


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"answer": "x"}', '{"asked": 1, "answer": "x"}', '{"asked": "x", "answer": {}}',
             '{"asked": "x", "answer": {"content": "x"}}', '{"asked": "x", "answer": null}'],
)  # fmt: skip
def test_a_line_that_is_none(tmp_path: Path, line: str) -> None:
    """It is named, before any call is made."""
    path = tmp_path / "answers.jsonl"
    path.write_text(f'{{"asked": "a", "answer": "b"}}\n{line}\n', "utf-8")
    with pytest.raises(ConfigurationError, match="line 2: write"):
        RecordedAnswers(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """There is nothing to give again."""
    with pytest.raises(ConfigurationError, match="write it by hand, or record it"):
        RecordedAnswers(tmp_path / "answers.jsonl")


def test_which_requests_are_the_same() -> None:
    """Streamed or not, cached or not, for whomever: the same. All else may change the answer."""
    body = ask(model="claude-haiku-5-5", system=[{"type": "text", "text": "Be brief."}])
    same = [
        {**body, "stream": True},
        {**body, "metadata": {"user_id": "u1"}},
        {**body, "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
    ]
    others = [
        {**body, "model": "claude-opus-5-5"},
        {**body, "max_tokens": 7},
        {**body, "system": "Be long."},
        {**body, "tools": [TOOL]},
        ask("Else?", model="claude-haiku-5-5"),
    ]
    assert {key_of(each) for each in same} == {key_of(body)}
    assert len({key_of(each) for each in [body, *others]}) == 1 + len(others)


async def test_the_fake_is_asked_directly(tmp_path: Path) -> None:
    """It is a plain function of what was received, also without a server."""
    path = tmp_path / "answers.jsonl"
    path.write_text('{"asked": "Open?", "answer": "Yes."}\n', "utf-8")
    answers = RecordedAnswers(path)
    received = Received("/v1/messages", {}, ask("Open?"))
    assert await asyncio.to_thread(answers, received) == Reply(text="Yes.")
