"""The whole table of what each model rejects, sent through the SDK."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from tierline.testing import FakeClaude
from tierline.testing._rules import MODELS, line_of

ORDER = (
    "claude-haiku-4-5", "claude-opus-4-5",
    "claude-sonnet-4-6", "claude-opus-4-6",
    "claude-opus-4-7", "claude-opus-4-8",
    "claude-sonnet-5", "claude-opus-5", "claude-fable-5", "claude-fable-5-1",
    "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-2", "claude-mythos-5-2",
)  # fmt: skip
SMALL = ORDER[:2]
OLD_TOKENS = ORDER[:4]
USER = {"role": "user", "content": "Hello"}
TOOL = {"name": "look", "input_schema": {"type": "object"}}


def computer(kind: str) -> dict[str, Any]:
    if "toolset" in kind:
        return {"tools": [{"type": kind}]}
    return {"tools": [{"type": kind, "name": "computer", "display_width_px": 1, "display_height_px": 1}]}


def effort(level: str) -> dict[str, Any]:
    return {"output_config": {"effort": level}}


# What is sent, and for each model of ORDER whether it is accepted (+) or a 400 (-).
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "++ ++ ++ ++++ +++++"),
    "temperature": ({"temperature": 0.5}, "++ ++ -- ---- -----"),
    "temperature 1": ({"temperature": 1}, "++ ++ -- ---- -----"),
    "top_p": ({"top_p": 0.5}, "++ ++ -- ---- -----"),
    "top_k": ({"top_k": 5}, "++ ++ -- ---- -----"),
    "temperature with top_p": ({"temperature": 0.5, "top_p": 0.5}, "-- -- -- ---- -----"),
    "thinking enabled": ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "++ ++ -- ---- -----"),
    "thinking adaptive": ({"thinking": {"type": "adaptive"}}, "-- ++ ++ ++++ +++++"),
    "thinking disabled": ({"thinking": {"type": "disabled"}}, "++ ++ ++ ++-- +----"),
    "thinking disabled, high": ({"thinking": {"type": "disabled"}, **effort("high")}, "-+ ++ ++ ++-- +----"),
    "thinking disabled, xhigh": ({"thinking": {"type": "disabled"}, **effort("xhigh")}, "-- -- ++ +--- -----"),
    "thinking disabled, max": ({"thinking": {"type": "disabled"}, **effort("max")}, "-- ++ ++ +--- -----"),
    "thinking between tools": ({"thinking": {"type": "between_tools"}}, "-- -- -- ---- -+---"),
    "between tools, high": ({"thinking": {"type": "between_tools"}, **effort("high")}, "-- -- -- ---- -+---"),
    "between tools, xhigh": ({"thinking": {"type": "between_tools"}, **effort("xhigh")}, "-- -- -- ---- -----"),
    "effort low": (effort("low"), "-+ ++ ++ ++++ +++++"),
    "effort medium": (effort("medium"), "-+ ++ ++ ++++ +++++"),
    "effort high": (effort("high"), "-+ ++ ++ ++++ +++++"),
    "effort xhigh": (effort("xhigh"), "-- -- ++ ++++ +++++"),
    "effort max": (effort("max"), "-- ++ ++ ++++ +++++"),
    "forced any": ({"tools": [TOOL], "tool_choice": {"type": "any"}}, "++ ++ ++ +++- +----"),
    "forced tool": ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "look"}}, "++ ++ ++ +++- +----"),
    "forced any, enabled": (
        {
            "tools": [TOOL],
            "tool_choice": {"type": "any"},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
        "-- -- -- ---- -----",
    ),
    "forced any, adaptive": (
        {"tools": [TOOL], "tool_choice": {"type": "any"}, "thinking": {"type": "adaptive"}},
        "-- ++ ++ +++- +----",
    ),
    "choice auto": ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, "++ ++ ++ ++++ +++++"),
    "choice none": ({"tools": [TOOL], "tool_choice": {"type": "none"}}, "++ ++ ++ ++++ +++++"),
    "prefill": ({"messages": [USER, {"role": "assistant", "content": "Well"}]}, "++ -- -- ---- -----"),
    "geo us": ({"inference_geo": "us"}, "-- ++ ++ ++++ +++++"),
    "geo global": ({"inference_geo": "global"}, "-- ++ ++ ++++ +++++"),
    "speed fast": ({"speed": "fast"}, "-- -- -+ -+-- --+++"),
    "speed standard": ({"speed": "standard"}, "++ ++ ++ ++++ +++++"),
    "computer 2025-01": (computer("computer_20250124"), "+- -- -- ---- -----"),
    "computer 2025-11": (computer("computer_20251124"), "-+ ++ ++ ++++ -----"),
    "computer toolset": (computer("computer_toolset_20260801"), "-- -- -- ++++ +++++"),
    "max_tokens 64000": ({"max_tokens": 64_000}, "++ ++ ++ ++++ +++++"),
    "max_tokens 64001": ({"max_tokens": 64_001}, "-- ++ ++ ++++ +++++"),
    "max_tokens 128000": ({"max_tokens": 128_000}, "-- ++ ++ ++++ +++++"),
    "max_tokens 128001": ({"max_tokens": 128_001}, "-- -- -- ---- -----"),
    "structured output": (
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        "++ ++ ++ ++++ +++++",
    ),
    "image": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}],
                }
            ]
        },
        "++ ++ ++ ++++ +++++",
    ),
}
GRID = {name: (extra, row.replace(" ", "")) for name, (extra, row) in ROWS.items()}


@pytest.mark.parametrize("name", GRID)
async def test_grid(name: str) -> None:
    """Each model accepts and rejects exactly what the table says, create and stream alike; a 400 is free."""
    extra, expected = GRID[name]
    fake = FakeClaude()
    found = ""
    async with fake.client(max_retries=0, timeout=60) as client:
        for model in ORDER:
            body = {"max_tokens": 2000, "messages": [USER], **extra}
            ask = {"model": model, "max_tokens": 1, "messages": [USER], "extra_body": body}
            try:
                await client.messages.create(**ask)
            except anthropic.BadRequestError:
                with pytest.raises(anthropic.BadRequestError):
                    await client.messages.create(**ask, stream=True)
                found += "-"
            else:
                found += "+"
    assert found == expected
    assert all((entry.billed == 0) == (entry.status == 400) for entry in fake.requests)
    assert {entry.error for entry in fake.requests} <= {None, "invalid_request_error"}


@pytest.mark.parametrize(("model", "thinks"), list(zip(ORDER, "------+++++++++", strict=True)))
async def test_who_thinks_by_default(model: str, thinks: str) -> None:
    """Models from 5.0 on think unless told not to."""
    async with FakeClaude().client() as client:
        message = await client.messages.create(model=model, max_tokens=32, messages=[USER])
    assert (message.content[0].type == "thinking") == (thinks == "+")


WINDOWS = [(model, 200_000 if model in SMALL else 1_000_000) for model in ORDER]


@pytest.mark.parametrize(("model", "window"), WINDOWS)
async def test_a_prompt_over_the_window(model: str, window: int) -> None:
    """One token too many is a 400, and the window itself is not."""
    per_mille = 250 if model in OLD_TOKENS else 325
    full = (window - 8) * 1000 // per_mille
    async with FakeClaude().client(timeout=60) as client:
        message = await client.messages.create(
            model=model, max_tokens=1, messages=[{"role": "user", "content": "x" * full}]
        )
        assert message.usage.input_tokens == window
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
            await client.messages.create(
                model=model, max_tokens=1, messages=[{"role": "user", "content": "x" * (full + 4)}]
            )


LEAST = (4096, 4096, 1024, 4096, 2048, 1024, 1024, *[512] * 8)
MINIMUMS = list(zip(ORDER, LEAST, strict=True))


@pytest.mark.parametrize(("model", "least"), MINIMUMS)
async def test_the_least_that_is_cached(model: str, least: int) -> None:
    """A prefix of the minimum is written to the cache, one token less is not, and neither is an error."""
    per_mille = 250 if model in OLD_TOKENS else 325
    size = (least - 4) * 1000 // per_mille
    async with FakeClaude().client() as client:
        written = []
        for length in (size, size - 4):
            block = {"type": "text", "text": "x" * length, "cache_control": {"type": "ephemeral"}}
            message = await client.messages.create(model=model, max_tokens=1, system=[block], messages=[USER])
            written.append(message.usage.cache_creation_input_tokens)
    assert written == [least, 0]


def test_lines_of_signatures() -> None:
    """Only a signature of this fake names the line of its model."""
    assert line_of("fake:claude-opus-5-5:a:b") == "opus"
    assert [line_of(other) for other in ("", None, "sig", "fake:gpt:a:b", "real:claude-opus-5-5:a:b")] == [None] * 5
    assert set(MODELS) == set(ORDER)
