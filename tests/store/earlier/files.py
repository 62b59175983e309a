"""Stores as earlier versions left them: how they are kept in this folder, put back, and made.

    schema-N.sql, redis-N.jsonl    the store: a dump of the tables; a line of JSON for each key
    schema-N.json, redis-N.json    what the version that filled it read in it

When the schema gets another number, what the version before it leaves is added, and nothing that is here is changed:

    python -m tests.store.earlier.files COMMIT        (of the version before; needs the history, and a Redis)
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.redis_server import redis_server

if TYPE_CHECKING:
    import redis

FOLDER: Final = Path(__file__).parent
_PRAGMAS: Final = ("user_version", "application_id")
_ROOT: Final = Path(__file__).parents[3]


def names(kind: str) -> list[str]:
    """The stores of a kind (`schema`, `redis`) that are kept here, without their endings."""
    return sorted(path.stem for path in FOLDER.glob(f"{kind}-*.json"))


def expected(name: str) -> dict[str, Any]:
    """What was read in it by the version that filled it."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def put_back(name: str, path: Path) -> None:
    """Make the file again."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((FOLDER / f"{name}.sql").read_text())
    path.chmod(0o600)


def put_keys_back(name: str, client: redis.Redis) -> None:
    """Put the keys into an empty server. None of them ends by itself: all are older than today."""
    for line in (FOLDER / f"{name}.jsonl").read_text().splitlines():
        key, kind, value = json.loads(line)
        if kind == "string":
            client.set(key, value)
        elif kind == "hash":
            client.hset(key, mapping=value)
        elif kind == "set":
            client.sadd(key, *value)
        elif kind == "zset":
            client.zadd(key, dict(value))
        elif kind == "list":
            client.rpush(key, *value)
        else:
            for number, fields in value:
                client.xadd(key, fields, id=number)


def keys_of(client: redis.Redis) -> list[list[Any]]:
    """All keys, their kinds and values, as JSON has them."""
    read = {
        "string": client.get,
        "hash": client.hgetall,
        "set": lambda key: sorted(client.smembers(key)),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "list": lambda key: client.lrange(key, 0, -1),
        "stream": client.xrange,
    }
    return [[key, kind, read[kind](key)] for key in sorted(client.keys()) for kind in [client.type(key)]]


def _filled(sources: Path, url: str) -> str:
    command = [sys.executable, str(FOLDER / "filling.py"), url]
    done = subprocess.run(  # noqa: S603  (a script of these tests)
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(sources)}
    )
    return json.dumps(json.loads(done.stdout), indent=1) + "\n"


def make(commit: str) -> None:
    """Write down what the version of a commit leaves in both stores."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.tar"
        subprocess.run(["git", "archive", "-o", source, commit, "src"], cwd=_ROOT, check=True)  # noqa: S603, S607
        subprocess.run(["tar", "xf", source], cwd=folder, check=True)  # noqa: S603, S607
        path = Path(folder) / "a.db"
        told = _filled(Path(folder) / "src", str(path))
        with contextlib.closing(sqlite3.connect(path)) as connection:
            numbers = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _PRAGMAS}
            dump = [f"PRAGMA {name} = {number};" for name, number in numbers.items()] + [*connection.iterdump()]
            steps = numbers["user_version"]
            with contextlib.suppress(sqlite3.OperationalError):
                steps = connection.execute("SELECT steps FROM schema").fetchone()[0]
        (FOLDER / f"schema-{steps}.sql").write_text("\n".join(dump).replace(",Inf,", ",9e999,") + "\n")
        (FOLDER / f"schema-{steps}.json").write_text(told)
        with redis_server() as server, server.client(decode_responses=True) as client:
            told = _filled(Path(folder) / "src", server.url)
            steps = int(client.hget("{tierline}:schema", "steps") or 0)
            (FOLDER / f"redis-{steps}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in keys_of(client)))
            (FOLDER / f"redis-{steps}.json").write_text(told)


if __name__ == "__main__":
    make(sys.argv[1])
