"""Outcomes in a Redis, for any number of machines: in the ledger's namespace, over its connections."""

from __future__ import annotations

import json
import secrets
from base64 import b64decode, b64encode
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from tierline.learn.outcomes import REMEMBER, SIZE, Evidence, position

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.store.redis import RedisStore

_AT_ONCE: Final = 200
"""Evidence that one script adds: the server does nothing else meanwhile."""


class RedisOutcomes:
    """An `OutcomeStore` in a Redis: a stream of evidence, and a key for each id that is taken.

    `size` is in evidence, `remember` in seconds of the server's clock, for which ids stay taken. Where the server has
    lost its data, what was learned is lost with it, and the secret is given back by whoever knows it.
    """

    def __init__(self, store: RedisStore, *, size: int = SIZE, remember: float = REMEMBER) -> None:
        self._store = store
        self._size, self._remember = size, ceil(remember)
        self._keys = (f"{store.prefix}outcomes",)
        self._secret = ""

    async def add(self, evidence: Sequence[Evidence]) -> list[bool]:
        """Keep evidence: see `OutcomeStore`."""
        new: list[bool] = []
        for place in range(0, len(evidence), _AT_ONCE):
            # A script that is sent once more, for its connection broke, knows by this what it has taken itself.
            arguments = [str(self._size), str(self._remember), secrets.token_hex(8)]
            for each in evidence[place : place + _AT_ONCE]:
                arguments += each.id, each.account, _row(each)
            new += [mark == "1" for mark in (await self._run("add", *arguments))[0]]
        return new

    async def since(self, cursor: str, limit: int = 1000) -> tuple[list[Evidence], str]:
        """At most `limit` that came after the cursor, and the cursor to go on from."""
        of = cursor.partition(":")[0]
        edition, last, rows = await self._run("since", of, str(position(cursor, of)), str(limit))
        return [_evidence(row) for row in rows], f"{edition}:{last}"

    async def secret(self) -> bytes:
        """32 bytes that keys and signatures are made with."""
        (self._secret,) = await self._run("secret", self._secret or secrets.token_hex(32))
        return bytes.fromhex(self._secret)

    async def forget(self, account: str) -> None:
        """Drop what an account graded. Where it fails halfway it may be done again."""
        start = "-"
        while start:
            (start,) = await self._run("forget", account, start)

    async def _run(self, name: str, *arguments: str) -> list[Any]:
        # Whichever script comes first to a store that knows nothing makes this its edition.
        said = (secrets.token_hex(8), *arguments)
        answer: list[Any] = json.loads(await self._store.script(f"learn/{name}", self._keys, lambda _: said))
        return answer


def _row(evidence: Evidence) -> str:
    return json.dumps([*evidence._replace(features=b"")[:4], b64encode(evidence.features).decode(), *evidence[5:]])


def _evidence(row: str) -> Evidence:
    fields = json.loads(row)
    fields[4] = b64decode(fields[4])
    return Evidence(*fields)
