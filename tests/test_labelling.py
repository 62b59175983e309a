"""Thousands of texts, labelled: in order, none invented, paid to the nano-USD, and taken up again."""

from __future__ import annotations

import asyncio
import json
import random
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tierline import Budget
from tierline.attempts import Timing
from tierline.classify import Labelled, Progress
from tierline.classify.sheet import parse_sheet
from tierline.errors import ConfigurationError
from tierline.testing import OK, FakeClaude, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from tierline import Router
    from tierline.classify import Labels

pytestmark = pytest.mark.usefixtures("quiet")

KINDS = ("bug", "praise", "question")
ORDER = "What kind of message is it?"


@pytest.fixture
def fake() -> FakeClaude:
    """Labels a text by the number in it."""
    return FakeClaude(verdict=lambda text, _labels: (kind_of(text), 0.9))


@pytest.fixture
async def sdk(fake: FakeClaude) -> AsyncIterator[Any]:
    """The real SDK, without a socket."""
    async with fake.client() as client:
        yield client


@pytest.fixture
def router(make_router: Callable[..., Router]) -> Router:
    return make_router(budgets=[Budget("$50")])


def kind_of(text: str) -> str:
    return KINDS[int(text.rsplit(maxsplit=1)[-1]) % 3]


def messages(count: int) -> list[str]:
    return [f"message {n}" for n in range(count)]


async def spent(router: Router) -> tuple[int, int]:
    ((spent, held),) = [(b.spent, b.held) for b in await router.balances()]
    return spent, held


def texts_in(fake: FakeClaude) -> list[int]:
    """How many texts each request asked for."""
    return [len(parse_sheet(request.body) or [0]) for request in fake.requests]


def right(found: Labels, texts: Sequence[str]) -> bool:
    return found.labels == [kind_of(text) for text in texts]


async def test_ten_thousand_with_faults(router: Router, fake: FakeClaude) -> None:
    """Of 10,000 texts, a twentieth of whose requests fail in one way or another, each has its own label or none."""
    dice = random.Random(8)  # noqa: S311
    faults = [Fault.rate_limit(), Fault.error(500), Fault.overloaded(), Fault.error(400)]
    fake.script(*(dice.choice(faults) if dice.random() < 0.05 else OK for _ in range(1_500)))

    def verdict(text: str, _labels: Sequence[str]) -> tuple[str, float] | str:
        # Garbage, another label, nothing, a line that is cut off, a line too many, a line for anybody.
        broken = ["}{", '[1, "opus", 1]', "", '[123, "bu', '[417, "bug", 1]\n[417, "bug", 1]', "Sorry, I cannot."]
        return dice.choice(broken) if dice.random() < 0.05 / 20 else (kind_of(text), 0.9)

    fake.verdict = verdict
    texts = messages(10_000)
    told: list[Progress] = []
    found = await router.classify_many(texts, KINDS, ORDER, progress=told.append)
    assert len(found.items) == 10_000
    wrong = [n for n, each in enumerate(found.items) if each.label not in (kind_of(texts[n]), None)]
    assert wrong == []
    assert found.without == sum(each.label is None for each in found.items) <= 10
    assert all(each.why for each in found.items if each.label is None)
    assert found.stopped == ""
    assert await spent(router) == (fake.billed, 0)
    assert found.cost == sum(each.cost for each in found.items) == fake.billed == router.report().classifier_cost
    assert (told[-1].done, told[-1].without, told[-1].cost) == (10_000, found.without, found.cost)
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert len(fake.requests) < 800


async def test_order_and_duplicates(router: Router, fake: FakeClaude) -> None:
    """Labels come in the order of the texts; one that stands twice is asked for once."""
    texts = ["message 2", "message 0", "message 2", "message 1"]
    found = await router.classify_many(texts, KINDS, ORDER)
    assert right(found, texts)
    assert [each.source for each in found.items] == ["claude", "claude", "cache", "claude"]
    assert [each.cost > 0 for each in found.items] == [True, True, False, True]
    assert (found.asked, found.cached, found.requests, texts_in(fake)) == (3, 1, 1, [3])
    assert str(found).startswith("4 texts: 3 asked, 1 cached, 0 resumed, 0 without a label; $0.00")


async def test_it_shares_the_cache(router: Router, fake: FakeClaude) -> None:
    """What `classify` has labelled is not asked for again, nor the other way round, nor by a second run."""
    one = await router.classify("message 0", KINDS, ORDER)
    found = await router.classify_many(messages(3), KINDS, ORDER)
    assert one is not None
    assert (found.items[0].source, found.items[0].cost, found.asked) == ("cache", 0, 2)
    assert (await router.classify("message 2", KINDS, ORDER)).source == "cache"  # type: ignore[union-attr]
    again = await router.classify_many(messages(3), KINDS, ORDER)
    assert (again.cached, again.cost, len(fake.requests)) == (3, 0, 2)


@pytest.mark.parametrize(("size", "at_once", "requests"), [(1, 1, 7), (3, 2, 3), (100, 5, 1)])
async def test_batches(router: Router, fake: FakeClaude, size: int, at_once: int, requests: int) -> None:
    """So many texts are in one request, and no more requests than that are under way."""
    most = 0
    create = fake.verdict

    def verdict(text: str, labels: Sequence[str]) -> tuple[str, float] | str:
        nonlocal most
        most = max(most, sum(request.ended == "open" for request in fake.requests))
        return create(text, labels)

    fake.verdict = verdict
    found = await router.classify_many(messages(7), KINDS, ORDER, size, at_once)
    assert right(found, messages(7))
    assert (len(fake.requests), max(texts_in(fake))) == (requests, min(size, 7))
    assert most <= at_once


async def test_nothing_at_all(router: Router, fake: FakeClaude) -> None:
    """No texts are no requests."""
    found = await router.classify_many([], KINDS, ORDER)
    assert (found.items, found.cost, fake.requests) == ((), 0, [])


# What goes wrong


async def test_what_cannot_be_labelled_is_said(router: Router, fake: FakeClaude) -> None:
    """A text that gets no label, however it is asked, has none; it is not given the first one."""
    fake.verdict = lambda text, _labels: "no idea" if text == "message 3" else (kind_of(text), 0.9)
    found = await router.classify_many(messages(8), KINDS, ORDER)
    odd = found.items[3]
    assert (odd.label, odd.source, odd.why) == (None, None, "the answer was none of the labels")
    assert odd.cost > 0
    assert right(found, messages(8)) is False
    assert [each.label for n, each in enumerate(found.items) if n != 3] == [
        kind_of(f"message {n}") for n in range(8) if n != 3
    ]
    assert texts_in(fake) == [8, 1, 1]


async def test_a_broken_batch_is_halved(router: Router, fake: FakeClaude) -> None:
    """One whose answer is all garbage is asked again in smaller ones, until each has its label."""
    garbage = {8, 4}

    def verdict(text: str, _labels: Sequence[str]) -> tuple[str, float] | str:
        return "garbage" if texts_in(fake)[-1] in garbage else (kind_of(text), 0.9)

    fake.verdict = verdict
    found = await router.classify_many(messages(8), KINDS, ORDER, concurrency=1)
    assert right(found, messages(8))
    assert texts_in(fake) == [8, 4, 2, 2, 4, 2, 2]
    assert found.cost == fake.billed


async def test_a_text_that_the_api_rejects(router: Router, fake: FakeClaude) -> None:
    """A 400 is one text's fault: the others are labelled without it."""

    def verdict(text: str, _labels: Sequence[str]) -> tuple[str, float] | str:
        return kind_of(text), 0.9

    fake.verdict = verdict
    # Message 2 of four: the whole, the first half passes, the second, message 2 alone.
    fake.script(Fault.error(400), OK, Fault.error(400), Fault.error(400), OK)
    found = await router.classify_many(messages(4), KINDS, ORDER, concurrency=1)
    assert found.items[2] == Labelled(None, why="the API refused it: BadRequestError")
    assert [each.label for each in found.items[:2]] == ["bug", "praise"]
    assert found.items[3].label == "bug"
    assert found.stopped == ""


async def test_waits_before_it_asks_again(make_router: Callable[..., Router], fake: FakeClaude, sdk: Any) -> None:
    """What fails is made again after growing waits, or after what the API asks for."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    timing = Timing(perf=lambda: sum(waits), sleep=sleep, jitter=lambda: 1.0)
    router = make_router(sdk.copy(max_retries=0), timing=timing)
    fake.script(Fault.error(500), Fault.rate_limit(17), Fault.overloaded(), Fault.reset())
    found = await router.classify_many(messages(4), KINDS, ORDER)
    assert right(found, messages(4))
    assert waits == [1, 17, 4, 8]


@pytest.mark.parametrize("fault", [Fault.html(), Fault.truncated_json(), Fault.missing_usage()])
async def test_answers_that_are_none(router: Router, fake: FakeClaude, fault: Fault) -> None:
    """What is no answer of the API's is asked again; what it may have cost is charged, and told."""
    fake.script(fault)
    found = await router.classify_many(messages(4), KINDS, ORDER)
    assert right(found, messages(4))
    total, held = await spent(router)
    assert (total, held) == (found.cost, 0)
    assert total >= fake.billed


async def test_an_api_that_is_down_ends_the_run(router: Router, fake: FakeClaude) -> None:
    """It is not asked for ever, and no text is given up for it: the rest is said not to have been asked."""
    found_before = await router.classify_many(messages(2), KINDS, ORDER)
    fake.always("claude-haiku-5-5", Fault.error(400).saying())
    fake.clear()
    fake.always("claude-haiku-5-5", Fault.reset())
    found = await router.classify_many(messages(60), KINDS, ORDER)
    assert found.labels[:2] == found_before.labels
    assert found.labels[2:] == [None] * 58
    assert found.stopped.startswith("the API failed 6 times")
    assert all(found.stopped in each.why for each in found.items[2:])


async def test_a_key_that_is_rejected(make_router: Callable[..., Router], fake: FakeClaude, sdk: Any) -> None:
    """There is no use in going on: one request is made for each worker at most."""
    router = make_router(sdk.copy(api_key="wrong"))
    found = await router.classify_many(messages(200), KINDS, ORDER)
    assert found.stopped == "the API answered 401 AuthenticationError"
    assert len(fake.requests) <= 5
    assert found.labels == [None] * 200


async def test_a_budget_that_is_used_up(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """The run stops, keeps what it has, says so, and has spent as much of the limit as texts could be asked for."""
    router = make_router(budgets=[Budget("$0.0018", name="labels", downgrade_at=None, cheapest_at=None)])
    found = await router.classify_many(messages(400), KINDS, ORDER)
    assert found.stopped.startswith("budget labels refused: ")
    had = [n for n, each in enumerate(found.items) if each.label is not None]
    assert 0 < len(had) < 400
    assert all(found.items[n].label == kind_of(f"message {n}") for n in had)
    assert {each.why for each in found.items if each.label is None} == {f"not asked: {found.stopped}"}
    total, held = await spent(router)
    assert (total, held) == (fake.billed, 0)
    # What is left has no room for the worst case of a single text.
    assert 1_800_000 - 145_000 < total <= 1_800_000


async def test_a_cancelled_run_settles(router: Router, fake: FakeClaude) -> None:
    """Whoever cancels it cancels its requests, and nothing stays held."""
    fake.always(None, Fault.hang())
    run = asyncio.create_task(router.classify_many(messages(100), KINDS, ORDER))
    await fake.until(lambda requests: len(requests) == 5)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (await spent(router))[1] == 0


async def test_a_callback_that_raises(router: Router) -> None:
    """Its error is the app's, and ends the run."""

    async def told(progress: Progress) -> None:
        await asyncio.sleep(0)
        raise RuntimeError(str(progress.done))

    with pytest.raises(RuntimeError, match="20"):
        await router.classify_many(messages(100), KINDS, ORDER, progress=told)
    assert (await spent(router))[1] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"items": ["a", 5]},
        {"items": [b"a"]},
        {"items": "one text"},
        {"labels": "bug"},
        {"instruction": None},
        {"labels": ()},
        {"labels": ("a", "a")},
        {"labels": ("a", "A ")},
        {"batch_size": 0},
        {"batch_size": 101},
        {"batch_size": True},
        {"concurrency": 0},
        {"concurrency": 2.5},
        {"progress": "print"},
    ],
)
async def test_arguments_that_cannot_work(router: Router, fake: FakeClaude, wrong: dict[str, Any]) -> None:
    """They are refused before anything is asked."""
    given: dict[str, Any] = {"items": ["a"], "labels": KINDS, "instruction": ORDER} | wrong
    with pytest.raises(ConfigurationError):
        await router.classify_many(**given)
    assert fake.requests == []


# Taking it up again


async def test_a_second_run_asks_for_what_is_missing(
    make_router: Callable[..., Router], fake: FakeClaude, tmp_path: Path
) -> None:
    """Another process, with another cache, reads the file and asks only for the rest; in the end nothing is asked."""
    path = tmp_path / "labels.jsonl"
    first = make_router(budgets=[Budget("$0.0018", downgrade_at=None, cheapest_at=None)])
    stopped = await first.classify_many(messages(400), KINDS, ORDER, resume=path)
    had = 400 - stopped.without
    assert 0 < had < 400
    second = make_router()
    rest = await second.classify_many(messages(400), KINDS, ORDER, resume=path)
    assert right(rest, messages(400))
    assert (rest.resumed, rest.asked) == (had, 400 - had)
    before = len(fake.requests)
    again = await make_router().classify_many(messages(400), KINDS, ORDER, resume=str(path))
    assert (right(again, messages(400)), again.resumed, again.cost, len(fake.requests)) == (True, 400, 0, before)


async def test_what_the_file_tells(router: Router, tmp_path: Path) -> None:
    """No text, only hashes with a salt of its own; and nobody else may read it."""
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        await router.classify_many(["canary 1"], KINDS, ORDER, resume=path)
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o600
    rows = [json.loads(path.read_text().split("\n")[1]) for path in paths]
    assert "canary" not in paths[0].read_text() + paths[1].read_text()
    assert rows[0]["label"] == "praise"
    assert rows[0]["key"] != rows[1]["key"]


async def test_a_damaged_file(make_router: Callable[..., Router], fake: FakeClaude, tmp_path: Path) -> None:
    """Lines that are cut off, are none, or have another label are as if they were not there; the rest counts."""
    path = tmp_path / "labels.jsonl"
    await make_router().classify_many(messages(4), KINDS, ORDER, resume=path)
    lines = path.read_text().split("\n")
    broken = [lines[0], lines[1], lines[2].replace('"praise"', '"opus"'), "[1, 2]", lines[3], lines[4][:-9]]
    path.write_text("\n".join(broken))
    found = await make_router().classify_many(messages(4), KINDS, ORDER, resume=path)
    assert right(found, messages(4))
    assert [each.source for each in found.items] == ["file", "claude", "file", "claude"]
    again = await make_router().classify_many(messages(4), KINDS, ORDER, resume=path)
    assert again.resumed == 4


@pytest.mark.parametrize(
    "content", ['{"a": 1}\n', "a,b\n1,2\n", '{"tierline labels": 2}\n', '{"tierline labels": 1, "salt": "x"}']
)
async def test_a_file_of_somebody_else(router: Router, fake: FakeClaude, tmp_path: Path, content: str) -> None:
    """It is not touched."""
    path = tmp_path / "other"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="another one"):
        await router.classify_many(messages(2), KINDS, ORDER, resume=path)
    assert (path.read_text(), fake.requests) == (content, [])


async def test_a_file_of_other_labels(make_router: Callable[..., Router], tmp_path: Path) -> None:
    """Nor is one that was written for other labels, for another instruction, or with another secret."""
    path = tmp_path / "labels.jsonl"
    await make_router(secret=b"one").classify_many(messages(2), KINDS, ORDER, resume=path)
    for secret, labels, order in (
        (b"one", ("bug", "other"), ORDER),
        (b"one", KINDS, "Which?"),
        (b"two", KINDS, ORDER),
        (None, KINDS, ORDER),
    ):
        with pytest.raises(ConfigurationError, match="of other labels"):
            await make_router(secret=secret).classify_many(messages(2), labels, order, resume=path)
    found = await make_router(secret=b"one").classify_many(messages(2), KINDS, ORDER, resume=path)
    assert found.resumed == 2


async def test_a_file_that_cannot_be(router: Router, fake: FakeClaude, tmp_path: Path) -> None:
    """That is said before anything is paid for."""
    with pytest.raises(ConfigurationError, match="cannot be used"):
        await router.classify_many(messages(2), KINDS, ORDER, resume=tmp_path / "none" / "labels.jsonl")
    assert fake.requests == []


# Without a loop


def test_threads_classify_too(make_sync_router: Callable[..., Router], fake: FakeClaude) -> None:
    """With the synchronous client, the same cache and the same budgets."""
    router = make_sync_router(budgets=[Budget("$1", per="tenant")])
    with router.bind(tenant="acme"):
        one, two = (router.sync_classify("message 1", KINDS, ORDER) for _ in range(2))
    assert one is not None
    assert two is not None
    assert (one.label, one.cost, two.source, len(fake.requests)) == ("praise", fake.billed, "cache", 1)
    assert [(b.account, b.spent) for b in asyncio.run(router.balances())] == [("acme", fake.billed)]
    with pytest.raises(ConfigurationError):
        router.sync_classify("x", (), ORDER)
