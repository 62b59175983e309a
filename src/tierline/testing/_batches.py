"""The Message Batches of a fake: created, listed, processed when their time has come, cancelled, read and deleted."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.testing._problem import Problem, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tierline.testing._faults import Fault

PATH: Final = "/v1/messages/batches"
MOST_REQUESTS: Final = 100_000
MOST_BYTES: Final = 256_000_000
EXPIRES: Final = 86_400.0
"""Seconds after its creation at which what is left of a batch expires."""
_CUSTOM_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MOST_LISTED: Final = 1000
_PAGE: Final = 20
_KINDS: Final = ("processing", "succeeded", "errored", "canceled", "expired")


class Target(NamedTuple):
    """What a request to the path of batches is about: the id, empty for all of them, and what is wanted of it."""

    method: str
    id: str = ""
    verb: str = ""

    @property
    def steps(self) -> str:
        """The path that `FakeClaude.script` knows it by."""
        path = PATH + ("/{id}" if self.id else "") + (f"/{self.verb}" if self.verb else "")
        return path if (self.method, self.id) != ("GET", "") else f"GET {PATH}"


def target_of(method: str, path: str) -> Target | None:
    """What a request is about; None where it is about no batch. Raises a 405 for a method that is not served."""
    if path != PATH and not path.startswith(f"{PATH}/"):
        return None
    name, _, verb = path[len(PATH) + 1 :].partition("/")
    served = {"": ("GET", "POST") if not name else ("GET", "DELETE"), "results": ("GET",), "cancel": ("POST",)}
    if verb not in served or (verb and not name):
        raise Problem(404, "Not Found")
    if method not in served[verb]:
        raise Problem(405, "Method Not Allowed")
    return Target(method, name, verb)


@dataclass(slots=True)
class Batch:
    """One batch. Moments are those of the fake's clock; `lines` are the results, once there are any."""

    id: str
    requests: list[dict[str, Any]]
    at: float
    created: datetime
    ends: float
    cancelled: float | None = None
    ended: float | None = None
    lines: list[bytes] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0))

    def shown(self) -> dict[str, Any]:
        """The batch as the API shows it."""

        def when(moment: float | None) -> str | None:
            return None if moment is None else (self.created + timedelta(seconds=moment - self.at)).isoformat()

        ended = self.ended is not None
        status = "ended" if ended else "in_progress" if self.cancelled is None else "canceling"
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": dict(self.counts),
            "created_at": when(self.at),
            "expires_at": when(self.at + EXPIRES),
            "ended_at": when(self.ended),
            "cancel_initiated_at": when(self.cancelled),
            "archived_at": None,
            "results_url": f"{PATH}/{self.id}/results" if ended else None,
        }


Outcome = str
"""`expired` or `canceled`."""


class Batches:
    """All batches of one fake. Nothing recognises a batch that is created twice: the API does not either.

    `answer` gives the result of one request and what is billed for it, in nano-USD; `charge` takes what a batch came
    to when it has ended. `outcome` says of a custom id and its params what becomes of it instead of an answer.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        delay: float,
        answer: Callable[[Mapping[str, Any]], tuple[dict[str, Any], int]],
        charge: Callable[[int], None],
        outcome: Callable[[str, Mapping[str, Any]], Fault | Outcome | None] | None,
    ) -> None:
        self._clock, self._delay = clock, delay
        self._answer, self._charge, self._outcome = answer, charge, outcome
        self._began, self._at = datetime.now(UTC), clock()
        self._lock = threading.RLock()
        self._batches: dict[str, Batch] = {}
        self._made = 0

    def all(self) -> list[Batch]:
        """Every batch that has not been deleted, oldest first."""
        with self._lock:
            return [self._now(batch) for batch in self._batches.values()]

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take a batch. Raises a 400 for one that the API does not take; what is wrong with params comes as results."""
        requests = body.get("requests")
        if not isinstance(requests, list) or not requests:
            raise invalid("requests: List should have at least 1 item")
        if len(requests) > MOST_REQUESTS:
            raise invalid(f"requests: List should have at most {MOST_REQUESTS} items")
        seen: set[str] = set()
        for place, each in enumerate(requests):
            name = each.get("custom_id") if isinstance(each, dict) else None
            if not isinstance(name, str) or not _CUSTOM_ID.fullmatch(name):
                raise invalid(f"requests.{place}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
            if not isinstance(each.get("params"), dict):
                raise invalid(f"requests.{place}.params: Field required")
            if name in seen:
                raise invalid(f"requests.{place}.custom_id: duplicate custom_id: {name}")
            seen.add(name)
        now = self._clock()
        with self._lock:
            self._made += 1
            created = self._began + timedelta(seconds=now - self._at)
            batch = Batch(f"msgbatch_fake{self._made:020d}", requests, now, created, now + self._delay)
            batch.counts["processing"] = len(requests)
            self._batches[batch.id] = batch
            return batch.shown()

    def find(self, name: str) -> Batch:
        """A batch as it is now. Raises a 404."""
        with self._lock:
            if name not in self._batches:
                raise Problem(404, f"Message batch {name} not found")
            return self._now(self._batches[name])

    def page(self, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of the list, newest first."""
        try:
            limit = int(query.get("limit", _PAGE))
        except ValueError:
            raise invalid("limit: Input should be a valid integer") from None
        if not 1 <= limit <= _MOST_LISTED:
            raise invalid(f"limit: Input should be between 1 and {_MOST_LISTED}")
        found = self.all()[::-1]
        if "after_id" in query:
            found = [batch for batch in found if batch.id < query["after_id"]]
        if "before_id" in query:
            found = [batch for batch in found if batch.id > query["before_id"]][-limit:]
        page = found[:limit]
        return {
            "data": [batch.shown() for batch in page],
            "has_more": len(found) > len(page),
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }

    def cancel(self, name: str) -> dict[str, Any]:
        """Begin to cancel: half a delay later, the rest is canceled. Raises a 400 for one that has ended."""
        with self._lock:
            batch = self.find(name)
            if batch.ended is not None:
                raise invalid("Batch has already ended and cannot be canceled")
            if batch.cancelled is None:
                batch.cancelled = self._clock()
            return self._now(batch).shown()

    def delete(self, name: str) -> dict[str, Any]:
        """Forget a batch that has ended. Raises a 400 for another."""
        with self._lock:
            if self.find(name).ended is None:
                raise invalid("Batch is still being processed: cancel it before it is deleted")
            del self._batches[name]
        return {"id": name, "type": "message_batch_deleted"}

    def _now(self, batch: Batch) -> Batch:
        """Let happen what is due."""
        now = self._clock()
        ends = min(batch.ends, batch.at + EXPIRES)
        if batch.cancelled is not None:
            ends = min(ends, batch.cancelled + self._delay / 2)
        if batch.ended is None and now >= ends:
            cut = "" if batch.ends <= ends else "canceled" if batch.cancelled is not None else "expired"
            self._end(batch, ends, cut)
        return batch

    def _end(self, batch: Batch, at: float, cut: str) -> None:
        batch.counts, billed = dict.fromkeys(_KINDS, 0), 0
        for each in batch.requests[::-1]:  # in no order that anybody could count on
            result, cost = self._result(each, cut)
            billed += cost
            batch.counts[result["type"]] += 1
            line = {"custom_id": each["custom_id"], "result": result}
            batch.lines.append(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        batch.requests, batch.ended = [], at
        self._charge(billed)

    def _result(self, each: Mapping[str, Any], cut: str) -> tuple[dict[str, Any], int]:
        if cut:
            return {"type": cut}, 0
        said = self._outcome(each["custom_id"], each["params"]) if self._outcome is not None else None
        if isinstance(said, str):
            return {"type": said}, 0
        try:
            if said is not None:
                raise said.problem()
            message, cost = self._answer(each["params"])
        except Problem as problem:
            return {"type": "errored", "error": problem.body("req_fake")}, 0
        return {"type": "succeeded", "message": message}, cost
