"""Two versions on one store, as a deploy has them that replaces one process after the other, and goes back and forth.

Each version is a folder of sources, run by processes of its own: the storm's (see `storm.py`). Some are killed.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import tierline
from tests.processes.storm import ROOT, Storm

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCES: Final = Path(tierline.__file__).parents[1]
BEFORE: Final = "7a20c29"
"""The version before: the last release, as soon as there is one; until then, one whose schemas had no numbers."""


def later(folder: Path) -> Path:
    """The sources of a version that comes after this one: both of its schemas have one additive step more."""
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "tierline" / "store" / "schema.py"
    text = path.read_text()
    text, steps = re.subn(r"(MIGRATIONS: .* = \(.*)\)\n", r'\1, "CREATE TABLE later (one INTEGER);\\n")\n', text)
    text, redis = re.subn(r"REDIS_SCHEMA: Final = (\d+)", lambda found: f"{found[0]}0", text)
    assert (steps, redis) == (1, 1)
    path.write_text(text)
    return folder


def before(folder: Path) -> Path:
    """The sources of the version before. CalledProcessError where there is no history."""
    folder.mkdir()
    archive = folder / "source.tar"
    subprocess.run(["git", "archive", "-o", archive, BEFORE, "src"], cwd=ROOT, check=True)  # noqa: S607
    subprocess.run(["tar", "xf", archive], cwd=folder, check=True)  # noqa: S607
    return folder / "src"


def deploy(
    url: str, turns: Sequence[Path], folder: Path, *, slots: int, calls: int, total: int, lease: float, seed: int
) -> Storm:
    """Let so many slots be filled by the versions of `turns`, one after the other; each but the last is killed or ends.

    What is done in a turn is at most `calls` calls.
    """
    chance = random.Random(seed)  # noqa: S311
    started = time.monotonic()
    running: dict[int, tuple[int, subprocess.Popen[bytes], Path]] = {}
    notes: list[Path] = []
    codes: list[int] = []

    def start(slot: int, turn: int) -> None:
        log = folder / f"{turn}-{slot}.jsonl"
        notes.append(log)
        command = [
            sys.executable, "-m", "tests.processes.storm", url, "--worker", f"{turn}-{slot}", "--log", str(log),
            "--calls", str(calls), "--concurrency", "10", "--total", str(total), "--lease", str(lease),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(turns[turn])}
        running[slot] = turn, subprocess.Popen(command, cwd=ROOT, env=environment), log

    try:
        for slot in range(slots):
            start(slot, 0)
        while running:
            for slot, (turn, process, log) in list(running.items()):
                last = turn == len(turns) - 1
                done = log.read_bytes().count(b"\n") if log.exists() else 0
                if not last and process.poll() is None and done > chance.uniform(0.2, 0.8) * calls:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                if (code := process.poll()) is not None:
                    codes.append(code)
                    del running[slot]
                    if not last:
                        start(slot, turn + 1)
            time.sleep(0.01)
    finally:
        for _, process, _ in running.values():
            process.kill()
            process.wait()
    found = [json.loads(line) for log in notes if log.exists() for line in log.read_text().splitlines()]
    return Storm(codes, codes.count(-signal.SIGKILL), time.monotonic() - started, found)
