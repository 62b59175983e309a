"""What every store of deferred requests must do: in memory, in SQLite, in Redis."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from tierline.batches.queue.store import Item

if TYPE_CHECKING:
    from tests.batches.stores import Shared
    from tierline.batches.queue.store import QueueStore

MUCH = 10_000.0
SHORT = 0.3


def item(handle: str, **more: Any) -> Item:
    """A request that may be batched now, and need not for hours."""
    now = time.time()
    found = Item(handle, "acme", f"r-{handle}", "refuse", "", now, now - 1, now + MUCH, now + 2 * MUCH, now + 3 * MUCH,
                 now + 4 * MUCH, f'{{"q":"{handle}"}}')  # fmt: skip
    return found._replace(**more)


async def gathered(store: QueueStore, *handles: str, group: str = "g") -> None:
    for handle in handles:
        await store.put(item(handle))
    assert await store.gather(group, len(handles))


async def test_a_request_is_as_it_was_deferred(shared: Shared) -> None:
    """Another process finds all of it; to put it in twice changes nothing."""
    given = item("a")
    await shared.queue().put(given)
    other = shared.queue()
    await other.put(given._replace(request="{}"))
    found = await other.get("a")
    assert found is not None
    assert found._replace(created=given.created) == given
    assert await other.get("b") is None


async def test_a_group_is_made_when_there_are_enough(shared: Shared) -> None:
    """Not before; with what is to be sent first, by place, and only one may make it."""
    store = shared.queue()
    now = time.time()
    await store.put(item("late", fill_by=now + 9 * MUCH))
    await store.put(item("soon"))
    assert not await store.gather("g", 3)
    await store.put(item("later", ready=now + MUCH))
    assert not await store.gather("g", 3), "one of them must wait for its hours"
    assert await store.gather("g", 2)
    assert [(each.place, each.handle) for each in await store.members("g", -1, 9)] == [(0, "soon"), (1, "late")]
    assert [each.request for each in await store.members("g", 0, 9)] == ['{"q":"late"}']
    assert not await store.gather("h", 2)


async def test_a_group_is_made_when_one_has_waited_long_enough(shared: Shared) -> None:
    """It takes others with it, though not those that do otherwise where money is short, nor those that are too late."""
    store = shared.queue()
    now = time.time()
    await store.put(item("due", fill_by=now - 1))
    await store.put(item("with"))
    await store.put(item("other", when_full="defer"))
    await store.put(item("past", fill_by=now - 9, act_by=now - 5))
    assert await store.gather("g", 100)
    assert {each.handle for each in await store.members("g", -1, 9)} == {"due", "with"}
    assert not await store.gather("h", 100)
    (group,) = await store.groups("me", 9)
    assert (group.id, group.when_full, group.number, group.submitted, group.canceled) == ("g", "refuse", 2, 0, False)
    assert group.act_by == pytest.approx(now + 2 * MUCH, abs=60)


async def test_a_group_has_one_owner(shared: Shared) -> None:
    """Until it is saved, and then when it is due; nobody else saves or drops it."""
    store, other = shared.queue(), shared.queue()
    await gathered(store, "a", "b")
    (group,) = await store.groups("me", 9)
    assert await other.groups("you", 9) == []
    assert not await other.save(group, "you")
    await other.drop("g", "you")
    assert await store.save(group._replace(submitted=5.0, seen=1, canceled=True, due=time.time() + MUCH), "me")
    assert await other.groups("you", 9) == []
    assert await store.members("g", -1, 9) != []


async def test_what_a_dead_process_had_goes_to_another(shared: Shared) -> None:
    """Groups, calls and deliveries, when the lease has ended; what is kept stays."""
    # Who lives has a lease that no busy machine outlasts.
    short, long = shared.queue(lease=SHORT), shared.queue(lease=MUCH)
    now = time.time()
    await gathered(short, "a")
    await short.put(item("b", act_by=now - 1))
    await short.put(item("c", act_by=now - 1, target="mail"))
    assert [each.id for each in await short.groups("dead", 9)] == ["g"]
    assert {each.handle for each in await short.calls("alive", 9)} == {"b", "c"}
    await short.answer("alive", [("c", "{}")], now)
    assert [each.handle for each in await short.deliveries("alive", ["mail"], 9)] == ["c"]
    await long.keep("alive", [], ["b", "c"])
    await asyncio.sleep(SHORT)
    assert await short.calls("you", 9) == []
    assert await short.deliveries("you", ["mail"], 9) == []
    (group,) = await long.groups("you", 9)
    assert not await short.save(group, "dead")
    await short.keep("alive", [], ["b", "c"])
    await asyncio.sleep(SHORT)
    assert [each.handle for each in await long.calls("you", 9)] == ["b"]
    assert [each.handle for each in await long.deliveries("you", ["mail"], 9)] == ["c"]
    await short.answer("alive", [("b", '"late"')], now)
    found = await short.get("b")
    assert found is not None
    assert found.state == "calling", "whoever lost it must not answer"


async def test_a_request_is_answered_once(shared: Shared) -> None:
    """From where it is alone, and then its text is gone."""
    store = shared.queue()
    await gathered(store, "a", "b")
    assert await store.answer("h", [("a", "{}")], 7.0) == 0
    assert await store.answer("g", [("a", '{"n":1}'), ("nobody", "{}")], 7.0) == 1
    assert await store.answer("g", [("a", '{"n":2}')], 8.0) == 0
    found = await store.get("a")
    assert found is not None
    assert (found.state, found.request, found.result, found.answered) == ("answered", None, '{"n":1}', 7.0)
    assert [each.handle for each in await store.members("g", -1, 9)] == ["b"]


async def test_what_is_late_is_taken_out_of_its_group(shared: Shared) -> None:
    """To be called by one process; what the group brings then is dropped."""
    store = shared.queue()
    now = time.time()
    await store.put(item("late", call_by=now - 1))
    await store.put(item("other"))
    assert await store.gather("g", 2)
    assert [each.handle for each in await store.calls("me", 9)] == ["late"]
    assert await store.calls("you", 9) == []
    assert [each.handle for each in await store.members("g", -1, 9)] == ["other"]
    assert await store.answer("g", [("late", '"of the batch"')], now) == 0
    assert await store.answer("me", [("late", '"of the call"')], now) == 1


async def test_what_comes_back_waits_anew(shared: Shared) -> None:
    """From a group or a call, perhaps with less time; what a dropped group has left over, too."""
    store = shared.queue()
    now = time.time()
    await gathered(store, "a", "b", "c")
    await store.back("g", ["a"], now - 1, now + MUCH, None)
    await store.back("g", ["b"], now - 1, now - 1, now - 1)
    await store.back("h", ["c"], now - 1, now - 1, now - 1)
    assert [each.handle for each in await store.calls("me", 9)] == ["b"]
    (group,) = await store.groups("me", 9)
    assert group.number == 3
    await store.drop("g", "me")
    assert await store.groups("me", 9) == []
    assert await store.gather("i", 2)
    assert {each.handle for each in await store.members("i", -1, 9)} == {"a", "c"}


async def test_answers_are_delivered_to_whom_they_are_for(shared: Shared) -> None:
    """By one process at a time, which has the target; again when it is due; and then no more."""
    store = shared.queue()
    now = time.time()
    for handle, target in (("a", "mail"), ("b", "crm"), ("c", "")):
        await store.put(item(handle, target=target, act_by=now - 1))
    await store.calls("me", 9)
    await store.answer("me", [(handle, "{}") for handle in "abc"], now - 1)
    assert await store.deliveries("me", [], 9) == []
    (first,) = await store.deliveries("me", ["mail", "other"], 9)
    assert (first.handle, first.tries, first.delivery) == ("a", 0, "waiting")
    assert await store.deliveries("you", ["mail"], 9) == []
    await store.deliver("a", "you", "delivered", now, 1)
    await store.deliver("a", "me", "waiting", now + MUCH, 1)
    assert await store.deliveries("you", ["mail"], 9) == []
    (wait,) = [await store.next(["mail"])]
    assert wait == pytest.approx(MUCH, abs=60)
    (other,) = await store.deliveries("you", ["crm"], 9)
    await store.deliver(other.handle, "you", "failed", now, 10)
    assert await store.next(["crm"]) is None
    found = await store.get("b")
    assert found is not None
    assert (found.delivery, found.tries) == ("failed", 10)


async def test_the_next_moment_is_told(shared: Shared) -> None:
    """Of all that may be to do, the first; nothing where nothing is left."""
    store = shared.queue()
    now = time.time()
    assert await store.next([]) is None
    await store.put(item("a", fill_by=now + 500))
    wait = await store.next([])
    assert wait == pytest.approx(500, abs=60)
    await store.put(item("b", act_by=now - 5))
    assert await store.next([]) == 0
    await store.calls("me", 9)
    await store.answer("me", [("b", "{}")], now)
    assert await store.gather("g", 1)
    assert await store.next([]) == 0
    (group,) = await store.groups("me", 9)
    await store.save(group._replace(due=now + 300), "me")
    wait = await store.next([])
    assert wait == pytest.approx(300, abs=60)


async def test_old_answers_are_forgotten(shared: Shared) -> None:
    """Those that are not to be delivered any more; what waits stays, however old it is."""
    store = shared.queue()
    for handle, target in (("a", ""), ("b", ""), ("c", "mail"), ("d", "")):
        await store.put(item(handle, target=target, act_by=5.0))
    await store.calls("me", 9)
    await store.answer("me", [("a", "{}"), ("c", "{}")], 50.0)
    await store.answer("me", [("b", "{}")], 90.0)
    assert await store.purge(80.0, 9) == 1
    assert await store.get("a") is None
    assert all([await store.get(handle) for handle in "bcd"])


async def test_what_is_forgotten_is_gone(shared: Shared) -> None:
    """Wherever it was; of a tenant, all."""
    store = shared.queue()
    await gathered(store, "a", "b")
    await store.put(item("c", tenant="globex"))
    assert sorted(await store.of("acme", 9)) == ["a", "b"]
    assert len(await store.of("acme", 1)) == 1
    assert await store.forget("a")
    assert not await store.forget("a")
    assert [each.handle for each in await store.members("g", -1, 9)] == ["b"]
    assert await store.of("acme", 9) == ["b"]
