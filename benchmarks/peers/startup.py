"""What it takes to start: fresh processes, by turns, of an app with the SDK, with Tierline, and with peers."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
import tomllib
from typing import TYPE_CHECKING, Any, Final

from benchmarks.pairs import median_of
from benchmarks.peers.conductor import ROOT, environment
from benchmarks.peers.environments import python_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SUBJECTS: Final = {"sdk": "tierline", "tierline": "tierline", "pydantic_ai": "pydantic_ai", "litellm": "litellm"}
"""Subjects of `probe`, and the environments that they are in."""
PATIENCE: Final = 120.0
APP: Final = ("fastapi", "anthropic")
_MEGABYTE: Final = 1e6


def _probe(python: Path, *arguments: str, bytecode: str) -> dict[str, float]:
    done = subprocess.run(
        [python, "-m", "benchmarks.peers.probe", *arguments],
        capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=ROOT,
        env=environment() | {"PYTHONPYCACHEPREFIX": bytecode},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def sizes(folder: Path) -> dict[str, float]:
    """Megabytes of an app's packages, and what Tierline and the peers bring beside those."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        ours = [line.partition(">=")[0] for line in tomllib.load(file)["project"]["dependencies"]]

    def installed(name: str, *packages: str) -> dict[str, float]:
        return _probe(python_of(folder, name), "sizes", *packages, bytecode="")

    app = installed("tierline", *APP)
    added = {
        "tierline": installed("tierline", *APP, *ours),
        "pydantic_ai": installed("pydantic_ai", *APP, "pydantic-ai-slim", "pydantic-ai-slim[anthropic]"),
        "litellm": installed("litellm", *APP, "litellm"),
        "litellm's proxy": installed("litellm", *APP, "litellm", "litellm[proxy]"),
    }
    own = sum(path.stat().st_size for path in (ROOT / "src").rglob("*") if path.suffix != ".pyc" and path.is_file())
    found = {name: sum(size for each, size in beside.items() if each not in app) for name, beside in added.items()}
    found["tierline"] += own
    return {"sdk": sum(app.values()) / _MEGABYTE} | {name: size / _MEGABYTE for name, size in found.items()}


def measure(folder: Path, url: str, rounds: int) -> dict[str, Any]:
    """Medians of so many processes of each subject, with bytecode; of one without; and what is installed."""
    again: dict[str, list[dict[str, float]]] = {subject: [] for subject in SUBJECTS}
    first: dict[str, dict[str, float]] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as bytecode:
        for number in range(rounds + 1):
            for subject in random.sample(list(again), len(again)):
                try:
                    found = _probe(python_of(folder, SUBJECTS[subject]), subject, url, bytecode=f"{bytecode}/{subject}")
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    failed[subject] = str(error)
                    del again[subject]
                    continue
                if number:
                    again[subject].append(found)
                else:
                    first[subject] = found
    return {
        "rounds": rounds,
        "first": first,
        "again": {subject: _medians(found) for subject, found in again.items()},
        "installed": sizes(folder),
        "failed": failed,
    }


def _medians(found: list[dict[str, float]]) -> Mapping[str, Any]:
    return {what: list(median_of([each[what] for each in found])) for what in found[0]}


def added_memory(again: Mapping[str, Mapping[str, list[float]]]) -> float:
    """Megabytes that a process with Tierline has beyond one with the SDK alone, each after its first call."""
    return (again["tierline"]["memory"][0] - again["sdk"]["memory"][0]) / _MEGABYTE
