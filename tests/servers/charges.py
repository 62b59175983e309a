"""What an attempt must be charged, by the table of endings: by what the app sent and read, and what the API billed."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, Literal

from tierline.attempts import LEFT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tierline.testing._log import Received

Kind = Literal["exact", "input", "whole", "seen"]

OUTPUT: Final = 5_000
"""Nanodollars for a token of output on the tier `plain`."""
FRAMING: Final = 8
"""Bytes that the framing of a piece of text has more than that of the shortest piece of anything."""


def must_be(
    tier: str, outcome: str, hold: Mapping[str, Any], heard: Mapping[str, Any] | None, received: Received | None
) -> tuple[Kind, int, int]:
    """How an attempt is charged, and between which two amounts (nanodollars). Most often they are the same.

    `hold` is what was reserved, `heard` what the app has sent of the request and read of the answer, `received` how the
    API has billed it: None where it never saw it.
    """
    if not (heard and heard["sent"]) and outcome not in LEFT:
        return "exact", 0, 0  # no connection was made
    if heard is None or received is None or not (heard["started"] or outcome == "ok"):
        # Who left before anything was told of usage has sent the input. Where the line broke, it may have been all.
        if outcome in LEFT:
            return "input", hold["input"], hold["input"]
        return "whole", hold["worst"], hold["worst"]
    if not heard["streamed"]:
        return "exact", received.billed, received.billed
    if heard["final"] is not None:
        return "exact", received.billed, received.billed
    if tier == "thinking":
        return "whole", hold["worst"], hold["worst"]
    # The input is exact, the output what has passed: a token for each byte of text, and some for what may be text.
    prompt = received.billed - OUTPUT * received.usage.output_tokens
    least, most = (prompt + OUTPUT * max(1, size) for size in (heard["text"], _all_of(heard)))
    return "seen", min(least, hold["worst"]), min(most, hold["worst"])


def _all_of(heard: Mapping[str, Any]) -> int:
    return int(heard["text"] + FRAMING * heard["deltas"] + heard["other"] + heard["tail"])


def check(found: Mapping[str, Any], name: str, received: Sequence[Received], tenant: str) -> list[Kind]:
    """Every attempt of a call was charged to `tenant` what it must be, in the decision and in the ledger, and once."""
    kinds: list[Kind] = []
    attempts: list[Any] = found["calls"].get(name, [])
    assert len(received) <= len(attempts)
    for attempt, heard, billed in zip_longest(attempts, found["heard"].get(name, []), received):
        tier, outcome, cost, estimated, charged, decision = attempt
        (hold,) = [hold for key, hold in found["holds"].items() if key.startswith(f"{decision}.")]
        assert (hold["tenant"], charged, hold["settled"]) == (tenant, tenant, [cost])
        kind, least, most = must_be(tier, outcome, hold, heard, billed)
        # What reached the API was sent, and the other way round: but for one that is lost on a line which is broken.
        assert billed is None or (heard is not None and heard["sent"]), (name, outcome)
        assert least > 0 or billed is None
        assert least <= cost <= most, (name, outcome, kind, least, cost, most, heard)
        assert estimated == (kind != "exact"), (name, outcome, kind, heard)
        kinds.append(kind)
    return kinds
