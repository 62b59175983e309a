"""What was measured is held against what was aimed at, and the page is written from nothing else."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from benchmarks.quality.__main__ import PARTS, main, page
from benchmarks.quality.figures import TARGETS, exactly, keep, kept, targets
from tierline.evaluation.intervals import Interval

if TYPE_CHECKING:
    from pathlib import Path


def kept_in(at: Path, commit: str) -> None:
    for part in PARTS:
        (at / f"{part.name}.json").write_text(json.dumps({"text": f"<{part.name}>", "commit": commit}))


def test_each_target_is_met_or_missed_by_its_figure() -> None:
    """The value decides, and where the target says so the lower bound too; what was not measured is said to be so."""
    whole = Interval(0.74, 0.62, 0.8)
    low = Interval(0.74, 0.6, 0.8)
    (first,) = [target for target in TARGETS if "lower bound" in target.said]
    for figure, said in ((whole, "| met |"), (low, "| **missed** |"), (exactly(0.72), "| **missed** |")):
        (line,) = [line for line in targets({first.figure: figure}).splitlines() if line.startswith(f"| {first.what}")]
        assert line.endswith(said)
    assert targets({}).count("not measured") == len(TARGETS)


def test_what_is_dearer_than_its_target_is_missed() -> None:
    """Of times and errors, less is better; they are shown with as many digits as they have."""
    found = targets({"time: median": exactly(120.4), "time: p95": exactly(799.6), "unseen prompts: ECE": exactly(0.05)})
    assert "| ≤ 120 | 120 | **missed** |" in found
    assert "| ≤ 800 | 800 | met |" in found
    assert "| ≤ .05 | 0.050 | met |" in found


def test_figures_pass_through_a_file(tmp_path: Path) -> None:
    """And nobody need want them."""
    figures = {"one": Interval(0.5, 0.4, 0.6), "other": exactly(3)}
    keep(tmp_path / "part.figures", figures)
    assert kept(tmp_path / "part.figures") == figures
    keep(None, figures)


def test_the_page_is_of_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the table of targets and each part in its place; a part of another commit says of which."""
    monkeypatch.setattr("benchmarks.quality.__main__.commit", lambda: "abc1234")
    kept_in(tmp_path, "abc1234")
    keep(tmp_path / "text.figures", {"own labels: unseen prompts": Interval(0.83, 0.8, 0.86)})
    found = page(tmp_path)
    assert "commit abc1234" in found
    assert "| ≥ .82 | 0.830 [0.800, 0.860] | met |" in found
    places = [found.index(f"## {part.title}\n") for part in PARTS]
    assert places == sorted(places)
    assert all(f"<{part.name}>" in found for part in PARTS)
    assert "Measured at commit" not in found
    (tmp_path / "text.json").write_text(json.dumps({"text": "<text>", "commit": "0ld0000"}))
    assert page(tmp_path).count("Measured at commit 0ld0000.") == 1


def test_only_the_parts_that_are_named_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are taken from where they were kept, and as long as one is missing there is no page."""
    ran: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0, "<new>")

    monkeypatch.setattr("benchmarks.quality.__main__.subprocess.run", run)
    store, out = tmp_path / "kept", tmp_path / "page.md"
    line = ["quality", "--data", str(tmp_path), "--keep", str(store), "--out", str(out), "--parts", "pace"]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(SystemExit, match="text, labels, routes, simulation, peers not measured yet"):
        main()
    assert not out.exists()
    kept_in(store, "0ld0000")
    main()
    assert [command[2] for command in ran if "-m" in command] == ["benchmarks.quality.pace"] * 2
    assert "<new>" in out.read_text()
    assert "<text>" in out.read_text()
