"""Every request on every model: what is legal where it was written for is legal wherever it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.testing.test_rules import GRID, ORDER
from tierline import Budget, Ladder, Tier, policy
from tierline.call import read_call
from tierline.errors import IllegalRequestError
from tierline.legality import fit
from tierline.plan import adapt
from tierline.testing._problem import Problem
from tierline.testing._rules import MODELS
from tierline.testing._validate import check_create
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tierline import Router
    from tierline.testing import FakeClaude

USER = {"role": "user", "content": "Hello"}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
SCHEMA = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
UNTOUCHED = ("system", "tools", "messages", "tool_choice", "inference_geo", "stop_sequences", "metadata")


def accepted(body: Mapping[str, Any], model: str) -> bool:
    """Whether the offline API takes it: by its own table, which is not the library's."""
    try:
        check_create(body, MODELS[model])
    except Problem:
        return False
    return True


thinking = st.one_of(
    st.sampled_from([{"type": kind} for kind in ("adaptive", "disabled", "between_tools")]),
    st.builds(lambda n: {"type": "enabled", "budget_tokens": n}, st.integers(1_024, 70_000)),
    st.just({"type": "adaptive", "display": "omitted"}),
)
output = st.builds(
    lambda effort, schema: effort | schema,
    st.sampled_from([{}, *({"effort": level} for level in ("low", "medium", "high", "xhigh", "max"))]),
    st.sampled_from([{}, SCHEMA]),
)
tools = st.sampled_from(
    [{}]
    + [{"tools": [TOOL], "tool_choice": {"type": kind}} for kind in ("auto", "any", "none")]
    + [
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "look"}},
        {"tools": [{"type": "computer_toolset_20260801"}]},
    ]
    + [{"tools": [{"type": kind, "name": "computer"}]} for kind in ("computer_20250124", "computer_20251124")]
)
bodies = st.builds(
    lambda must, may, tools: {"messages": [USER], **must, **may, **tools},
    st.fixed_dictionaries({"max_tokens": st.one_of(st.integers(1, 3_000), st.integers(3_000, 130_000))}),
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 1),
            "top_p": st.floats(0, 1),
            "top_k": st.integers(0, 9),
            "thinking": thinking,
            "output_config": output,
            "inference_geo": st.sampled_from(["us", "global"]),
            "speed": st.sampled_from(["fast", "standard"]),
            "messages": st.just([USER, {"role": "assistant", "content": "Well"}]),
            "system": st.just([{"type": "text", "text": "Be brief."}]),
        },
    ),
    tools,
)


@settings(max_examples=1_500, deadline=None)
@given(bodies, st.sampled_from(ORDER))
def test_a_legal_request_is_legal_wherever_it_goes(body: dict[str, Any], target: str) -> None:
    """A request that some model takes is taken by any other one that it is sent to, and keeps what it is in kind."""
    owners = [model for model in ORDER if accepted(body, model)]
    call = read_call("create", {"model": "auto", **body})
    assert call is not None
    found = fit(call, target, call.max_tokens)
    if target in owners:
        assert not found.blocked
        assert not found.changes
    if not owners or found.blocked:
        return
    limit = found.changes.get("max_tokens", call.max_tokens)
    sent = adapt(call, Offer("t", target, 1, max_tokens=limit, changes=found.changes))
    check_create(sent, MODELS[target])
    assert {k: sent.get(k) for k in UNTOUCHED} == {k: body.get(k) for k in UNTOUCHED}
    assert (sent.get("output_config") or {}).get("format") == (body.get("output_config") or {}).get("format")
    assert bool(found.reasons) == any(sent.get(k) != body.get(k) for k in body)


@pytest.mark.parametrize("name", GRID)
async def test_every_swap_through_the_sdk(make_router: Callable[..., Router], fake: FakeClaude, name: str) -> None:
    """Each parameter is sent to each model that it was not written for: no 400, or a refusal before that."""
    extra, owners = GRID[name]
    if "+" not in owners:
        return
    body = {"max_tokens": 2_000, "messages": [USER], **extra}
    ladder = Ladder.of(**{model.replace("-", "_"): model for model in ORDER})
    router = make_router(ladder=ladder)
    answered = ""
    for model in ORDER:
        async with router.bind() as binding:
            with policy(tier=model.replace("-", "_")):
                try:
                    await router.claude.messages.create(model="auto", max_tokens=1, messages=[USER], extra_body=body)
                except IllegalRequestError:
                    answered += "-"
                    continue
        answered += "+"
        assert fake.requests[-1].model == model
        rewritten = {k: v for k, v in fake.requests[-1].body.items() if k != "model"} != body
        assert rewritten == any(reason.startswith(model.replace("-", "_")) for reason in binding.decisions[-1].reasons)
    assert all(answered[place] == "+" for place, own in enumerate(owners) if own == "+")
    assert {request.status for request in fake.requests} == {200}


async def test_a_prefill_finds_the_tier_that_takes_it(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """Where one tier of several takes a request, it goes there; a model that rejects it is never asked."""
    router = make_router(ladder=Ladder.of(old="claude-haiku-4-5", new="claude-opus-5-5"))
    prefill = [USER, {"role": "assistant", "content": "Well"}]
    async with router.bind() as binding:
        await router.claude.messages.create(model="auto", max_tokens=50, messages=prefill)
        with policy(floor="new"), pytest.raises(IllegalRequestError, match="new rejects prefill"):
            await router.claude.messages.create(model="auto", max_tokens=50, messages=prefill)
    assert [request.model for request in fake.requests] == ["claude-haiku-4-5"]
    assert "new rejects prefill: old takes it" in binding.decisions[0].reasons


async def test_an_id_of_the_apps_own_is_sent_as_written(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """What the app asks of a model that it names is between it and the API."""
    router = make_router()
    with pytest.raises(anthropic.BadRequestError):
        await router.claude.messages.create(
            model="claude-opus-5-5", max_tokens=50, messages=[USER], extra_body={"temperature": 0.5}
        )
    assert fake.requests[-1].body["temperature"] == 0.5


async def test_a_patch_is_made_legal_too(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """What a tier gives every request is changed where it would make one illegal."""
    router = make_router(ladder=Ladder(Tier("top", "claude-opus-5-5", patch={"thinking": {"type": "disabled"}})))
    await router.claude.messages.create(model="auto", max_tokens=50, messages=[USER])
    assert fake.requests[-1].body["output_config"] == {"effort": "low"}
    assert "thinking" not in fake.requests[-1].body


async def test_a_cut_answer_of_a_tier_that_is_told_to_think(make_router: Callable[..., Router]) -> None:
    """What a tier's patch makes a model think is charged as unseen where the stream is cut, as if the app asked."""
    thoughts = {"thinking": {"type": "enabled", "budget_tokens": 2_000}}
    costs = []
    for patch, asked in (({}, thoughts), (thoughts, {})):
        router = make_router(ladder=Ladder(Tier("old", "claude-haiku-4-5", patch=patch)))
        async with router.bind() as binding:
            stream = await router.claude.messages.create(
                model="auto",
                max_tokens=4_000,
                messages=[USER],
                stream=True,
                **asked,  # type: ignore[call-overload]
            )
            async for event in stream:
                if event.type == "content_block_start":
                    break
            await stream.close()
        costs.append(binding.decisions[-1].cost)
    output = router.prices.rates("claude-haiku-4-5")
    assert output is not None
    assert min(costs) >= 4_000 * output.output // 1_000_000


async def test_the_worst_case_has_what_a_patch_adds_to_the_prompt(make_router: Callable[..., Router]) -> None:
    """A schema that a tier's patch brings along is held for, as one of the app's own."""
    fields = {f"field_{n}": {"type": "string", "description": "what it is for"} for n in range(100)}
    schema = {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": fields}}}}
    held = []
    for patch, asked in (({}, schema), (schema, {})):
        ladder = Ladder(Tier("only", "claude-haiku-5-5", patch=patch))
        router = make_router(ladder=ladder, budgets=[Budget("$1")])
        async with router.bind() as binding:
            await router.claude.messages.create(model="auto", max_tokens=100, messages=[USER], **asked)
        held.append(binding.decisions[-1].budgets[0].limit - binding.decisions[-1].budgets[0].remaining)
    assert held[1] >= held[0]


async def test_a_count_is_made_legal_too(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """What can be sent can be counted, and so can a prompt that is too long for every model."""
    router = make_router(ladder=Ladder(Tier("only", "claude-sonnet-5-5", patch={"metadata": {"user_id": "x"}})))
    counted = await router.claude.messages.count_tokens(
        model="auto", messages=[USER], thinking={"type": "enabled", "budget_tokens": 1_024}
    )
    assert counted.input_tokens > 0
    assert fake.requests[-1].body["thinking"] == {"type": "adaptive"}
    assert "metadata" not in fake.requests[-1].body
    long = [{"role": "user", "content": "word " * 1_100_000}]
    assert (await router.claude.messages.count_tokens(model="auto", messages=long)).input_tokens > 1_000_000  # type: ignore[arg-type]


async def test_a_patch_leaves_room_for_the_answer(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A tier that is told to think does where the request has room for it, and answers where it has not."""
    thoughts = {"thinking": {"type": "enabled", "budget_tokens": 2_000}}
    router = make_router(ladder=Ladder(Tier("old", "claude-haiku-4-5", patch=thoughts)))
    for most in (2_000, 2_001):
        await router.claude.messages.create(model="auto", max_tokens=most, messages=[USER])
    assert [request.body.get("thinking") for request in fake.requests] == [None, thoughts["thinking"]]
