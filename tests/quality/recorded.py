"""A few prompts with recorded answers, in the form of the data, for tests of what is measured on it."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


_ASKED = {
    "easy": "What is the usual colour of the {}th fruit in an alphabetical list of fruit?",
    "tools": "Book two seats on flight {} to Lisbon and tell me when it leaves.",
    "math": "Prove that $x^{} + 1$ has no real root, or show one.",
}


def row(source: str, number: int, good: tuple[int, int, int]) -> dict[str, Any]:
    """A prompt of a source, and how good Haiku, Sonnet and Opus were; hard maths has no Sonnet."""
    names = [name for name in ("haiku3", "sonnet3", "opus3") if name != "sonnet3" or "math" not in source]
    known = dict(zip(("haiku3", "sonnet3", "opus3"), good, strict=True))
    return {
        "id": f"{source}/{number}",
        "source": source,
        "prompt": _ASKED[source].format(number),
        "tools": number % 2 if source == "tools" else 0,
        "quality": {name: known[name] for name in names},
        "in_tok": dict.fromkeys(names, 100 + number),
        "out_tok": {name: 50 * (1 + names.index(name)) for name in names},
        "split": "train",
    }


def write(data: Path) -> Path:
    """`claude3_tiers` of three sources: one that Haiku is good enough for, one that it is not, one without Sonnet."""
    rows = [row("easy", number, (1, 1, 1)) for number in range(70)]
    rows += [row("tools", number, (0, 1, 1)) for number in range(70)]
    rows += [row("math", number, (number % 2, 1, 1)) for number in range(70)]
    with gzip.open(data / "claude3_tiers.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(each) + "\n" for each in rows)
    return data
