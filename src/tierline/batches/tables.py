"""Jobs in SQL: what each method of a `JobStore` does inside of one transaction."""

# ruff: noqa: S608  (names of columns and question marks are all that is put into statements)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tierline.batches.jobs import (
    ERASED,
    FINAL,
    SENT,
    WAITING,
    BatchRow,
    Begun,
    Counts,
    Fact,
    Held,
    ResultRow,
    Share,
    Tally,
    waits_in,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from sqlite3 import Connection

    from tierline.batches.jobs import Ended, Item

_BATCH: Final = (
    "SELECT b.id, b.job, j.uid, b.state, b.due, b.api, b.count, b.bytes, b.sent, b.fails, b.note, b.trace,"
    " b.fetches, j.canceled, j.settings FROM batch b JOIN batch_job j ON j.id = b.job"
)
_MOST_NOTES: Final = 5


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _row(found: Sequence[Any]) -> BatchRow:
    row = BatchRow(*found)
    return row._replace(canceled=bool(row.canceled))


def begin(db: Connection, now: float, until: float, job: str, uid: str, owner: str, settings: str) -> Begun:
    """As `JobStore.begin`."""
    db.execute(
        "INSERT OR IGNORE INTO batch_job (id, uid, owner, until, settings, whole, canceled, touched, erased)"
        " VALUES (?, ?, '', 0, ?, 0, 0, 0, 0)",
        (job, uid, settings),
    )
    taken = db.execute(
        "UPDATE batch_job SET owner = ?, until = ?, touched = ?"
        " WHERE id = ? AND NOT erased AND (owner IN ('', ?) OR until <= ?)",
        (owner, until, now, job, owner, now),
    )
    found = db.execute("SELECT uid, whole, settings, canceled FROM batch_job WHERE id = ?", (job,)).fetchone()
    return Begun(found[0], taken.rowcount == 0, bool(found[1]), found[2], bool(found[3]))


def known(db: Connection, job: str, first: int, last: int, names: Sequence[str]) -> tuple[set[int], dict[str, int]]:
    """As `JobStore.known`."""
    places = db.execute("SELECT place FROM batch_item WHERE job = ? AND place BETWEEN ? AND ?", (job, first, last))
    there = db.execute(f"SELECT name, place FROM batch_item WHERE job = ? AND name IN ({_marks(names)})", (job, *names))
    return {place for (place,) in places}, dict(there.fetchall())


def intend(db: Connection, until: float, owner: str, holds: Sequence[str]) -> None:
    """As `JobStore.intend`."""
    db.executemany("INSERT OR IGNORE INTO batch_hold VALUES (?, '', ?, ?, '')", [(id_, owner, until) for id_ in holds])


def _made(db: Connection, batch: str, holds: Sequence[Held], intents: Sequence[str]) -> bool:
    """Let holds take the place of those that were intended. False where one is gone."""
    gone = 0
    for key in intents:
        gone += db.execute("DELETE FROM batch_hold WHERE id = ? AND batch = ''", (key,)).rowcount != 1
    if gone:
        return False
    db.executemany(
        "INSERT OR REPLACE INTO batch_hold VALUES (?, ?, '', 0, ?)", [(each.id, batch, each.entry) for each in holds]
    )
    return True


def _filling(db: Connection, until: float, job: str, batch: str, owner: str) -> bool:
    """Whether this owner fills a batch, which is made here if it is new."""
    db.execute(
        "INSERT OR IGNORE INTO batch VALUES (?, ?, 'filling', ?, ?, 0, '', 0, 0, 0, 0, '', '', 0)",
        (batch, job, owner, until),
    )
    mine = "SELECT 1 FROM batch WHERE id = ? AND owner = ? AND state = 'filling'"
    return db.execute(mine, (batch, owner)).fetchone() is not None


class Undone(Exception):  # noqa: N818 - it never leaves the store
    """A step that somebody has come before with: nothing of it is done."""


def add(
    db: Connection,
    until: float,
    job: str,
    owner: str,
    batch: str,
    items: Sequence[Item],
    holds: Sequence[Held],
    intents: Sequence[str],
) -> None:
    """As `JobStore.add`. Raises Undone."""
    if db.execute("SELECT 1 FROM batch_job WHERE id = ? AND owner = ?", (job, owner)).fetchone() is None:
        raise Undone
    sent = [item for item in items if item.state == SENT]
    waits = waits_in(batch)
    if sent:
        if not _filling(db, until, job, batch, owner):
            raise Undone
        size = sum(len(item.payload or "") + 1 for item in sent)
        db.execute("UPDATE batch SET count = count + ?, bytes = bytes + ? WHERE id = ?", (len(sent), size, batch))
    if any(item.state == WAITING for item in items):
        db.execute(
            "INSERT OR IGNORE INTO batch VALUES (?, ?, 'waiting', '', 0, 0, '', 0, 0, 0, 0, '', '', 0)", (waits, job)
        )
    # What waits has a hold that is none: it says whose the money is to be.
    unheld = {item.hold for item in items if item.state == WAITING}
    if not _made(db, batch, [each for each in holds if each.id not in unheld], intents):
        raise Undone
    _made(db, waits, [each for each in holds if each.id in unheld], ())
    where = {SENT: batch, WAITING: waits, FINAL: ""}
    db.executemany(
        "INSERT INTO batch_item (job, place, name, batch, hold, state, tries, worst, tier, model, outcome, payload,"
        " result, cost, estimated, tenant, plain, top, said)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *(job, item.place, item.name, where[item.state], item.hold, item.state),
                item.tries or int(item.state == SENT),
                *(item.worst, item.tier, item.model, item.outcome, item.payload, item.result),
                *(item.cost, item.estimated, item.tenant, item.plain, item.top, item.said),
            )
            for item in items
        ],
    )


def seal(db: Connection, batch: str, owner: str) -> bool:
    """As `JobStore.seal`."""
    done = db.execute(
        "UPDATE batch SET state = 'sealed', owner = '', due = 0 WHERE id = ? AND owner = ? AND state = 'filling'",
        (batch, owner),
    )
    return done.rowcount == 1


def finish(db: Connection, now: float, job: str, owner: str, *, whole: bool) -> None:
    """As `JobStore.finish`."""
    db.execute(
        "UPDATE batch_job SET owner = '', until = 0, touched = ?, whole = max(whole, ?) WHERE id = ? AND owner = ?",
        (now, whole, job, owner),
    )


def take(db: Connection, now: float, until: float, owner: str, limit: int) -> list[BatchRow]:
    """As `JobStore.take`."""
    due = "b.state <> 'done' AND b.due <= ? AND (b.owner IN ('', ?) OR b.until <= ?)"
    rows = db.execute(f"{_BATCH} WHERE {due} ORDER BY b.due LIMIT ?", (now, owner, now, limit))
    found = [_row(row) for row in rows]
    found = [row._replace(state="sealed") if row.state == "filling" else row for row in found]
    db.executemany(
        "UPDATE batch SET owner = ?, until = ?, state = ? WHERE id = ?",
        [(owner, until, row.state, row.id) for row in found],
    )
    return found


def keep(db: Connection, until: float, owner: str) -> None:
    """As `JobStore.keep`."""
    for table in ("batch_job", "batch", "batch_hold"):
        db.execute(f"UPDATE {table} SET until = ? WHERE owner = ?", (until, owner))


def save(db: Connection, now: float, row: BatchRow, owner: str, *, give_back: bool) -> bool:
    """As `JobStore.save`."""
    done = db.execute(
        "UPDATE batch SET state = ?, due = ?, api = ?, count = ?, bytes = ?, sent = ?, fails = ?, note = ?, trace = ?,"
        " fetches = ?, owner = ? WHERE id = ? AND owner = ?",
        (
            *(row.state, row.due, row.api, row.number, row.bytes, row.sent, row.fails, row.note, row.trace),
            *(row.fetches, "" if give_back else owner, row.id, owner),
        ),
    )
    if row.state == "done":
        db.execute("UPDATE batch_job SET touched = ? WHERE id = ?", (now, row.job))
    return done.rowcount == 1


def _owns(db: Connection, batch: str, owner: str) -> bool:
    return db.execute("SELECT 1 FROM batch WHERE id = ? AND owner = ?", (batch, owner)).fetchone() is not None


def payloads(db: Connection, batch: str, after: int, limit: int) -> list[tuple[int, str | None]]:
    """As `JobStore.payloads`."""
    return db.execute(
        "SELECT place, payload FROM batch_item WHERE batch = ? AND place > ? AND state = 1 ORDER BY place LIMIT ?",
        (batch, after, limit),
    ).fetchall()


def collect(db: Connection, batch: str, owner: str, found: Sequence[Ended]) -> bool:
    """As `JobStore.collect`."""
    if not _owns(db, batch, owner):
        return False
    back = [(batch, each.place) for each in found if each.state == WAITING]
    gone = "state = 2, outcome = 'canceled', result = ?"
    db.executemany(
        f"UPDATE batch_item SET {gone} WHERE batch = ? AND place = ? AND state = 1 AND payload IS NULL",
        [(ERASED, *each) for each in back],
    )
    db.executemany(
        "UPDATE batch_item SET state = 0, outcome = ?, result = ? WHERE batch = ? AND place = ? AND state = 1",
        [(each.outcome, each.result, batch, each.place) for each in found if each.state == WAITING],
    )
    db.executemany(
        "UPDATE batch_item SET state = 2, outcome = iif(payload IS NULL, 'canceled', ?),"
        " result = iif(payload IS NULL, ?, ?), cost = ?, estimated = ?, plain = ?, top = ?, payload = NULL, said = ''"
        " WHERE batch = ? AND place = ? AND state < 2",
        [
            (each.outcome, ERASED, each.result, each.cost, each.estimated, each.plain, each.top, batch, each.place)
            for each in found
            if each.state == FINAL
        ],
    )
    return True


def facts(db: Connection, batch: str, places: Sequence[int]) -> dict[int, Fact]:
    """As `JobStore.facts`."""
    rows = db.execute(
        "SELECT place, tries, worst, model, hold, said FROM batch_item"
        f" WHERE batch = ? AND state = 1 AND place IN ({_marks(places)})",
        (batch, *places),
    )
    return {place: Fact(*rest) for place, *rest in rows}


def shares(db: Connection, batch: str) -> list[Share]:
    """As `JobStore.shares`."""
    rows = db.execute(
        "SELECT hold, sum(cost), max(estimated), sum(state = 0), sum(state <> 1) FROM batch_item WHERE batch = ?"
        " GROUP BY hold",
        (batch,),
    )
    came = {hold: rest for hold, *rest in rows}
    holds = db.execute("SELECT id, entry FROM batch_hold WHERE batch = ? ORDER BY id", (batch,))
    return [
        Share(Held(id_, entry), cost, bool(estimated), waits, number)
        for id_, entry in holds
        for cost, estimated, waits, number in (came.get(id_, (0, 0, 0, 0)),)
    ]


def waiting(db: Connection, batch: str, hold: str, after: int, limit: int) -> list[tuple[int, int, str]]:
    """As `JobStore.waiting`."""
    return db.execute(
        "SELECT place, worst, outcome FROM batch_item WHERE batch = ? AND hold = ? AND state = 0 AND place > ?"
        " ORDER BY place LIMIT ?",
        (batch, hold, after, limit),
    ).fetchall()


def move(
    db: Connection, until: float, batch: str, owner: str, to: str, places: Sequence[int], hold: Held,
    intents: Sequence[str],
) -> None:  # fmt: skip
    """As `JobStore.move`. Raises Undone."""
    if not _owns(db, batch, owner):
        raise Undone
    (job,) = db.execute("SELECT job FROM batch WHERE id = ?", (batch,)).fetchone()
    if not _filling(db, until, job, to, owner) or not _made(db, to, [hold], intents):
        raise Undone
    count = size = 0
    for place in places:
        row = db.execute(
            "UPDATE batch_item SET batch = ?, hold = ?, state = 1, tries = tries + 1, outcome = '', result = NULL"
            " WHERE batch = ? AND place = ? AND state = 0 RETURNING length(payload)",
            (to, hold.id, batch, place),
        ).fetchone()
        if row is None:
            raise Undone
        count, size = count + 1, size + row[0] + 1
    db.execute("UPDATE batch SET count = count + ?, bytes = bytes + ? WHERE id = ?", (count, size, to))


def end(db: Connection, holds: Sequence[str]) -> None:
    """As `JobStore.end`."""
    db.executemany("DELETE FROM batch_hold WHERE id = ?", [(each,) for each in holds])


def held(db: Connection, after: str, limit: int) -> list[Held]:
    """As `JobStore.holds`."""
    rows = db.execute(
        "SELECT id, entry FROM batch_hold WHERE id > ? AND batch <> '' ORDER BY id LIMIT ?", (after, limit)
    )
    return [Held(*row) for row in rows]


def lapsed(db: Connection, now: float, limit: int) -> list[str]:
    """As `JobStore.lapsed`."""
    rows = db.execute("SELECT id FROM batch_hold WHERE batch = '' AND until <= ? LIMIT ?", (now, limit))
    return [id_ for (id_,) in rows]


def whose(db: Connection, uid: str, place: int) -> str:
    """As `JobStore.whose`."""
    row = db.execute(
        "SELECT i.batch FROM batch_item i JOIN batch_job j ON j.id = i.job WHERE j.uid = ? AND i.place = ?",
        (uid, place),
    ).fetchone()
    return row[0] if row is not None else ""


def is_known(db: Connection, api: str) -> bool:
    """As `JobStore.is_known`."""
    return db.execute("SELECT 1 FROM batch WHERE api = ? AND api <> ''", (api,)).fetchone() is not None


def results(db: Connection, job: str, after: int, limit: int) -> list[ResultRow]:
    """As `JobStore.results`."""
    rows = db.execute(
        "SELECT place, name, state, outcome, result, tier, model, cost, estimated, tries FROM batch_item"
        " WHERE job = ? AND place > ? ORDER BY place LIMIT ?",
        (job, after, limit),
    )
    found = []
    for place, name, state, outcome, result, tier, model, cost, estimated, tries in rows:
        if state != FINAL or place != after + 1:
            break
        after = place
        found.append(ResultRow(place, name, outcome, result, tier, model, cost, bool(estimated), tries))
    return found


def found(db: Connection, job: str, places: Sequence[int]) -> list[ResultRow]:
    """As `JobStore.found`."""
    rows = db.execute(
        "SELECT place, name, outcome, result, tier, model, cost, estimated, tries FROM batch_item"
        f" WHERE job = ? AND state = 2 AND place IN ({_marks(places)})",
        (job, *places),
    )
    return [ResultRow(*row)._replace(estimated=bool(row[7])) for row in rows]


def standing(db: Connection, now: float, job: str) -> tuple[Counts, int] | None:
    """How a job is, without its requests, and the last place of these, or -1; None where there is no job."""
    row = db.execute(
        "SELECT whole, owner <> '' AND until > ?, settings FROM batch_job WHERE id = ? AND NOT erased",
        (now, job),
    )
    if (about := row.fetchone()) is None:
        return None
    notes = db.execute(
        "SELECT note FROM batch WHERE job = ? AND note <> '' AND state <> 'done' ORDER BY sent DESC LIMIT ?",
        (job, _MOST_NOTES),
    )
    left = db.execute("SELECT 1 FROM batch WHERE job = ? AND state <> 'done'", (job,)).fetchone()
    (last,) = db.execute("SELECT max(place) FROM batch_item WHERE job = ?", (job,)).fetchone()
    told = tuple(note for (note,) in notes)
    counts = Counts(bool(about[0]), bool(about[1]), about[2], {}, 0, left is not None, told)
    return counts, -1 if last is None else last


def outcomes(db: Connection, job: str, first: int, last: int) -> list[tuple[str, int, int, int]]:
    """Outcome, number, cost of requests in these places, and how many of them wait."""
    return db.execute(
        "SELECT CASE state WHEN 2 THEN outcome ELSE '' END AS o, count(*), sum(cost), sum(state = 0)"
        " FROM batch_item WHERE job = ? AND place BETWEEN ? AND ? GROUP BY o",
        (job, first, last),
    ).fetchall()


def tally(db: Connection, job: str, first: int, last: int) -> list[Tally]:
    """As `JobStore.tally`, of these places."""
    rows = db.execute(
        "SELECT tenant, tier, CASE state WHEN 2 THEN outcome ELSE '' END AS o, count(*), sum(cost), sum(plain),"
        " sum(top), sum(estimated) FROM batch_item WHERE job = ? AND place BETWEEN ? AND ? GROUP BY tenant, tier, o",
        (job, first, last),
    )
    return [Tally(*row) for row in rows]


def sent(db: Connection, job: str) -> list[BatchRow]:
    """As `JobStore.sent`."""
    rows = db.execute(f"{_BATCH} WHERE b.job = ? AND b.state <> 'done' ORDER BY b.id", (job,))
    return [_row(row) for row in rows]


def left(db: Connection) -> bool:
    """As `JobStore.left`."""
    rows = (
        "SELECT 1 FROM batch WHERE state <> 'done' UNION ALL SELECT 1 FROM batch_hold WHERE batch = ''"
        " UNION ALL SELECT 1 FROM batch_job WHERE erased LIMIT 1"
    )
    return db.execute(rows).fetchone() is not None


def under_way(db: Connection) -> int:
    """As `JobStore.under_way`."""
    (found,) = db.execute("SELECT count(DISTINCT job) FROM batch WHERE state <> 'done'").fetchone()
    return int(found)


def jobs(db: Connection) -> list[str]:
    """As `JobStore.jobs`."""
    return [id_ for (id_,) in db.execute("SELECT id FROM batch_job WHERE NOT erased ORDER BY number")]


def cancel(db: Connection, job: str) -> None:
    """As `JobStore.cancel`."""
    db.execute("UPDATE batch_job SET canceled = 1 WHERE id = ?", (job,))
    db.execute("UPDATE batch SET due = 0 WHERE job = ?", (job,))
