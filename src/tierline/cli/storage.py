"""Whether a store can be reached, how fast, and whether what it is told is there tomorrow."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from tierline.cli.findings import Finding
from tierline.errors import LedgerUnavailableError
from tierline.ledger.opening import connection_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tierline.router import Router
    from tierline.store.redis import RedisStore
    from tierline.store.sqlite import SQLiteStore

SLOW: Final = 0.02
"""Seconds for a step from which on a store is slow: each call waits for two of them."""
LEAST_FREE: Final = 100_000_000
"""Bytes of a disk under which it is nearly full."""
_LOOKS: Final = 7
_NETWORK: Final = (
    "nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "ocfs", "gfs", "beegfs", "fuse.sshfs", "fuse.s3",
    "fuse.gcsfuse", "fuse.rclone", "fuse.gluster", "fuse.ceph", "virtiofs",
)  # fmt: skip
"""How file systems are called whose locks are not those of one host, or that another host may write too."""
_FLEETING: Final = ("tmpfs", "ramfs", "overlay", "aufs")
_LEAST_REDIS: Final = (6,)


async def storage(router: Router[Any]) -> AsyncIterator[Finding]:
    """The store of a Router."""
    if router.ledger.instant:
        hard = bool(router.rules.hard)
        yield Finding(
            "warn" if hard else "ok", "store", "memory: each process has its own balances, and a restart forgets them",
            'Router(store="sqlite:///tierline.db") for one host, store="redis://…" for several' if hard else "",
        )  # fmt: skip
        return
    try:
        await router.balances()
    except LedgerUnavailableError as error:
        yield Finding("fail", "store", f"it cannot be asked: {error}", "start it, or correct its URL")
        return
    took = []
    for _ in range(_LOOKS):
        began = time.perf_counter()
        await router.ledger.ping()
        took.append(time.perf_counter() - began)
    middle = median(took)
    advice = "every call waits for it twice: put it nearer, or on a faster disk" if middle > SLOW else ""
    yield Finding("warn" if advice else "ok", "store", f"answers in {middle * 1_000:.1f} ms", advice)
    connection = connection_of(router.ledger)
    if connection is None:
        yield Finding("skip", "durable", f"{type(router.ledger).__name__} is the app's own: not looked into")
        return
    from tierline.store.sqlite import SQLiteStore  # noqa: PLC0415  (only for who has one)

    if isinstance(connection, SQLiteStore):
        async for found in _sqlite(connection):
            yield found
    else:
        async for found in _redis(connection):  # type: ignore[arg-type]  # there are two
            yield found


async def _sqlite(store: SQLiteStore) -> AsyncIterator[Finding]:
    # `run` has the connection that writes; another one has a `synchronous` of its own.
    journal, synchronous = await store.run(
        lambda db: (db.execute("PRAGMA journal_mode").fetchone()[0], db.execute("PRAGMA synchronous").fetchone()[0])
    )
    durable = journal == "wal" and synchronous >= 2  # noqa: PLR2004  (FULL)
    level = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}.get(synchronous, str(synchronous))
    yield Finding(
        "ok" if durable else "fail", "durable", f"journal_mode {journal}, synchronous {level}",
        "" if durable else "let Tierline alone open the file: nothing else may set these",
    )  # fmt: skip
    path = store.path.resolve()
    yield place(path, mounted_as(path, mounts()))
    for found in _file(path):
        yield found


def place(path: Path, kind: str) -> Finding:
    """What the file system of a SQLite file (`kind`, empty where that is not known) means for it."""
    if not kind:
        return Finding("skip", "file system", f"it cannot be told here what {path.parent} is on")
    if kind.startswith(_NETWORK):
        return Finding(
            "fail", "file system", f"{path} is on {kind}, which several hosts may share: locks do not hold there",
            "put it on a local disk, or use Redis",
        )  # fmt: skip
    if kind in _FLEETING:
        what = "memory" if kind in ("tmpfs", "ramfs") else "the layer of a container"
        return Finding(
            "warn", "file system", f"{path} is on {kind}, in {what}: it goes with it, and so does what was spent",
            "put it on a disk, or a volume, that stays",
        )  # fmt: skip
    return Finding("ok", "file system", f"{kind}, of this host: for all processes on it, and on no other")


def mounts() -> list[tuple[str, str]]:
    """Where file systems are mounted, and of which kind they are. Empty where the system does not say."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    # A space in a path is written as \040.
    rows = (line.split(" ") for line in lines)
    return [(row[1].replace("\\040", " "), row[2]) for row in rows if len(row) > 2]  # noqa: PLR2004


def mounted_as(path: Path, known: list[tuple[str, str]]) -> str:
    """The kind of file system that a path is on; empty where that is not known."""
    found, longest = "", -1
    for where, kind in known:
        if path.is_relative_to(where) and len(where) >= longest:  # of two at one place, the later covers the other
            found, longest = kind, len(where)
    return found


def _file(path: Path) -> Iterator[Finding]:
    if hasattr(os, "statvfs"):
        disk = os.statvfs(path.parent)
        free = disk.f_bavail * disk.f_frsize
        yield Finding(
            "ok" if free > LEAST_FREE else "warn", "disk", f"{free / 1e9:,.1f} GB free",
            "" if free > LEAST_FREE else "make room: a store that cannot grow refuses calls under hard budgets",
        )  # fmt: skip
    if sys.platform != "win32" and (open_to := path.stat().st_mode & (stat.S_IRWXO | stat.S_IRWXG)):
        yield Finding(
            "warn", "permissions", f"others than its owner may use the file ({stat.filemode(open_to)[1:]})",
            f"chmod 600 {path}",
        )  # fmt: skip


async def _redis(store: RedisStore) -> AsyncIterator[Finding]:
    try:
        facts = info_of(await store.command("INFO"))
    except LedgerUnavailableError as error:
        yield Finding("warn", "durable", f"the server does not say how it is set up: {error}", "allow it INFO")
        return
    try:
        answer = await store.command("CONFIG", "GET", "appendfsync")
        fsync = _text(answer[1]) if isinstance(answer, list) and len(answer) > 1 else ""
    except LedgerUnavailableError:
        fsync = ""  # those who run it for others do not let it be asked
    for found in redis_facts(facts, fsync):
        yield found


def info_of(answer: object) -> dict[str, str]:
    """What `INFO` says, by name."""
    pairs = (line.partition(":") for line in _text(answer).splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, colon, value in pairs if colon}


def _text(answer: object) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)


def redis_facts(facts: dict[str, str], fsync: str) -> Iterator[Finding]:
    """What the settings of a Redis (as `INFO` has them) mean for balances. `fsync` is empty where it is not told."""
    told = facts.get("redis_version", "0")
    old = tuple(int(part) for part in told.split(".")[:1] if part.isdigit()) < _LEAST_REDIS
    yield Finding("fail" if old else "ok", "server", f"Redis {told}", "upgrade it: 6 is the oldest" if old else "")
    if facts.get("aof_enabled") != "1":
        yield Finding(
            "fail", "durable", "appendonly is off: a restart forgets what was spent",
            "redis-cli CONFIG SET appendonly yes, and write it into redis.conf",
        )  # fmt: skip
    elif facts.get("aof_last_write_status", "ok") != "ok":
        yield Finding("fail", "durable", "its last write to the disk failed", "see to the disk of the server")
    elif fsync == "no":
        yield Finding(
            "warn", "durable", "appendfsync is no: a crash of the host loses what was not yet written",
            "redis-cli CONFIG SET appendfsync everysec",
        )  # fmt: skip
    else:
        lost = {"always": "nothing is lost", "everysec": "a crash loses a second at most"}.get(fsync, "")
        yield Finding("ok", "durable", ", ".join(filter(None, ("appendonly yes", fsync, lost))))
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory", "0") != "0":
        yield Finding(
            "fail", "memory", f"maxmemory-policy is {policy}: it may drop balances where it is full",
            "redis-cli CONFIG SET maxmemory-policy noeviction",
        )  # fmt: skip
    else:
        yield Finding("ok", "memory", f"{policy}, {facts.get('used_memory_human', '?')} used")
    if facts.get("role") in ("slave", "replica"):
        yield Finding("fail", "role", "this is a replica, and takes no writes", "name the primary in the URL")
    elif (replicas := facts.get("connected_slaves", "0")) != "0":
        yield Finding(
            "warn", "role", f"{replicas} replica{'' if replicas == '1' else 's'} follow: a failover may lose the last "
            "writes, and so let them be spent again", "docs/guarantees.md says what that means for hard budgets",
        )  # fmt: skip
