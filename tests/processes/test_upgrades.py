"""Two versions on one store, while one takes the place of the other: no money is lost, doubled or overspent."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from tests.processes.rolling import SOURCES, before, deploy, later
from tests.processes.stores import fresh, store
from tests.processes.storm import ROOT, Storm, reckon

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["fresh", "store"]

LEASE: Final = 300.0


async def proved(url: str, storm: Storm) -> None:
    """Nobody failed, each version had its share of the work, and the ledger has what everybody wrote down."""
    assert set(storm.codes) <= {0, -9}
    assert storm.killed >= 3
    found = await reckon(url, storm, lease=LEASE)
    assert found["admitted"] > 100
    turns = Counter(note["key"].partition("-")[0] for note in storm.of("settled"))
    assert min(turns[turn] for turn in "0123") > 20


async def test_a_deploy_back_and_forth(store: str, tmp_path: Path) -> None:
    """A version with an additive step more in both stores; processes of this one go on, and start, beside it."""
    newer = later(tmp_path / "later")
    turns = [SOURCES, newer, SOURCES, newer]
    await proved(store, deploy(store, turns, tmp_path, slots=2, calls=150, total=5, lease=LEASE, seed=3))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
async def test_a_deploy_over_the_version_before(store: str, tmp_path: Path, seed: int) -> None:
    """The version before, as it is in the history, and this one."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("there is no history here to take the version before from")
    old = before(tmp_path / "before")
    turns = [old, SOURCES, old, SOURCES]
    await proved(store, deploy(store, turns, tmp_path, slots=4, calls=300, total=12, lease=LEASE, seed=seed))
