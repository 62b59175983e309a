"""Deferred requests in SQL: what each method of a `QueueStore` does inside of one transaction."""

# ruff: noqa: S608  (names of columns and question marks are all that is put into statements)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tierline.batches.queue.store import Group, Item, Member

if TYPE_CHECKING:
    from collections.abc import Sequence
    from sqlite3 import Connection

_ITEM: Final = ", ".join(Item._fields)
_GROUP: Final = (
    "SELECT g.id, g.when_full, g.number, g.due, g.submitted, g.seen, g.canceled,"
    " coalesce((SELECT min(act_by) FROM batch_deferred d WHERE d.job = g.id AND d.state = 'gathered'), 9e99)"
    " FROM batch_group g"
)


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _items(db: Connection, where: str, values: Sequence[Any]) -> list[Item]:
    return [Item(*row) for row in db.execute(f"SELECT {_ITEM} FROM batch_deferred WHERE {where}", values)]


def put(db: Connection, item: Item) -> None:
    """As `QueueStore.put`."""
    db.execute(f"INSERT OR IGNORE INTO batch_deferred ({_ITEM}) VALUES ({_marks(item)})", item)


def get(db: Connection, handle: str) -> Item | None:
    """As `QueueStore.get`."""
    return next(iter(_items(db, "handle = ?", (handle,))), None)


def gather(db: Connection, now: float, group: str, size: int) -> bool:
    """As `QueueStore.gather`."""
    waits = "state = 'waiting' AND ready <= ? AND act_by > ?"
    found = db.execute(
        f"SELECT when_full FROM batch_deferred WHERE {waits} GROUP BY when_full"
        " HAVING count(*) >= ? OR min(fill_by) <= ? ORDER BY min(fill_by) LIMIT 1",
        (now, now, size, now),
    ).fetchone()
    if found is None:
        return False
    rows = db.execute(
        f"SELECT number FROM batch_deferred WHERE {waits} AND when_full = ? ORDER BY fill_by, number LIMIT ?",
        (now, now, found[0], size),
    ).fetchall()
    db.execute(
        "INSERT INTO batch_group (id, when_full, number, owner, until, due, submitted, seen, canceled)"
        " VALUES (?, ?, ?, '', 0, 0, 0, 0, 0)",
        (group, found[0], len(rows)),
    )
    db.executemany(
        "UPDATE batch_deferred SET state = 'gathered', job = ?, place = ? WHERE number = ?",
        [(group, place, number) for place, (number,) in enumerate(rows)],
    )
    return True


def groups(db: Connection, now: float, until: float, owner: str, limit: int) -> list[Group]:
    """As `QueueStore.groups`."""
    due = "g.due <= ? AND (g.owner = '' OR g.until <= ?)"
    rows = db.execute(f"{_GROUP} WHERE {due} ORDER BY g.due LIMIT ?", (now, now, limit))
    found = [Group(*row)._replace(canceled=bool(row[6])) for row in rows]
    db.executemany(
        "UPDATE batch_group SET owner = ?, until = ? WHERE id = ?", [(owner, until, each.id) for each in found]
    )
    return found


def members(db: Connection, group: str, after: int, limit: int) -> list[Member]:
    """As `QueueStore.members`."""
    rows = db.execute(
        "SELECT place, handle, request FROM batch_deferred WHERE job = ? AND state = 'gathered' AND place > ?"
        " ORDER BY place LIMIT ?",
        (group, after, limit),
    )
    return [Member(*row) for row in rows]


def save(db: Connection, group: Group, owner: str) -> bool:
    """As `QueueStore.save`."""
    done = db.execute(
        "UPDATE batch_group SET owner = '', until = 0, due = ?, submitted = ?, seen = ?, canceled = ?"
        " WHERE id = ? AND owner = ?",
        (group.due, group.submitted, group.seen, group.canceled, group.id, owner),
    )
    return done.rowcount == 1


def drop(db: Connection, group: str, owner: str) -> None:
    """As `QueueStore.drop`."""
    if db.execute("DELETE FROM batch_group WHERE id = ? AND owner = ?", (group, owner)).rowcount:
        db.execute(
            "UPDATE batch_deferred SET state = 'waiting', job = '' WHERE job = ? AND state = 'gathered'", (group,)
        )


def calls(db: Connection, now: float, until: float, owner: str, limit: int) -> list[Item]:
    """As `QueueStore.calls`."""
    found: list[Item] = []
    for state, due in (("waiting", "act_by"), ("gathered", "call_by"), ("calling", "until")):
        where = f"state = '{state}' AND {due} <= ? ORDER BY {due} LIMIT ?"
        found += _items(db, where, (now, limit - len(found)))
    db.executemany(
        "UPDATE batch_deferred SET state = 'calling', job = '', owner = ?, until = ? WHERE handle = ?",
        [(owner, until, each.handle) for each in found],
    )
    return found


_HAS: Final = "handle = ? AND (state = 'gathered' AND job = ? OR state = 'calling' AND owner = ?)"


def answer(db: Connection, by: str, found: Sequence[tuple[str, str]], now: float) -> int:
    """As `QueueStore.answer`."""
    return db.executemany(
        "UPDATE batch_deferred SET state = 'answered', job = '', owner = '', until = 0, request = NULL, result = ?,"
        f" answered = ?, delivery = CASE target WHEN '' THEN '' ELSE 'waiting' END, due = ? WHERE {_HAS}",
        [(result, now, now, handle, by, by) for handle, result in found],
    ).rowcount


def back(db: Connection, by: str, handles: Sequence[str], ready: float, fill_by: float, act_by: float | None) -> None:
    """As `QueueStore.back`."""
    db.executemany(
        "UPDATE batch_deferred SET state = 'waiting', job = '', owner = '', until = 0, ready = ?, fill_by = ?,"
        f" act_by = coalesce(?, act_by) WHERE {_HAS}",
        [(ready, fill_by, act_by, handle, by, by) for handle in handles],
    )


def deliveries(
    db: Connection, now: float, until: float, owner: str, targets: Sequence[str], limit: int
) -> list[Item]:  # fmt: skip
    """As `QueueStore.deliveries`."""
    due = (
        "delivery = 'waiting' AND due <= ? AND (owner = '' OR until <= ?)"
        f" AND target IN ({_marks(targets)}) ORDER BY due LIMIT ?"
    )
    found = _items(db, due, (now, now, *targets, limit))
    db.executemany(
        "UPDATE batch_deferred SET owner = ?, until = ? WHERE handle = ?",
        [(owner, until, each.handle) for each in found],
    )
    return found


def deliver(db: Connection, handle: str, owner: str, delivery: str, due: float, tries: int) -> None:
    """As `QueueStore.deliver`."""
    db.execute(
        "UPDATE batch_deferred SET owner = '', until = 0, delivery = ?, due = ?, tries = ?"
        " WHERE handle = ? AND owner = ? AND delivery = 'waiting'",
        (delivery, due, tries, handle, owner),
    )


def keep(db: Connection, until: float, owner: str, groups: Sequence[str], handles: Sequence[str]) -> None:
    """As `QueueStore.keep`."""
    for table, key, names in (("batch_group", "id", groups), ("batch_deferred", "handle", handles)):
        db.executemany(
            f"UPDATE {table} SET until = ? WHERE {key} = ? AND owner = ?", [(until, name, owner) for name in names]
        )


def next_due(db: Connection, now: float, targets: Sequence[str]) -> float | None:
    """As `QueueStore.next`."""
    out = f"delivery = 'waiting' AND target IN ({_marks(targets)})"
    looks = (
        ("SELECT min(max(due, until)) FROM batch_group", ()),
        ("SELECT min(fill_by) FROM batch_deferred WHERE state = 'waiting'", ()),
        ("SELECT min(act_by) FROM batch_deferred WHERE state = 'waiting'", ()),
        ("SELECT min(call_by) FROM batch_deferred WHERE state = 'gathered'", ()),
        ("SELECT min(until) FROM batch_deferred WHERE state = 'calling'", ()),
        (f"SELECT min(max(due, until)) FROM batch_deferred WHERE {out}", targets),
    )
    found = [moment for text, values in looks for (moment,) in db.execute(text, values) if moment is not None]
    return max(0.0, min(found) - now) if found else None


def purge(db: Connection, before: float, limit: int) -> int:
    """As `QueueStore.purge`."""
    return db.execute(
        "DELETE FROM batch_deferred WHERE number IN (SELECT number FROM batch_deferred"
        " WHERE state = 'answered' AND delivery <> 'waiting' AND answered < ? LIMIT ?)",
        (before, limit),
    ).rowcount


def forget(db: Connection, handle: str) -> bool:
    """As `QueueStore.forget`."""
    return db.execute("DELETE FROM batch_deferred WHERE handle = ?", (handle,)).rowcount == 1


def of(db: Connection, tenant: str, limit: int) -> list[str]:
    """As `QueueStore.of`."""
    rows = db.execute("SELECT handle FROM batch_deferred WHERE tenant = ? LIMIT ?", (tenant, limit))
    return [handle for (handle,) in rows]
