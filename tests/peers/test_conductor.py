"""Workers are real processes: told what to do over a pipe, and told of when they fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.peers.column import World
from benchmarks.peers.conductor import FEWEST, Turn, environment, measure, started
from benchmarks.peers.rows import PLAIN, ROWS
from benchmarks.upstream import running
from tests.needs import need

if TYPE_CHECKING:
    from collections.abc import Iterator

need("uvloop")
need("aiohttp")

CREATE = ROWS[0]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running() as url:
        yield World(url, None, str(tmp_path))


def test_a_worker_measures_what_it_is_told_to(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every round has a block of each column; what its calls did is told; and a column that fails is left out."""
    with started({"tierline": Path(sys.executable)}, world, tmp_path, pytest.fail) as workers:
        worker, columns = workers["tierline"]
        chosen = [each for each in columns if each["name"] in (PLAIN, "Tierline")]
        order = [columns.index(each) for each in chosen]
        turn = Turn(worker, columns, CREATE)
        turn.order = [*order, len(columns)]
        turn.columns = [*columns, {"name": "nobody", "kinds": ["create"], "also": []}]
        turn.begin(set())
        turn.round()
        turn.round()
        assert turn.part.did[PLAIN] == "answered"
        assert "haiku by cache" in turn.part.did["Tierline"]
        assert "on 2 budgets" in turn.part.did["Tierline"]
        assert turn.part.failed == {"nobody": "IndexError: list index out of range"}
        assert [set(each) for each in turn.part.rounds] == [{PLAIN, "Tierline"}] * 2
        assert all(block["cpu"] > 0 and block["beside"] == 0 for each in turn.part.rounds for block in each.values())
        rest = [each | {"kinds": []} for each in columns if each not in chosen]
        (part,) = measure(CREATE, {"tierline": (worker, [*chosen[:1], *rest])}, 0, set())
        assert len(part.rounds) == FEWEST
        monkeypatch.setattr("benchmarks.peers.conductor.LATE", -1.0)
        (part,) = measure(CREATE, {"tierline": (worker, [*chosen[:1], *rest])}, 0, set())
        assert len(part.rounds) == 1
        (part,) = measure(CREATE, {"tierline": (worker, [*chosen[:1], *rest])}, 0, {(PLAIN, "create", 1_000)})
        assert part.failed == {PLAIN: "left out: too slow one at a time"}
    assert worker.process.returncode == 0


def test_a_worker_that_does_not_start_is_told(world: World, tmp_path: Path) -> None:
    """With what it said last; the others are measured."""
    told: list[str] = []
    with started({"nobody": Path(sys.executable)}, world, tmp_path, told.append) as workers:
        assert workers == {}
    (said,) = told
    assert said.startswith("the worker nobody is gone: ModuleNotFoundError")
    assert "benchmarks.peers.columns.nobody" in said


def test_a_worker_that_dies_on_the_way_is_told(world: World, tmp_path: Path) -> None:
    """Its columns are left out from then on, and nothing waits for it."""
    with started({"tierline": Path(sys.executable)}, world, tmp_path, pytest.fail) as workers:
        worker, columns = workers["tierline"]
        worker.process.kill()
        (part,) = measure(CREATE, {"tierline": (worker, columns[:2])}, 0, set())
    assert len(part.failed) == 2
    assert all("the worker tierline is gone" in why for why in part.failed.values())


def test_what_is_measured_writes_bytecode_and_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches of whoever runs it are not those of what is measured."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    found = environment()
    assert "PYTHONDONTWRITEBYTECODE" not in found
    assert "OTEL_TRACES_EXPORTER" not in found
    assert found["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert found["PATH"] == os.environ["PATH"]
