"""Jobs that are forgotten, in SQL, and what an erased tenant has in them: each step inside of one transaction."""

# ruff: noqa: S608  (names of columns and question marks are all that is put into statements)

from __future__ import annotations

from typing import TYPE_CHECKING

from tierline.batches import tables
from tierline.batches.jobs import ERASED, SENT

if TYPE_CHECKING:
    from sqlite3 import Connection


def erase(db: Connection, now: float, job: str) -> bool:
    """As `JobStore.erase`."""
    found = tables.standing(db, now, job)
    if found is None or found[0].open or found[0].busy:
        return False
    db.execute("UPDATE batch_job SET erased = 1 WHERE id = ?", (job,))
    return True


def retire(db: Connection, now: float, seconds: float) -> int:
    """As `JobStore.retire`."""
    return db.execute(
        "UPDATE batch_job SET erased = 1 WHERE touched <= ? AND NOT erased AND (owner = '' OR until <= ?)"
        " AND NOT EXISTS (SELECT 1 FROM batch b WHERE b.job = batch_job.id AND b.state <> 'done')",
        (now - seconds, now),
    ).rowcount


def sweep(db: Connection, limit: int) -> bool:
    """As `JobStore.sweep`."""
    row = db.execute("SELECT id FROM batch_job WHERE erased LIMIT 1").fetchone()
    if row is None:
        return False
    some = "SELECT number FROM batch_item WHERE job = ? LIMIT ?"
    if db.execute(f"DELETE FROM batch_item WHERE number IN ({some})", (*row, limit)).rowcount < limit:
        db.execute("DELETE FROM batch WHERE job = ?", row)
        db.execute("DELETE FROM batch_job WHERE id = ?", row)
    return True


def forget(db: Connection, job: str, tenant: str, after: int, limit: int) -> int | None:
    """As `JobStore.forget`."""
    some = "SELECT place FROM batch_item WHERE job = ? AND place > ? ORDER BY place LIMIT ?"
    (last,) = db.execute(f"SELECT max(place) FROM ({some})", (job, after, limit)).fetchone()
    if last is None:
        return None
    of = "job = ? AND place > ? AND place <= ? AND tenant = ?"
    whose = (job, after, last, tenant)
    unsent = db.execute(
        "SELECT i.number, i.batch, i.state, length(i.payload) FROM batch_item i JOIN batch b ON b.id = i.batch"
        f" WHERE i.number IN (SELECT number FROM batch_item WHERE {of} AND state < 2)"
        " AND (i.state = 0 OR b.state IN ('filling', 'sealed'))",
        whose,
    ).fetchall()
    db.executemany(
        "UPDATE batch SET count = count - 1, bytes = bytes - ? WHERE id = ?",
        [(size + 1, batch) for _, batch, state, size in unsent if state == SENT],
    )
    db.executemany("UPDATE batch_item SET state = 2 WHERE number = ?", [(number,) for number, *_ in unsent])
    db.execute(f"UPDATE batch_item SET outcome = 'canceled', result = ? WHERE {of} AND state = 2", (ERASED, *whose))
    db.execute(f"UPDATE batch_item SET name = NULL, payload = NULL, said = '', tenant = '' WHERE {of}", whose)
    return int(last)
