"""The simulated app goes through Router, SDK and API, pays what is billed, and comes out alike every time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.quality.simtime import SimulatedLoop
from benchmarks.quality.simulation import TIERS, WAYS, Known, Run, plot, set_apart, simulate
from benchmarks.quality.world import tasks_of
from tests.quality.recorded import write
from tierline.classify import LocalClassifier

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.quality.world import Task

CALLS = 60


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    return tasks_of(write(tmp_path_factory.mktemp("data")), TIERS)


@pytest.fixture(scope="module")
def known(tasks: list[Task]) -> Known:
    """The shipped weights stand for those that have not seen a text: these prompts they have not."""
    shipped = LocalClassifier()
    return Known({task.prompt: shipped for task in tasks}, set_apart(tasks)[0])


def run_of(name: str, known: Known, tasks: list[Task], seed: int = 0, **more: Any) -> Run:
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        options = {**WAYS[name](known), **more}
        return runner.run(simulate(options, tasks, seed, CALLS, bandit=name.startswith("epsilon")))


def test_the_ends_are_what_is_recorded(known: Known, tasks: list[Task]) -> None:
    """The top tier's answers are all good and the dearest; the cheapest has no worse regret than what it loses."""
    top, cheap = run_of("always the top tier", known, tasks), run_of("always the cheapest", known, tasks)
    assert top.good[-1] == CALLS
    assert cheap.good[-1] < CALLS
    assert cheap.cost[-1] < top.cost[-1]
    assert top.regret[-1] > 0
    assert sorted(top.regret) == top.regret


def test_the_same_seed_plays_the_same(known: Known, tasks: list[Task]) -> None:
    """Clocks and chance are the simulation's own: costs and regrets are equal to the last digit."""
    name = "a Router that learns, 1% explored"
    assert run_of(name, known, tasks) == run_of(name, known, tasks)
    assert run_of(name, known, tasks, seed=1) != run_of(name, known, tasks)


def test_a_router_learns_from_what_the_app_grades(known: Known, tasks: list[Task]) -> None:
    """After grades of both tiers it sends the easy route down and the others up: nearly all good, not all dear."""
    asked = set_apart(tasks)[1]
    taught = run_of("the same, 30 graded first", known, asked)
    top = run_of("always the top tier", known, asked)
    assert taught.good[-1] >= 0.9 * CALLS
    assert taught.cost[-1] < 0.9 * top.cost[-1]


def test_the_bandit_pins_its_tiers(known: Known, tasks: list[Task]) -> None:
    """It begins with the cheapest, so it pays less than the top tier, and is better than the cheapest in the end."""
    found = run_of("epsilon-greedy by route", known, tasks)
    assert found.cost[-1] < run_of("always the top tier", known, tasks).cost[-1]
    assert found.good[-1] > run_of("always the cheapest", known, tasks).good[-1]


def test_the_picture_is_the_same_every_time(known: Known, tasks: list[Task], tmp_path: Path) -> None:
    """Nothing in it tells when or where it was drawn."""
    found = {name: run_of(name, known, tasks) for name in ("always the top tier", "static rules")}
    one, other = tmp_path / "one.svg", tmp_path / "other.svg"
    plot(found, one)
    plot(found, other)
    assert one.read_bytes() == other.read_bytes()
    assert b"static rules" in one.read_bytes()
