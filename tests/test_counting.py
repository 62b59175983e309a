"""Prompts near the edge of a window: counted exactly, once, and sent where they fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from anthropic import Anthropic

from tierline import Budget, Ladder, policy
from tierline.call import read_call
from tierline.classify import FixedClassifier
from tierline.counting import PromptCounts
from tierline.errors import IllegalRequestError
from tierline.legality import fit, unsure
from tierline.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline import Router
    from tierline.call import Call
    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

OLD, OPUS = "claude-haiku-4-5", "claude-opus-5-5"
LADDER = Ladder.of(old=OLD, new=OPUS)
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQK"}}


def ask(content: Any) -> dict[str, Any]:
    return {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": content}]}


def text(tokens: int) -> str:
    """Text of so many tokens by the tokenizer of Haiku 4.5, as the offline API has it."""
    return "word" * tokens


def paths(fake: FakeClaude) -> list[tuple[str, str | None]]:
    return [(request.path.rpartition("/")[2], request.model) for request in fake.requests]


def read(size: int | None) -> Call:
    call = read_call("create", ask("hi"))
    assert call is not None
    return call._replace(input_bound=size, text_bytes=size or 0)


@pytest.mark.parametrize(
    ("size", "models"),
    [
        (200_000, []),
        (400_000, []),
        (400_001, [OLD]),
        (1_000_000, [OLD]),
        (1_000_001, []),  # over Haiku's window by any tokenizer
        (1_538_461, []),
        (1_538_462, [OPUS]),
        (5_000_000, [OPUS]),
        (5_000_001, []),
        (None, [OLD]),
    ],
)
def test_only_what_is_near_the_edge_is_counted(size: int | None, models: list[str]) -> None:
    """The size alone tells of most prompts; of attachments, only models with less room than another are in doubt."""
    assert unsure(read(size), [OLD, OPUS, "my-own"]) == models
    assert unsure(read(None), [OPUS, "claude-sonnet-5-5"]) == []


def test_a_count_has_the_last_word() -> None:
    """A counted prompt fits or does not, whatever its size looks like."""
    assert not fit(read(900_000), OLD, 9, counted={OLD: 200_000}).blocked
    assert fit(read(900_000), OLD, 9, counted={OLD: 200_001}).blocked == "a prompt over 200000 tokens"
    assert not fit(read(900_000), OPUS, 9, counted={OLD: 200_001}).blocked


@pytest.mark.parametrize(("tokens", "model"), [(190_000, OLD), (210_000, OPUS)])
async def test_a_prompt_goes_where_it_fits(make_router: MakeRouter, fake: FakeClaude, tokens: int, model: str) -> None:
    """Near the edge the API counts, for free and once; nothing is sent that it would reject."""
    router = make_router(ladder=LADDER, classifier=FixedClassifier("simple"), budgets=[Budget("$50")])
    async with router.bind() as binding:
        for _ in range(2):
            await router.claude.messages.create(**ask(text(tokens)))
    assert paths(fake) == [("count_tokens", OLD), ("messages", model), ("messages", model)]
    if model == OPUS:
        assert "old rejects a prompt over 200000 tokens: new takes it" in binding.decisions[-1].reasons
    (balance,) = await router.balances()
    assert (balance.spent, balance.held) == (fake.billed, 0)


async def test_counts_are_each_tenants_own(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Whether a prompt has to be counted tells nobody what another tenant has sent."""
    router = make_router(ladder=LADDER, classifier=FixedClassifier("simple"))
    for tenant in ("acme", "globex", "acme", "globex"):
        async with router.bind(tenant=tenant):
            await router.claude.messages.create(**ask(text(190_000)))
    assert paths(fake) == [("count_tokens", OLD), ("messages", OLD)] * 2 + [("messages", OLD)] * 2


async def test_documents_count(make_router: MakeRouter, fake: FakeClaude) -> None:
    """What shows nothing of its length is counted where one of the tiers has less room."""
    router = make_router(ladder=LADDER, classifier=FixedClassifier("simple"))
    await router.claude.messages.create(**ask([PDF, {"type": "text", "text": "Sum up."}]))
    assert paths(fake) == [("count_tokens", OLD), ("messages", OLD)]


async def test_a_prompt_that_fits_nowhere(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Where no allowed tier has room, the error says so, and nothing is spent."""
    router = make_router(ladder=LADDER)
    with policy(tier="old"), pytest.raises(IllegalRequestError, match="old rejects a prompt over 200000 tokens"):
        await router.claude.messages.create(**ask(text(210_000)))
    assert fake.billed == 0


async def test_a_count_that_fails(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Without a count the prompt is sent, and the API has the last word."""
    router = make_router(ladder=LADDER, classifier=FixedClassifier("simple"))
    fake.script(*[Fault.error(500)] * 9, path="/v1/messages/count_tokens")
    await router.claude.messages.create(**ask(text(190_000)))
    assert paths(fake)[-1] == ("messages", OLD)


@pytest.mark.parametrize("odd", [{1: "a", "b": "c"}, "circle", "deep"])
async def test_what_is_no_json_is_not_counted(odd: Any) -> None:
    """What cannot be written down is asked of nobody, and breaks nothing here."""
    if odd == "circle":
        odd = {}
        odd["odd"] = odd
    elif odd == "deep":
        odd = []
        for _ in range(100_000):
            odd = [odd]

    async def ask(*_: Any) -> Any:
        raise AssertionError

    call = read(None)
    call.body["messages"][0]["content"] = [odd]
    assert await PromptCounts(b"secret").of(call, LADDER, ask) == {}


async def test_most_prompts_are_not_counted(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Short prompts, ids of the app's own and ladders of one window ask nothing."""
    router = make_router(ladder=LADDER)
    await router.claude.messages.create(**ask("hi"))
    await router.claude.messages.create(**ask(text(190_000)) | {"model": OLD})
    await make_router().claude.messages.create(**ask([PDF, {"type": "text", "text": "Sum up."}]))
    assert {path for path, _ in paths(fake)} == {"messages"}


def test_a_synchronous_client_counts_too(fake: FakeClaude) -> None:
    """The count is asked with the client whose call it is."""
    from tierline import Router

    with fake.serve_in_thread() as url, Anthropic(api_key=fake.api_key, base_url=url) as client:
        router = Router(sync_client=client, ladder=LADDER, classifier=FixedClassifier("simple"))
        router.sync_claude.messages.create(**ask(text(190_000)))
    assert paths(fake) == [("count_tokens", OLD), ("messages", OLD)]
