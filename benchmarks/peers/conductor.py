"""Tells the workers by turns to run their blocks, and keeps what they say."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.peers.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.peers.column import World
    from benchmarks.peers.rows import Kind, Row

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE: Final = 90.0
"""Seconds after which a worker hangs: longer than it gives a block."""
FEWEST: Final = 4
"""Rounds of each worker in a row."""
LATE: Final = 20.0
"""Seconds after the end of a row, from which on one round is enough."""
QUIET: Final[Mapping[str, str]] = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_TELEMETRY": "False",
    "TRACELOOP_TELEMETRY": "False",
}
"""No peer asks anybody else for anything, or writes down more than errors."""
WEIGHTS: Final[Mapping[str, float]] = {"tierline": 3.0, "litellm": 2.0}
"""Turns of a worker, where others have one: by how many columns it has, and how long they take."""


class Worker:
    """A process of `benchmarks.peers.worker` in the environment of a peer."""

    def __init__(self, name: str, python: Path, world: World, log: Path) -> None:
        self.name, self.log = name, log
        redis = ["--redis", world.redis] if world.redis else []
        said = log.open("wb")
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.peers.worker", name, "--url", world.url, "--folder", world.folder, *redis],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True,
            env=environment(),
        )  # fmt: skip
        said.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request. Of a worker that is gone, or says nothing for long, the end of its log as an error."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        if select.select([self.process.stdout], [], [], PATIENCE)[0] and (line := self.process.stdout.readline()):
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.process.kill()
        said = self.log.read_text(errors="replace").strip().splitlines()
        return {"error": f"the worker {self.name} is gone: {said[-1] if said else 'it said nothing'}"}

    def close(self) -> None:
        """End it, with what it started."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def environment() -> dict[str, str]:
    """Of a process that is measured: the tree's own modules, bytecode as always, and nothing of ours in the peers."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "OTEL_", "TIERLINE_"))}
    mine["PYTHONPATH"] = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    mine["PYTHONHASHSEED"] = "0"
    return {**mine, **QUIET}


@dataclass
class Part:
    """The columns of one worker in one row: what each block took, by round."""

    row: Row
    worker: str
    rounds: list[dict[str, dict[str, float]]] = field(default_factory=list)
    """Of each round: by column, microseconds a call of `cpu`, `beside` and `clock`."""
    did: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    also: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Turn:
    """One worker in one row: whose turn it is goes by the time it has had."""

    def __init__(self, worker: Worker, columns: Sequence[Mapping[str, Any]], row: Row) -> None:
        self.worker, self.columns, self.number = worker, columns, ROWS.index(row)
        self.part = Part(row, worker.name, also={each["name"]: tuple(each["also"]) for each in columns})
        self.order = [n for n, each in enumerate(columns) if row.kind in each["kinds"]]
        self.calls: dict[int, int] = {}
        self.had = 0.0

    def begin(self, slow: set[tuple[str, Kind, int]]) -> None:
        """Warm up, and throw a block of each away. Columns that do not do the thing are told, and left out.

        `slow`: columns that take too long for a block, with what they take too long for: they are not asked again.
        """
        row = self.part.row
        for number in list(self.order):
            name = self.columns[number]["name"]
            if (name, row.kind, row.size) in slow:
                self._lost(number, "left out: too slow one at a time")
                continue
            said = self.worker.ask(do="check", column=number, row=self.number)
            if "error" not in said:
                self.part.did[name] = said["did"]
                self.calls[number] = row.block(said["seconds"])
                if not self.calls[number]:
                    slow.add((name, row.kind, row.size))
                    self._lost(number, f"left out: a single call takes {said['seconds']:.2g} s of CPU")
                    continue
                said = self._block(number)
            if "error" in said:
                self._lost(number, said["error"])

    def round(self) -> None:
        """A block of each column, in shuffled order."""
        began, first = time.monotonic(), not self.part.rounds
        self.part.rounds.append({})
        random.shuffle(self.order)
        for place, number in enumerate(list(self.order)):
            said = self._block(number, first=first and not place)
            if "error" in said:
                self._lost(number, said["error"])
            else:
                self.part.rounds[-1][self.columns[number]["name"]] = said
        self.had += (time.monotonic() - began) / WEIGHTS.get(self.worker.name, 1.0)

    def _block(self, number: int, *, first: bool = False) -> dict[str, Any]:
        return self.worker.ask(do="block", column=number, row=self.number, calls=self.calls[number], first=first)

    def _lost(self, number: int, why: str) -> None:
        self.order.remove(number)
        self.part.failed[self.columns[number]["name"]] = why


def measure(
    row: Row,
    workers: Mapping[str, tuple[Worker, Sequence[Mapping[str, Any]]]],
    seconds: float,
    slow: set[tuple[str, Kind, int]],
) -> list[Part]:
    """Rounds of one row for about `seconds`, each of the worker that has had the least of them.

    Every worker has `FEWEST` rounds, and one at least where those end later than `LATE`. `slow`: see `Turn.begin`.
    """
    turns = [Turn(worker, columns, row) for worker, columns in workers.values()]
    turns = [turn for turn in turns if turn.order]
    for turn in turns:
        turn.begin(slow)
    ends = time.monotonic() + seconds
    while active := [turn for turn in turns if turn.order]:
        now = time.monotonic()
        if now > ends:
            fewest = FEWEST if now < ends + LATE else 1
            active = [turn for turn in active if len(turn.part.rounds) < fewest]
        if not active:
            break
        min(active, key=lambda each: each.had).round()
    return [turn.part for turn in turns]


@contextmanager
def started(
    environments: Mapping[str, Path], world: World, logs: Path, tell: Callable[[str], None]
) -> Iterator[dict[str, tuple[Worker, list[dict[str, Any]]]]]:
    """A worker in each environment, with its columns. One that does not start is told, and left out."""
    with ExitStack() as stack:
        workers = {}
        for name, python in environments.items():
            worker = Worker(name, python, world, logs / f"{name}.log")
            stack.callback(worker.close)
            workers[name] = worker
        ready = {}
        for name, worker in workers.items():
            said = worker.ask(do="tell")
            if "error" in said:
                tell(said["error"])
            else:
                ready[name] = (worker, said["columns"])
        yield ready
