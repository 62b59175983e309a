"""What a response says of the calls behind it: tier, source and cost of the last, and where the time went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tierline.values import NANO

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tierline.values import Decision

Header = tuple[bytes, bytes]

SERVER_TIMING: Final = b"server-timing"
_MOST_CALLS: Final = 4
"""Most calls of one request that `Server-Timing` tells of: the latest."""
_MOST_ATTEMPTS: Final = 5
"""Most attempts of each: the latest. So the header stays under 3 KB, whatever a request does."""
_MOST_CHARS: Final = 60
"""Most characters of a description."""


def shown(decisions: Collection[Decision], there: Collection[bytes]) -> list[Header]:
    """What a response says of the last call that was sent and has ended. A header that is `there` stays."""
    last = next((d for d in reversed(tuple(decisions)) if d.settled and d.attempts), None)
    if last is None:
        return []
    found = {
        b"x-tierline-tier": last.tier,
        b"x-tierline-source": last.source,
        b"x-tierline-cost-usd": f"{last.cost // NANO}.{last.cost % NANO:09d}",
    }
    return [(name, text.encode()) for name, text in found.items() if name not in there and _is_text(text)]


def timed(decisions: Collection[Decision], there: Collection[bytes]) -> list[Header]:
    """`Server-Timing` of the latest calls that have ended, in milliseconds, oldest first.

    `there` is what the response has of it already: one that says the same, of a middleware inside, is not repeated.
    """
    ended = [decision for decision in tuple(decisions) if decision.settled]
    text = ", ".join(entry for decision in ended[-_MOST_CALLS:] for entry in _entries(decision)).encode()
    return [(SERVER_TIMING, text)] if text and not any(text in value for value in there) else []


def _entries(decision: Decision) -> Iterator[str]:
    """A call as entries: all of it, then its parts, in the order of time."""
    sent = decision.attempts
    yield _entry("tierline", decision.latency_s, f"{decision.tier}, {decision.source}" if sent else "nothing sent")
    if decision.classifier_latency_s:
        yield _entry("tierline-classify", decision.classifier_latency_s, decision.source if sent else "")
    for attempt in sent[-_MOST_ATTEMPTS:]:
        yield _entry("tierline-attempt", attempt.seconds, f"{attempt.tier}, {attempt.role}, {attempt.outcome}")
    # A speculative attempt runs beside the question: of both, the longer one.
    beside = max([decision.classifier_latency_s, *(each.seconds for each in sent if each.role == "speculative")])
    parts = beside + sum(each.seconds for each in sent if each.role != "speculative")
    yield _entry("tierline-rest", max(0.0, decision.latency_s - parts), "")


def _entry(name: str, seconds: float, said: str) -> str:
    """One metric. Names of tiers are the app's: what is no text of a header is left out."""
    entry = f"{name};dur={seconds * 1_000:.2f}"
    if not said or not _is_text(said):
        return entry
    quoted = said[:_MOST_CHARS].replace("\\", "\\\\").replace('"', '\\"')
    return f'{entry};desc="{quoted}"'


def _is_text(text: str) -> bool:
    return text.isascii() and text.isprintable()
