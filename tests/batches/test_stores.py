"""What every store of jobs must do: in memory, in SQLite, in Redis."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest  # noqa: TC002

from tierline.batches.jobs import ERASED, FINAL, SENT, WAITING, Ended, Held, Item, Share, Tally, waits_in

if TYPE_CHECKING:
    from tests.batches.stores import Shared
    from tierline.batches.jobs import JobStore

SETTINGS = '{"when_full":"refuse"}'
MUCH = 3_000_000_000_000_000_001
"""Nano-USD that a float cannot tell from one more."""


def items(*places: int, hold: str = "h1") -> list[Item]:
    return [Item(place, f"r{place}", f'{{"n":{place}}}', hold, SENT, MUCH, "haiku", "m") for place in places]


async def filled(store: JobStore, *places: int, batch: str = "b1", hold: str = "h1", job: str = "j") -> None:
    """A job with requests in a batch that is sealed."""
    await store.begin(job, f"uid-{job}", "me", SETTINGS)
    await store.intend(job, "me", [hold])
    assert await store.add(job, "me", batch, items(*places, hold=hold), [Held(hold, f"entry {hold}")], [hold])
    assert await store.seal(batch, "me")


async def test_a_job_is_as_it_was_submitted(shared: Shared) -> None:
    """What was taken in is there for another process: batch, payloads in order, counts."""
    await filled(shared.open(), 0, 1, 2)
    other = shared.open()
    await other.finish("j", "me", whole=True)
    (row,) = await other.take("you", 5)
    assert (row.id, row.job, row.uid, row.state, row.number, row.bytes) == ("b1", "j", "uid-j", "sealed", 3, 24)
    assert await other.payloads("b1", 0, 10) == [(1, '{"n":1}'), (2, '{"n":2}')]
    found = await other.counts("j")
    assert found is not None
    assert (found.whole, found.busy, found.open, found.outcomes) == (True, False, True, {"": (3, 0)})
    assert await other.jobs() == ["j"]
    assert await other.counts("k") is None


async def test_one_submits_to_a_job_at_a_time(shared: Shared) -> None:
    """Another is told so, until the first has finished; uid and settings stay."""
    store = shared.open()
    assert not (await store.begin("j", "one", "me", SETTINGS)).busy
    assert (await store.begin("j", "two", "you", "{}")) == ("one", True, False, SETTINGS, False)
    await store.finish("j", "me", whole=False)
    assert (await store.begin("j", "two", "you", "{}")) == ("one", False, False, SETTINGS, False)
    await store.cancel("j")
    assert (await store.begin("j", "two", "you", "{}")).canceled


async def test_what_is_known_is_told_by_place_and_by_name(shared: Shared) -> None:
    """So that an input that is given again is passed over, and a name that comes twice is noticed."""
    store = shared.open()
    await filled(store, 0, 2)
    assert await store.known("j", 0, 3, ["r2", "r7"]) == ({0, 2}, {"r2": 2})


async def test_nothing_is_taken_under_a_hold_that_was_given_back(shared: Shared) -> None:
    """Whoever was thought to be gone finds its intents gone, and nothing is done."""
    store = shared.open()
    await store.begin("j", "u", "me", SETTINGS)
    await store.intend("j", "me", ["h1"])
    assert await store.left()
    await store.end(["h1"])
    assert not await store.left()
    assert not await store.add("j", "me", "b1", items(0), [Held("h1", "e")], ["h1"])
    assert await store.known("j", 0, 9, []) == (set(), {})
    assert not await store.add("j", "somebody else", "b1", items(0), [], [])


async def test_what_is_done_twice_is_done_once(shared: Shared) -> None:
    """A script whose answer was lost is sent again; a result that comes again changes nothing."""
    store = shared.open()
    await filled(store, 0, 1)
    await store.take("you", 5)
    for _ in range(2):
        assert await store.collect("b1", "you", [Ended(0, FINAL, "succeeded", "text", MUCH, estimated=True)])
    assert await store.collect("b1", "you", [Ended(0, FINAL, "errored", "later", 7)])
    assert await store.shares("b1") == [Share(Held("h1", "entry h1"), MUCH, True, 0, 1)]
    found = await store.counts("j")
    assert found is not None
    assert found.outcomes == {"": (1, 0), "succeeded": (1, MUCH)}


async def test_a_payload_is_gone_with_its_result(shared: Shared) -> None:
    """A prompt is kept no longer than it is needed."""
    store = shared.open()
    await filled(store, 0, 1)
    await store.take("you", 5)
    await store.collect("b1", "you", [Ended(0, FINAL, "succeeded", "{}", 5)])
    assert await store.payloads("b1", -1, 10) == [(1, '{"n":1}')]


async def test_results_come_in_order_up_to_the_first_gap(shared: Shared) -> None:
    """However they came in; what is refused or invalid has its place among them."""
    store = shared.open()
    await filled(store, 0, 1, 3)
    await store.add("j", "me", "b2", [Item(2, None, None, state=FINAL, outcome="invalid", result="why")], [], [])
    await store.take("you", 5)
    await store.collect("b1", "you", [Ended(3, FINAL, "succeeded", "c", 5), Ended(0, FINAL, "succeeded", "a", 5)])
    assert [row.place for row in await store.results("j", -1, 10)] == [0]
    await store.collect("b1", "you", [Ended(1, FINAL, "errored", "b", 0)])
    found = await store.results("j", -1, 10)
    assert [(row.place, row.name, row.outcome, row.result) for row in found] == [
        (0, "r0", "succeeded", "a"),
        (1, "r1", "errored", "b"),
        (2, None, "invalid", "why"),
        (3, "r3", "succeeded", "c"),
    ]
    assert [row.place for row in await store.results("j", 1, 1)] == [2]


async def test_a_batch_has_one_owner(shared: Shared) -> None:
    """Nobody else takes it, saves it or collects for it; given back, it is there again when it is due."""
    store, other = shared.open(), shared.open()
    await filled(store, 0)
    (row,) = await store.take("you", 5)
    assert await other.take("they", 5) == []
    assert not await other.save(row, "they", give_back=True)
    assert not await other.collect("b1", "they", [Ended(0, FINAL, "succeeded", None, 0)])
    assert await store.save(row._replace(state="sent", api="api-1", trace="t", due=9e9), "you", give_back=True)
    assert await other.take("they", 5) == []
    await other.cancel("j")
    (row,) = await other.take("they", 5)
    assert (row.state, row.api, row.trace, row.canceled, row.settings) == ("sent", "api-1", "t", True, SETTINGS)
    assert await store.is_known("api-1")
    assert not await store.is_known("api-2")
    assert await store.whose("uid-j", 0) == "b1"
    assert await store.whose("uid-j", 1) == ""
    await other.save(row._replace(state="done"), "they", give_back=True)
    assert await store.sent("j") == []


async def test_a_lease_that_ends_lets_others_in(shared: Shared) -> None:
    """Of a batch that is filled, of one that is worked on, of a job, of an intent; but not while it is kept."""
    store, long = shared.open(lease=0.3), shared.open()  # in memory these are one, which no server makes wait
    await store.begin("j", "u", "dead", SETTINGS)
    await store.intend("j", "dead", ["h1", "h2"])
    assert await store.add("j", "dead", "b1", items(0), [Held("h1", "e")], ["h1"])
    await store.begin("k", "v", "alive", SETTINGS)
    await store.intend("k", "alive", ["h3"])
    for _ in range(4):
        await asyncio.sleep(0.1)
        await long.keep("alive")
    assert await store.lapsed(5) == ["h2"]
    assert (await store.begin("k", "w", "you", SETTINGS)).busy
    assert not (await store.begin("j", "w", "you", SETTINGS)).busy
    (row,) = await store.take("you", 5)
    assert (row.id, row.state) == ("b1", "sealed")
    assert not await store.seal("b1", "dead")


async def test_what_waits_moves_to_another_batch(shared: Shared) -> None:
    """Under a new hold, with one try more; the old hold knows what waits for it, and what it came to."""
    store = shared.open()
    await filled(store, 0, 1, 2)
    await store.take("you", 5)
    back = [
        Ended(1, WAITING, "expired", "late"),
        Ended(2, WAITING, "errored", "busy"),
        Ended(0, FINAL, "succeeded", "a", 5),
    ]
    assert await store.collect("b1", "you", back)
    assert await store.shares("b1") == [Share(Held("h1", "entry h1"), 5, False, 2, 3)]
    assert await store.waiting("b1", "h1", -1, 10) == [(1, MUCH, "expired"), (2, MUCH, "errored")]
    await store.intend("j", "you", ["h2", "h3"])
    assert await store.move("b1", "you", "b2", [1], Held("h2", "entry h2"), ["h2"])
    assert not await store.move("b1", "you", "b2", [1], Held("h3", "entry h3"), ["h3"])
    assert await store.waiting("b1", "h1", -1, 10) == [(2, MUCH, "errored")]
    assert await store.seal("b2", "you")
    facts = await store.facts("b2", [1, 2])
    assert facts == {1: (2, MUCH, "m", "h2", "")}
    assert [(row.id, row.number, row.bytes) for row in await store.take("they", 5)] == [("b2", 1, 8)]
    found = await store.counts("j")
    assert found is not None
    assert (found.waiting, found.outcomes) == (1, {"": (2, 0), "succeeded": (1, 5)})


async def test_what_has_no_room_waits_in_a_batch_of_its_own(shared: Shared) -> None:
    """It is looked at by anybody, at once."""
    store = shared.open()
    await store.begin("j", "u", "me", SETTINGS)
    waits = items(0, hold="w1")[0]._replace(state=WAITING)
    assert await store.add("j", "me", "b1", [waits], [Held("w1", "entry")], [])
    (row,) = await store.take("you", 5)
    assert (row.id, row.state) == (waits_in("b1"), "waiting")
    assert await store.shares(row.id) == [Share(Held("w1", "entry"), 0, False, 1, 1)]
    assert await store.collect(row.id, "you", [Ended(0, FINAL, "refused", "no money")])
    assert [row.outcome for row in await store.results("j", -1, 5)] == ["refused"]


async def test_holds_are_read_page_by_page(shared: Shared) -> None:
    """All that were made, none that is only intended, none that was settled."""
    store = shared.open()
    for place in range(3):
        await filled(store, place, batch=f"b{place}", hold=f"h{place}")
    await store.intend("j", "me", ["h9"])
    assert [each.id for each in await store.holds("", 2)] == ["h0", "h1"]
    assert await store.holds("h1", 2) == [Held("h2", "entry h2")]
    await store.end(["h1", "h9"])
    assert [each.id for each in await store.holds("", 9)] == ["h0", "h2"]


async def test_a_job_is_forgotten_when_it_has_ended(shared: Shared) -> None:
    """And not before; then nothing is left of it."""
    store = shared.open()
    await filled(store, 0)
    assert await store.left()
    (row,) = await store.take("you", 5)
    await store.finish("j", "me", whole=True)
    assert not await store.erase("j")
    await store.collect("b1", "you", [Ended(0, FINAL, "succeeded", "a", 5)])
    await store.save(row._replace(state="done", api="x"), "you", give_back=True)
    assert not await store.left()
    assert await store.erase("j")
    assert await store.jobs() == []
    assert await store.counts("j") is None
    while await store.sweep(10):
        pass
    assert not await store.left()
    assert not await store.is_known("x")
    assert await store.known("j", 0, 9, ["r0"]) == (set(), {})
    await filled(store, 0, batch="b2", hold="h2")
    found = await store.counts("j")
    assert found is not None
    assert found.outcomes == {"": (1, 0)}


async def test_jobs_to_which_nothing_happens_are_retired(shared: Shared) -> None:
    """Those alone that have ended, bit by bit where they are many; what is busy or open stays, however old."""
    store = shared.open(lease=0.2)
    await filled(store, 0, 1, 2, 3, 4)
    assert await store.retire(0) == 0
    assert await store.under_way() == 1
    (row,) = await store.take("you", 5)
    await store.collect("b1", "you", [Ended(place, FINAL, "succeeded", "a", 5) for place in range(5)])
    await store.save(row._replace(state="done"), "you", give_back=True)
    await store.finish("j", "me", whole=True)
    await store.begin("k", "uid-k", "me", SETTINGS)
    assert await store.under_way() == 0
    assert await store.retire(60) == 0
    assert await store.retire(-1) == 1
    assert await store.jobs() == ["k"]
    assert await store.counts("j") is None
    steps = 0
    while await store.sweep(2):
        steps += 1
    assert steps in (0, 3)
    assert await store.known("j", 0, 9, []) == (set(), {})


async def test_what_is_kept_of_a_tenant_is_dropped(shared: Shared) -> None:
    """Answers, names and prompts of its requests, wherever they are; what they cost stays, and is nobody's."""
    store = shared.open()
    await store.begin("j", "uid-j", "me", SETTINGS)
    mine = [item._replace(tenant="acme" if item.place % 2 else "other") for item in items(0, 1, 2, 3, 5)]
    assert await store.add("j", "me", "b1", mine, [Held("h1", "entry h1")], [])
    await store.seal("b1", "me")
    (row,) = await store.take("you", 5)
    await store.save(row._replace(state="sent", api="api"), "you", give_back=False)
    done = [Ended(0, FINAL, "succeeded", "zero", 3), Ended(1, FINAL, "succeeded", "one", MUCH, plain=MUCH, top=MUCH)]
    assert await store.collect("b1", "you", [*done, Ended(2, WAITING, "expired", "late")])
    later = [item._replace(tenant="acme", hold="h2") for item in items(7, 8)]
    assert await store.add("j", "me", "b2", later, [Held("h2", "entry h2")], [])
    waits = items(9, hold="w1")[0]._replace(state=WAITING, tenant="acme")
    assert await store.add("j", "me", "b2", [waits], [Held("w1", "entry w1")], [])
    after: int | None = -1
    while after is not None:
        after = await store.forget("j", "acme", after, 2)
    assert await store.payloads("b1", -1, 9) == [(3, None), (5, None)]
    assert await store.payloads("b2", -1, 9) == []
    back = [Ended(3, FINAL, "succeeded", "three", 4, plain=8, top=16), Ended(5, WAITING, "expired", "late")]
    assert await store.collect("b1", "you", [*back, Ended(2, FINAL, "expired", "late")])
    found = [(row.place, row.name, row.outcome, row.result, row.cost) for after in (-1, 4, 6)
             for row in await store.results("j", after, 20)]  # fmt: skip
    assert found == [
        (0, "r0", "succeeded", "zero", 3),
        (1, None, "canceled", ERASED, MUCH),
        (2, "r2", "expired", "late", 0),
        (3, None, "canceled", ERASED, 4),
        (5, None, "canceled", ERASED, 0),
        (7, None, "canceled", ERASED, 0),
        (8, None, "canceled", ERASED, 0),
        (9, None, "canceled", ERASED, 0),
    ]
    assert await store.tally("j") == [
        Tally("", "haiku", "canceled", 6, MUCH + 4, MUCH + 8, MUCH + 16, 0),
        Tally("other", "haiku", "expired", 1, 0, 0, 0, 0),
        Tally("other", "haiku", "succeeded", 1, 3, 0, 0, 0),
    ]
    counts = await store.counts("j")
    assert counts is not None
    assert (counts.waiting, counts.outcomes) == (
        0,
        {"canceled": (6, MUCH + 4), "expired": (1, 0), "succeeded": (1, 3)},
    )
    assert await store.shares("b1") == [Share(Held("h1", "entry h1"), MUCH + 7, False, 0, 5)]
    assert (await store.known("j", 0, 9, ["r1", "r3", "r7", "r9", "r0"]))[1] == {"r0": 0}
    await store.seal("b2", "me")
    assert [(row.id, row.number, row.bytes) for row in await store.take("they", 5)] == [("b2", 0, 0), ("b2w", 0, 0)]


async def test_notes_of_batches_are_told(shared: Shared) -> None:
    """Why the API does not take what it should."""
    store = shared.open()
    await filled(store, 0)
    (row,) = await store.take("you", 5)
    await store.save(row._replace(fails=1, note="529 overloaded_error"), "you", give_back=True)
    found = await store.counts("j")
    assert found is not None
    assert found.notes == ("529 overloaded_error",)


async def test_a_connection_that_is_no_store_is_memory() -> None:
    """A ledger of the app's own may keep its balances anywhere."""
    from tierline.batches.opening import open_jobs

    store = open_jobs(object(), clock=lambda: 0.0, lease=1.0)
    await filled(store, 0)
    assert await store.jobs() == ["j"]


async def test_a_job_is_told_by_account_tier_and_outcome(shared: Shared) -> None:
    """To the nano-USD, as results come in; what is tried again has no outcome; nothing stays of a job that is gone."""
    store = shared.open()
    mine = [each._replace(tenant="a" if each.place < 3 else "b") for each in items(0, 1, 2, 3)]
    refused = Item(4, "r4", None, state=FINAL, outcome="refused", result="no", tenant="a")
    await store.begin("j", "u", "me", SETTINGS)
    assert await store.add("j", "me", "b1", [*mine, refused], [Held("h1", "e")], [])
    await store.seal("b1", "me")
    (row,) = await store.take("you", 5)
    assert await store.tally("j") == [
        Tally("a", "", "refused", 1, 0, 0, 0, 0),
        Tally("a", "haiku", "", 3, 0, 0, 0, 0),
        Tally("b", "haiku", "", 1, 0, 0, 0, 0),
    ]
    back = [
        Ended(0, FINAL, "succeeded", "{}", MUCH, plain=MUCH + 1, top=MUCH + 2),
        Ended(1, WAITING, "expired", "late"),
        Ended(3, FINAL, "errored", "no", 5, estimated=True, plain=5, top=5),
    ]
    for _ in range(2):
        assert await store.collect("b1", "you", back)
    found = [
        Tally("a", "", "refused", 1, 0, 0, 0, 0),
        Tally("a", "haiku", "", 2, 0, 0, 0, 0),
        Tally("a", "haiku", "succeeded", 1, MUCH, MUCH + 1, MUCH + 2, 0),
        Tally("b", "haiku", "errored", 1, 5, 5, 5, 1),
    ]
    assert await store.tally("j") == found
    await store.collect("b1", "you", [Ended(each, FINAL, "canceled", "c") for each in (1, 2)])
    assert (await store.tally("j"))[1] == Tally("a", "haiku", "canceled", 2, 0, 0, 0, 0)
    await store.finish("j", "me", whole=True)
    await store.save(row._replace(state="done"), "you", give_back=True)
    assert await store.erase("j")
    while await store.sweep(10):
        pass
    assert await store.tally("j") == []


async def test_a_result_may_come_with_its_request(shared: Shared) -> None:
    """Of a call that was answered before it was written down: it counts, and is told in its place, not before."""
    store, much = shared.open(), 10**18 + 1  # a float cannot tell it from one less
    await store.begin("j", "u", "me", SETTINGS)

    def answered(place: int, tries: int) -> Item:
        came = {"tries": tries, "cost": much, "estimated": place == 0, "plain": much, "top": 2 * much}
        return Item(
            place, f"r{place}", None, state=FINAL, tier="haiku", model="m", outcome="succeeded", result=f"a{place}",
            tenant="acme", **came,
        )  # fmt: skip

    assert await store.add("j", "me", "", [answered(2, 1), answered(1, 3)], [], [])
    assert await store.results("j", -1, 9) == []
    assert [each.place for each in await store.results("j", 0, 9)] == [1, 2]
    assert await store.add("j", "me", "", [answered(0, 1)], [], [])
    assert not await store.add("j", "you", "", [answered(3, 1)], [], [])
    found = await store.results("j", -1, 9)
    assert [(each.place, each.name, each.result, each.tries, each.estimated) for each in found] == [
        (0, "r0", "a0", 1, True), (1, "r1", "a1", 3, False), (2, "r2", "a2", 1, False),
    ]  # fmt: skip
    assert {(each.outcome, each.tier, each.model, each.cost) for each in found} == {("succeeded", "haiku", "m", much)}
    counts = await store.counts("j")
    assert counts is not None
    assert (counts.outcomes, counts.open, counts.waiting) == ({"succeeded": (3, 3 * much)}, False, 0)
    assert await store.tally("j") == [Tally("acme", "haiku", "succeeded", 3, 3 * much, 3 * much, 6 * much, 1)]


async def test_a_long_job_is_counted_bit_by_bit(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a difference in what is told; whether it has ended is told without counting."""
    from tierline.batches import sqlite

    monkeypatch.setattr(sqlite, "_AT_ONCE", 2)
    store = shared.open()
    assert await store.over("j") is None
    await filled(store, 0, 1, 2, 5, 6)
    assert await store.over("j") is False
    (row,) = await store.take("you", 5)
    await store.collect("b1", "you", [Ended(place, FINAL, "succeeded", "a", 5) for place in (0, 1, 2, 6)])
    await store.collect("b1", "you", [Ended(5, WAITING, "expired", "late")])
    found = await store.counts("j")
    assert found is not None
    assert (found.outcomes, found.waiting) == ({"succeeded": (4, 20), "": (1, 0)}, 1)
    assert [(each.outcome, each.number, each.cost) for each in await store.tally("j")] == [
        ("", 1, 0),
        ("succeeded", 4, 20),
    ]
    await store.save(row._replace(state="done"), "you", give_back=True)
    assert await store.over("j") is False
    await store.finish("j", "me", whole=True)
    assert await store.over("j") is True
