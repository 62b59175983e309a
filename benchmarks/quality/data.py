"""The rows that everything here is measured on: prompts, and how good two tiers' answers were."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from tierline.errors import ConfigurationError
from tierline.prices import PriceBook
from tierline.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHEAP: Final = "claude-haiku-4-5"
DEAR: Final = "claude-opus-4-5"
"""Whose list prices the answers of older models are billed by: 1 to 5, as between the tiers they stand for then."""


@dataclass(frozen=True)
class Pair:
    """A prompt, how good the weak and the strong model's answers were (0 to 1), and what they cost in nano-USD."""

    id: str
    source: str
    prompt: str
    tools: int
    weak: float
    strong: float
    weak_cost: int = 0
    strong_cost: int = 0


def rows(data: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of one file of the data."""
    path = data / f"{name}.jsonl.gz"
    if not path.is_file():
        raise ConfigurationError(f"{path} is not there: give the directory of the data as --data DIR")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def claude(data: Path) -> list[Pair]:
    """Claude 3 Haiku and Opus, at the token counts that were estimated for them."""
    prices = PriceBook()

    def cost(row: dict[str, Any], model: str, sold_as: str) -> int:
        usage = Usage(ceil(row["in_tok"][model]), ceil(row["out_tok"][model]))
        found = prices.cost(sold_as, usage)
        assert found is not None
        return found

    return [
        Pair(r["id"], r["source"], r["prompt"], r["tools"], r["quality"]["haiku3"], r["quality"]["opus3"],
             cost(r, "haiku3", CHEAP), cost(r, "opus3", DEAR))
        for r in rows(data, "claude3_tiers")
    ]  # fmt: skip


def routellm(data: Path, source: str) -> list[Pair]:
    """Mixtral against GPT-4."""
    found = (row for row in rows(data, "routellm_pairs") if row["source"] == source)
    return [
        Pair(r["id"], r.get("subsource") or source, r["prompt"], r["tools"], quality["mixtral"], quality["gpt4"])
        for r in found
        for quality in (r["quality"],)
    ]


def alpaca(data: Path) -> list[Pair]:
    """Older Claudes against GPT-4-Turbo, which is one half against itself."""
    return [
        Pair(r["id"], r.get("subsource") or r["source"], r["prompt"], r["tools"], r["weak_mean"], 0.5)
        for r in rows(data, "alpacaeval_chat")
    ]


def ulab(data: Path) -> list[Pair]:
    """Mistral 7B against Nemotron 51B."""
    weak, strong = "mistral-7b-instruct-v0.3", "llama-3.1-nemotron-51b-instruct"
    return [
        Pair(r["id"], r["source"], r["prompt"], r["tools"], r["quality"][weak], r["quality"][strong])
        for r in rows(data, "ulab_open9")
    ]


SETS: Final[dict[str, Callable[[Path], list[Pair]]]] = {
    "Claude 3 tiers": claude,
    "MMLU (Mixtral)": lambda data: routellm(data, "routellm-mmlu"),
    "GSM8K (Mixtral)": lambda data: routellm(data, "routellm-gsm8k"),
    "AlpacaEval": alpaca,
    "ulab": ulab,
}
"""Five sets of prompts, each with a weak and a strong model."""
