"""What is remembered of the API's health."""

from __future__ import annotations

from typing import Any

import pytest

from tierline import health
from tierline.attempts import Reply, Timing
from tierline.breaker import IN_A_ROW
from tierline.health import FIRST_BYTE, Health, silence_of


class Lab:
    """Health on a clock of its own."""

    def __init__(self) -> None:
        self.at = 100.0
        self.changes: list[Any] = []
        timing = Timing(now=lambda: self.at, perf=lambda: self.at, jitter=lambda: 0.5)
        self.health = Health(timing, lambda *change: self.changes.append(change))
        self.tier = self.health.of("here", "m")

    def end(self, reply: Reply | None, times: int = 1, seconds: float = 1.0) -> None:
        for _ in range(times):
            entry = self.tier.breaker.enter()
            began = self.at
            self.at += seconds
            self.tier.ended(reply, began, entry)


def test_one_for_each_model_of_each_endpoint() -> None:
    """The same for the same, and apart for another address, key or model."""
    lab = Lab()
    assert lab.health.of("here", "m") is lab.tier
    assert len({id(lab.health.of(*key)) for key in (("here", "m"), ("here", "n"), ("there", "m"))}) == 3


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that clients make up push out the oldest of those that are well, and leave nothing behind."""
    monkeypatch.setattr(health, "_MOST", 10)
    lab = Lab()
    busy = Reply(error="rate_limit_error", status=429, retry_after=60)
    lab.end(busy)
    for number in range(100):
        lab.health.of("here", f"made up {number}")
    assert len(lab.health._tiers) == 10
    assert lab.health.of("here", "m") is lab.tier
    for number in range(100):
        lab.health.of("here", f"busy {number}").ended(busy, lab.at, "closed")
    assert len(lab.health._tiers) == 10
    lab.end(busy)
    assert lab.tier not in lab.health.troubled
    assert len(lab.health.troubled) <= 10


@pytest.mark.parametrize(
    "reply",
    [
        None,
        Reply(error="rate_limit_error", status=429),
        Reply(error="invalid_request_error", status=400),
        Reply(error="timeout", down=True),
        Reply(error="TypeError", sent=False),
    ],
)
def test_what_says_nothing_of_the_tier(reply: Reply | None) -> None:
    """Cancelled attempts, rate limits, errors of the request, and the timeouts of an app in a hurry."""
    lab = Lab()
    lab.end(reply, 5 * IN_A_ROW)
    assert lab.changes == []


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (Reply(error="overloaded_error", status=529, down=True), 0.1),
        (Reply(error="connection_error", down=True), 0.1),
        (Reply(error="timeout", down=True), 30.0),
        (Reply(error="timeout", down=True, sent=False), 0.1),
    ],
)
def test_what_opens_a_breaker(reply: Reply, seconds: float) -> None:
    """5xx, a dead line, and timeouts that no hurry explains; the last failure is remembered."""
    lab = Lab()
    lab.end(reply, IN_A_ROW, seconds)
    assert lab.changes == [("m", "closed", "open")]
    assert (lab.tier.status, lab.tier.error) == (reply.status, reply.error)
    assert lab.tier.why_not.startswith("its breaker is open after 10 failures in a row, for 5.0 s more")
    assert lab.health.troubled == {lab.tier}


@pytest.mark.parametrize("status", [400, 401, 404, 413, 429])
def test_who_refuses_is_up(status: int) -> None:
    """A 4xx ends a row of failures and closes a half-open breaker; one that was never sent tells nothing."""
    lab = Lab()
    refused, down = Reply(error="x", status=status), Reply(error="api_error", status=500, down=True)
    lab.end(down, IN_A_ROW - 1)
    lab.end(refused)
    lab.end(down, IN_A_ROW - 1)
    assert lab.changes == []
    lab.end(down)
    lab.at = lab.tier.breaker.until
    lab.end(Reply(error="breaker_open", status=status, sent=False))
    assert lab.tier.breaker.state == "open"
    lab.end(refused)
    assert [after for _, _, after in lab.changes] == ["open", "half_open", "open", "half_open", "closed"]


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"stream": True, "max_tokens": 64_000}, FIRST_BYTE),
        ({"max_tokens": 350}, FIRST_BYTE + 10),
        ({"max_tokens": 7_000, "stream": False}, FIRST_BYTE + 200),
        ({"max_tokens": True}, FIRST_BYTE),
        ({}, FIRST_BYTE),
    ],
)
def test_how_long_silence_tells_nothing(body: dict[str, Any], seconds: float) -> None:
    """An app's own timeout is a failure only where an API that is well would have answered this request before."""
    assert silence_of(body) == seconds
    timeout = Reply(error="timeout", down=True)
    for within, state in ((seconds - 1, "closed"), (seconds, "open")):
        lab = Lab()
        for _ in range(2 * IN_A_ROW):
            if entry := lab.tier.breaker.enter():
                began, lab.at = lab.at, lab.at + within
                lab.tier.ended(timeout, began, entry, silence=silence_of(body))
        assert (within, lab.changes[:1]) == (within, [] if state == "closed" else [("m", "closed", "open")])


def test_streams_that_break() -> None:
    """They began well, so it takes a rate; an answer that goes well does not hide them."""
    lab = Lab()
    for _ in range(30):
        lab.tier.breaker.answered()
        lab.at += 0.1
        lab.tier.broke("overloaded_error", lab.at - 0.05)
    assert lab.tier.breaker.state == "open"


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_limit_is_remembered(status: int) -> None:
    """As long as the API says, or until an attempt shows that it is over."""
    lab = Lab()
    busy = Reply(error="x", status=status, retry_after=30)
    lab.end(busy)
    assert (lab.tier.limited, lab.tier.why_not) == (30, "its rate limit is exhausted for 30.0 s more")
    lab.at += 30
    assert (lab.tier.limited, lab.tier.why_not, lab.health.troubled) == (0, "", set())
    lab.end(busy)
    lab.end(Reply("answer", status=200))
    assert (lab.tier.limited, lab.health.troubled) == (0, set())


def test_answers_of_before_say_nothing_of_a_limit() -> None:
    """What was under way when the limit was met does not end it."""
    lab = Lab()
    began = lab.at
    lab.end(Reply(error="x", status=429, retry_after=30))
    lab.tier.ended(Reply("answer", status=200), began, "closed")
    assert lab.tier.limited
    lab.tier.ended(Reply("answer", status=200), lab.at, "closed")
    assert not lab.tier.limited


@pytest.mark.parametrize(("error", "status"), [("overloaded_error", 529), ("api_error", 500), ("truncated", 0)])
def test_how_a_stream_broke_is_remembered(error: str, status: int) -> None:
    """So that the error of a call that is not sent is of that type."""
    lab = Lab()
    lab.tier.broke(error, lab.at)
    assert (lab.tier.status, lab.tier.error) == (status, error)


def test_the_wait_for_one_request_is_no_limit() -> None:
    """A `Retry-After` with a 500 or a 409 is about that request."""
    lab = Lab()
    lab.end(Reply(error="x", status=500, retry_after=30))
    lab.end(Reply(error="x", status=409, retry_after=30))
    assert not lab.tier.limited
