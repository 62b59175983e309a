"""Tells the workers by turns to run their blocks, and keeps what they say."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.peers.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.peers.column import World
    from benchmarks.peers.rows import Row

ROOT: Final = Path(__file__).resolve().parents[2]
FEWEST: Final = 4
"""Rounds of each row, whatever the time."""
SLOW: Final = 4.0
"""Seconds of a block, from which on its column is left out of a row."""
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
        """One request. RuntimeError with the end of its log where the worker is gone."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            said = self.log.read_text(errors="replace").strip().splitlines()
            raise RuntimeError(f"the worker {self.name} is gone: {said[-1] if said else 'it said nothing'}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it, with what it started."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def environment() -> dict[str, str]:
    """Of a process that is measured: the tree's own modules, bytecode as always, and nothing of ours in the peers."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "OTEL_", "TIERLINE_"))}
    mine["PYTHONPATH"] = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    mine["PYTHONHASHSEED"] = "0"
    return mine


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
        self.had = 0.0

    def begin(self) -> None:
        """Warm up, and throw a block of each away. Columns that do not do the thing are told, and left out."""
        for number in list(self.order):
            name = self.columns[number]["name"]
            said = self.worker.ask(do="check", column=number, row=self.number)
            if "error" not in said:
                self.part.did[name] = said["did"]
                if said["seconds"] * self.part.row.calls > SLOW:
                    self._lost(number, f"left out: {self.part.row.calls} calls take more than {SLOW:g} s")
                    continue
                said = self.worker.ask(do="block", column=number, row=self.number)
            if "error" in said:
                self._lost(number, said["error"])

    def round(self) -> None:
        """A block of each column, in shuffled order."""
        began, first = time.monotonic(), not self.part.rounds
        self.part.rounds.append({})
        random.shuffle(self.order)
        for place, number in enumerate(list(self.order)):
            said = self.worker.ask(do="block", column=number, row=self.number, first=first and not place)
            if "error" in said:
                self._lost(number, said["error"])
            else:
                self.part.rounds[-1][self.columns[number]["name"]] = said
        self.had += (time.monotonic() - began) / WEIGHTS.get(self.worker.name, 1.0)

    def _lost(self, number: int, why: str) -> None:
        self.order.remove(number)
        self.part.failed[self.columns[number]["name"]] = why


def measure(row: Row, workers: Mapping[str, tuple[Worker, Sequence[Mapping[str, Any]]]], seconds: float) -> list[Part]:
    """Rounds of one row for about `seconds`, each of the worker that has had the least of them."""
    turns = [Turn(worker, columns, row) for worker, columns in workers.values()]
    turns = [turn for turn in turns if turn.order]
    for turn in turns:
        turn.begin()
    ends = time.monotonic() + seconds
    while turns:
        turn = min(turns, key=lambda each: each.had)
        if time.monotonic() > ends:
            short = [each for each in turns if each.order and len(each.part.rounds) < FEWEST]
            if not short:
                break
            turn = short[0]
        turn.round()
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
            try:
                ready[name] = (worker, worker.ask(do="tell")["columns"])
            except RuntimeError as error:
                tell(f"{name}: {error}")
        yield ready


if sys.platform != "linux":
    raise SystemExit("the peers are measured on Linux: the CPU time of a proxy is read by a clock that is there")
