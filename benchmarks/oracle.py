"""Whether one tenant can tell by time what another has asked: `python -m benchmarks.oracle`.

In turns a tenant asks a text that another one has asked before, and a text that nobody has. Both are as long, and
both are measured as its client could: the whole call, from outside. How well a threshold on that time tells one from
the other is the AUC: 0.5 is a guess, 1 is certainty, and what is under 0.5 is turned round. As a check of the
instrument, a tenant's own hits are told from its misses, too: those must be plain.

Exits with 1 where texts of others can be told better than 0.55, or the instrument sees nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from tierline import Router
from tierline.classify import CascadeClassifier, ClaudeClassifier, LocalClassifier
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST: Final = 0.55
SEEN: Final = 0.8
"""The least AUC of a tenant's own hits: a cache that nobody could see would prove nothing."""


def auc(hits: Sequence[float], misses: Sequence[float]) -> float:
    """How likely a hit and a miss, drawn by chance, are put in the right order by their times; at least a half."""
    ranked = sorted([(each, 1) for each in hits] + [(each, 0) for each in misses])
    ranks = sum(rank for rank, (_, hit) in enumerate(ranked, 1) if hit)
    share = (ranks - len(hits) * (len(hits) + 1) / 2) / (len(hits) * len(misses))
    return max(share, 1 - share)


async def asked(router: Router, tenant: str, text: str) -> float:
    """Seconds of a call, as its client sees them."""
    began = time.perf_counter()
    async with router.bind(tenant=tenant, route="/answer"):
        said: Any = [{"role": "user", "content": text}]
        await router.claude.messages.create(model="auto", max_tokens=40, messages=said)
    return time.perf_counter() - began


async def measure(rounds: int) -> tuple[float, float]:
    """The AUC of others' texts, and of a tenant's own."""
    fake = FakeClaude()
    of_others: tuple[list[float], list[float]] = ([], [])
    own: tuple[list[float], list[float]] = ([], [])
    async with fake.client() as client:
        # The local weights are always asked, and are sure of nothing: so both memories are looked in, and Claude asked.
        router = Router(
            client, classifier=CascadeClassifier([LocalClassifier(least=1.0), ClaudeClassifier()]), cache_size=100_000
        )
        async with router.lifespan():
            for number in range(-20, rounds):
                known, fresh = (
                    f"Is the {word} of order {number + 100_000} late, and if so, why?" for word in ("box", "bag")
                )
                await asked(router, "acme", known)
                turns = [(known, of_others[0]), (fresh, of_others[1])]
                random.shuffle(turns)
                for text, times in turns:
                    times.append(await asked(router, "mallory", text))
                own[0].append(await asked(router, "mallory", known))
                own[1].append(
                    await asked(router, "mallory", f"Is the jar of order {number + 100_000} late, and if so, why?")
                )
                fake.clear()
    return auc(of_others[0][20:], of_others[1][20:]), auc(own[0][20:], own[1][20:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. 1 where somebody could tell, or the instrument could not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2_000)
    others, own = asyncio.run(measure(parser.parse_args(arguments).rounds))
    print(f"texts of others: AUC {others:.3f} (at most {MOST}); own texts: AUC {own:.3f} (at least {SEEN})")
    return others > MOST or own < SEEN


if __name__ == "__main__":
    sys.exit(main())
