"""What whole conversations cost: always the top tier, each turn by itself, sticky, and Tierline's arithmetic.

    python -m benchmarks.conversations [--make]

The conversations stand in `conversations.jsonl` as sizes and times, and were made (with `--make`, from a fixed seed)
before anything was tuned on them. They are made up: a support chat with a short prompt, questions on a long document,
an agent with many tools. Every turn goes through a Router to the offline API, which keeps prompt caches with their
minimums and TTLs and bills list prices; the app marks its prompt for caching as the API's documentation has it. Labels
are given, so that nothing is spent on classifying. `under` counts turns that a lower tier answered than their label
asks for: none of the four does that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tierline import Router, policy
from tierline.attempts import Timing
from tierline.testing import FakeClaude
from tierline.values import LABELS, NANO

TRACES: Final = Path(__file__).with_name("conversations.jsonl")
KINDS: Final = {
    # tokens of the prompt, turns, seconds between turns, chances of the labels, chance that a turn is like the last
    "chat": ((1_000, 4_000), (2, 10), 60, (0.6, 0.3, 0.1), 0.5),
    "document": ((15_000, 90_000), (2, 12), 90, (0.4, 0.4, 0.2), 0.6),
    "agent": ((8_000, 20_000), (6, 24), 15, (0.3, 0.4, 0.3), 0.8),
}
WAYS: Final[dict[str, dict[str, Any]]] = {
    "always the top": {"tier": "opus"},
    "each turn by itself": {"sticky": False},
    "sticky": {"sticky": True},
    "arithmetic": {},
}
PER_TOKEN: Final = 3.077
"""Bytes that the offline API takes for a token of these models."""


@dataclass
class Clock:
    """The time of caches, which passes between turns only."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def make() -> None:
    """Write the conversations anew, the same ones."""
    dice = random.Random(20261121)
    lines = []
    for kind, (prompt, turns, gap, chances, same) in KINDS.items():
        for _ in range(40):
            label, said = "", []
            for _ in range(dice.randint(*turns)):
                if not label or dice.random() > same:
                    label = dice.choices(LABELS, chances)[0]
                pause = dice.expovariate(1 / gap) if dice.random() > 0.08 else dice.uniform(400, 4_000)
                said.append([label, dice.randint(20, 400), dice.randint(40, 600), round(pause)])
            lines.append(json.dumps({"kind": kind, "prompt": dice.randint(*prompt), "turns": said}))
    TRACES.write_text("\n".join(lines) + "\n", encoding="utf-8")


def text(tokens: int, salt: str) -> str:
    """Text of so many tokens, unlike any other."""
    return (f"{salt} " + "lorem ipsum dolor sit amet " * tokens)[: round(tokens * PER_TOKEN)]


async def run(rules: dict[str, Any], talks: list[dict[str, Any]]) -> tuple[Counter[str], int, int]:
    """Have the conversations; what each kind cost, how often a turn changed the model, and turns under their label."""
    clock = Clock()
    reply = ""
    fake = FakeClaude(clock=clock, answer=lambda _: reply)
    cost: Counter[str] = Counter()
    moves = under = 0
    async with fake.client() as client:
        router = Router(client, timing=Timing(perf=clock))
        for number, talk in enumerate(talks):
            system = [{"type": "text", "text": text(talk["prompt"], f"talk {number}")}]
            messages: list[Any] = []
            last = ""
            for label, asked, answered, pause in talk["turns"]:
                reply = text(answered, f"answer {len(messages)}")
                messages.append({"role": "user", "content": text(asked, f"turn {len(messages)}")})
                async with router.bind(tenant=str(number)) as binding:
                    with policy(label=label, **rules):
                        await router.claude.messages.create(
                            model="auto", max_tokens=2_000, system=system, messages=messages,
                            cache_control={"type": "ephemeral"},
                        )  # fmt: skip
                decision = binding.decisions[-1]
                cost[talk["kind"]] += decision.cost
                moves += bool(last) and decision.tier != last
                rung = router.ladder.index(decision.tier, "decision")
                under += rung < router.ladder.labels[label]
                last = decision.tier
                messages.append({"role": "assistant", "content": reply})
                clock.now += pause
            clock.now += 10_000
        assert sum(cost.values()) == fake.billed
    return cost, moves, under


async def main() -> None:
    """Have them in every way, and show what each costs."""
    talks = [json.loads(line) for line in TRACES.read_text(encoding="utf-8").splitlines()]
    table = Table("way", *(f"{kind}" for kind in KINDS), "all", "of the top", "moves", "under")
    for column in table.columns[1:]:
        column.justify = "right"
    top = 0
    for name, rules in WAYS.items():
        cost, moves, under = await run(rules, talks)
        total = sum(cost.values())
        top = top or total
        shown = (f"${cost[kind] / NANO:.2f}" for kind in KINDS)
        table.add_row(name, *shown, f"${total / NANO:.2f}", f"{total / top:.1%}", str(moves), str(under))
    Console(width=100).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", action="store_true", help="write the conversations anew")
    if parser.parse_args().make:
        make()
    else:
        asyncio.run(main())
