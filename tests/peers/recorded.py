"""Figures of a run that never was."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.conductor import Part
from benchmarks.peers.figures import Figures, figures_of
from benchmarks.peers.rows import NOTHING, PLAIN, ROWS

ABOUT = {
    "date": "2026-11-22", "commit": "abc1234", "python": "3.11.7", "system": "Linux x86_64", "cpu": "a processor",
    "cores": 2, "load": 0.1, "minutes": 9, "how": "in a whole run", "versions": {"litellm": ["litellm 1.106.2"]},
}  # fmt: skip
STARTUP: dict[str, Any] = {
    "rounds": 9,
    "first": {"sdk": {"import cpu": 2.0}, "tierline": {"import cpu": 0.4}},
    "again": {
        "sdk": {"import cpu": [0.9, 0.8, 1.0], "call cpu": [0.1, 0.1, 0.1], "memory": [90e6, 89e6, 91e6]},
        "tierline": {"import cpu": [0.05, 0.04, 0.07], "call cpu": [0.2, 0.2, 0.2], "memory": [97e6, 96e6, 98e6]},
    },
    "installed": {"sdk": 20.0, "tierline": 5.5, "litellm": 205.0},
    "failed": {},
}


def took(cpu: float, beside: float = 0.0) -> dict[str, float]:
    """A block."""
    return {"cpu": cpu, "beside": beside, "clock": cpu + beside}


def part(row: int, worker: str, columns: dict[str, float], rounds: int = 8, beside: float = 0.0) -> Part:
    """A worker in a row: each column takes so many times what the base does, in rounds that grow slower."""
    base = ROWS[row].base
    found = Part(ROWS[row], worker, did=dict.fromkeys(columns, "answered"))
    for number in range(rounds):
        slow = 1_000 * (1 + number / 10)
        found.rounds.append(
            {base: took(slow)} | {name: took(factor * slow, beside) for name, factor in columns.items()}
        )
    return found


def figures(cached: float = 1.05, ruled: float = 8.0) -> Figures:
    """Some columns of some rows."""
    parts = [
        part(0, "tierline", {"Tierline": cached, "Tierline, SQLite": 1.4}),
        part(1, "tierline", {"Tierline": 1.2}, rounds=3),
        part(0, "litellm", {"LiteLLM Router, rules and budget": ruled}),
        part(6, "server", {"Tierline": 1.08}),
    ]
    parts[2].failed["LiteLLM proxy"] = "left out: a single call takes 0.3 s"
    return figures_of(parts, ABOUT, STARTUP)


__all__ = ["NOTHING", "PLAIN", "figures", "part", "took"]
