"""Chat completions as requests to Claude, and back: nothing is left out in silence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.needs import need

need("typer", "rich")

from tierline.cli.batch_openai import Unmapped, completion_of, params_of  # noqa: E402
from tierline.testing import FakeClaude  # noqa: E402

USER = {"role": "user", "content": "hi"}
FUNCTION = {"name": "get", "description": "Gets.", "parameters": {"type": "object"}, "strict": True}
CALL = {"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"a": 1}'}}


def mapped(drop: tuple[str, ...] = (), **body: Any) -> dict[str, Any]:
    return params_of({"messages": [USER], "max_tokens": 5, **body}, "auto", None, drop)


def test_a_whole_conversation() -> None:
    """System, images, tools and their results, and every option that both have."""
    data, link = "data:image/png;base64,aGk=", "https://x/y.png"
    found = mapped(
        model="gpt-5",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
            {"role": "user", "content": [{"type": "text", "text": "look"},
                                         {"type": "image_url", "image_url": {"url": link, "detail": "auto"}},
                                         {"type": "image_url", "image_url": {"url": data}}]},
            {"role": "assistant", "content": "I look.", "tool_calls": [CALL, {**CALL, "id": "c2"}]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "tool", "tool_call_id": "c2", "content": "2"},
            {"role": "assistant", "content": "done"},
            USER,
        ],
        temperature=0.5, top_p=0.9, stop="END", user="u1", tools=[{"type": "function", "function": FUNCTION}],
        tool_choice="required", parallel_tool_calls=False, n=1, stream=False, seed=None, presence_penalty=0,
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
    )  # fmt: skip
    tool = {"name": "get", "description": "Gets.", "input_schema": {"type": "object"}, "strict": True}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "1"}
    assert found == {
        "model": "auto",
        "max_tokens": 5,
        "system": "Be brief.\nBe kind.",
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
            ]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "get", "input": {"a": 1}},
                {"type": "tool_use", "id": "c2", "name": "get", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [result, {**result, "tool_use_id": "c2", "content": "2"}]},
            {"role": "assistant", "content": "done"},
            USER,
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "tools": [tool],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    }  # fmt: skip


async def test_the_api_takes_what_is_mapped() -> None:
    """Tools, their results and a schema, as FakeClaude checks them."""
    fake = FakeClaude()
    tools = [{"type": "function", "function": FUNCTION}]
    messages = [
        USER,
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]
    params = mapped(messages=messages, tools=tools, tool_choice="auto", model="claude-sonnet-5-5", max_tokens=200)
    assert params["tool_choice"] == {"type": "auto"}
    async with fake.client() as client:
        message = await client.messages.create(**params)
    assert message.usage.output_tokens > 0


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "get"}}, {"type": "tool", "name": "get"}),
    ],
)
def test_tool_choices(choice: Any, expected: dict[str, Any]) -> None:
    """Those of both."""
    tools = [{"type": "function", "function": {"name": "get"}}]
    found = mapped(tools=tools, tool_choice=choice)
    assert found["tool_choice"] == expected
    assert found["tools"] == [{"name": "get", "input_schema": {"type": "object", "properties": {}}}]


def test_limits_and_models() -> None:
    """Either name of the limit, or that of the command; a model of Claude's stays."""
    assert mapped(max_completion_tokens=5)["max_tokens"] == 5
    assert params_of({"messages": [USER]}, "auto", 7, ())["max_tokens"] == 7
    assert mapped(model="claude-haiku-5-5")["model"] == "claude-haiku-5-5"
    assert mapped(("seed", "temperature"), seed=1, temperature=1.7).keys() == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"max_tokens": None}, "max_tokens: Claude's API needs it"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens: it is another number"),
        ({"max_tokens": "5"}, "max_tokens: it is a number of at least 1"),
        ({"messages": []}, "messages: it is a list of messages"),
        ({"messages": ["hi"]}, "messages[0]: it is an object"),
        ({"messages": [USER, {"role": "system", "content": "x"}]}, "messages[1].role: what the system says"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role: it is system"),
        ({"messages": [{**USER, "name": "bob"}]}, "messages[0].name: Claude's API has nothing like it"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content: it is a text, and not empty"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type: Claude"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
            "messages[0].content[0].image_url.url: it is an https:// address",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": None, "refusal": "no"}]},
            "messages[1].refusal: Claude's API has nothing like it",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "c", "function": {"arguments": "{"}}]}]},
            "messages[1].tool_calls[0].function.arguments: it is a JSON object",
        ),
        ({"messages": [{"role": "tool", "content": "1"}]}, "messages[0].tool_call_id: it is a text"),
        ({"temperature": 1.2}, "temperature: Claude takes 0 to 1; pass --drop temperature"),
        ({"stop": ["a", " "]}, "stop: it is a text or a list of texts"),
        ({"n": 2}, "n: Claude's API has nothing like it; leave it out, or pass --drop n"),
        ({"stream": True}, "stream: Claude's API"),
        ({"seed": 7}, "seed: Claude's API"),
        ({"logprobs": True}, "logprobs: Claude's API"),
        ({"response_format": {"type": "json_object"}}, "response_format: Claude takes a json_schema"),
        ({"tools": [{"type": "custom"}]}, "tools[0]: a tool is a function"),
        ({"tools": [{"type": "function", "function": {"name": "x", "y": 1}}]}, "tools[0].function.y: Claude's API"),
        ({"tool_choice": "maybe"}, "tool_choice: it is auto, none, required"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}], "parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"user": 7}, "user: it is a text"),
        ({"functions": [{}]}, "functions: Claude's API has nothing like it"),
    ],
)
def test_what_has_no_counterpart_is_said(body: dict[str, Any], why: str) -> None:
    """By the name of its field, and not left out."""
    with pytest.raises(Unmapped) as caught:
        mapped(**body)
    assert str(caught.value).startswith(why)


def test_an_answer_as_a_completion() -> None:
    """Text, calls of tools, why it ended, and its tokens."""
    message = {
        "id": "msg_1", "model": "claude-haiku-5-5", "stop_reason": "tool_use",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "so"},
                    {"type": "tool_use", "id": "c1", "name": "get", "input": {"a": "é"}}],
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 1,
                  "output_tokens": 4},
    }  # fmt: skip
    found = completion_of(message)
    (choice,) = found["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "so"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"a": "é"}
    assert (found["usage"]["prompt_tokens"], found["usage"]["completion_tokens"]) == (8, 4)
    assert completion_of({"stop_reason": "max_tokens"})["choices"][0]["finish_reason"] == "length"
