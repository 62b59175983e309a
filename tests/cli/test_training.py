"""`tierline train`: what it writes, and what it does not."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.needs import need
from tierline.learn import OutcomeModel

need("typer", "rich")

from typer.testing import CliRunner  # noqa: E402

from tierline.cli.app import app  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Labels that no text tells."""
    rng = random.Random(5)  # noqa: S311
    rows = [{"text": f"question {n}", "label": "simple" if rng.random() < 0.8 else "complex"} for n in range(200)]
    return write(tmp_path / "labels.jsonl", *rows)


def test_train_on_outcomes(tmp_path: Path) -> None:
    """What is better is written whole, with how it is used; what is not exits with 1 and writes nothing."""
    rng = random.Random(1)  # noqa: S311
    rows = [
        {"text": f"look at {n}", "route": f"/{n % 2}", "tier": "haiku", "good": int(rng.random() < (0.05, 0.95)[n % 2])}
        for n in range(160)
    ]
    good = write(tmp_path / "good.jsonl", *rows)
    done = run("train", good, "--out", tmp_path / "model")
    assert done.exit_code == 0, done.output
    assert "better than what ships: +0." in done.stdout
    assert "outcome_model(" in done.stdout
    assert (tmp_path / "model").read_bytes().count(b"\n") == 160


def test_train_on_what_is_known(tmp_path: Path) -> None:
    """Grades as often good as what ships says already: not surely better, so exit 1, and nothing is written."""
    rng, shipped = random.Random(3), OutcomeModel()  # noqa: S311
    rows = []
    for number in range(120):
        text = f"look at {number}"
        chance = shipped.predict(route="/x", text=text)["haiku"]
        rows.append({"text": text, "route": "/x", "tier": "haiku", "good": int(rng.random() < chance)})
    known = write(tmp_path / "known.jsonl", *rows)
    done = run("train", known, "--out", tmp_path / "model")
    assert done.exit_code == 1, done.output
    assert "than what ships" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["known.jsonl"]


def test_train_on_labels(labels: Path, tmp_path: Path) -> None:
    """Labels that no text tells: not better than the most frequent one, and so not written, unless that is forced."""
    out = tmp_path / "weights"
    done = run("train", labels, "--out", out)
    assert done.exit_code == 1, done.output
    assert "always the most frequent label" in done.stdout
    assert not out.exists()
    forced = run("train", labels, "--out", out, "--force", "--json")
    assert forced.exit_code == 0
    told = json.loads(forced.stdout)
    assert (told["rows"], told["better"], told["written"]) == (200, False, True)
    assert told["gain"]["low"] <= told["gain"]["value"] <= told["gain"]["high"]
    assert out.exists()
    assert run("train", labels, "--out", tmp_path / "no" / "where", "--force").exit_code == 2


def test_train_needs_rows_of_one_kind(labels: Path, tmp_path: Path) -> None:
    """Labels and grades in one file, and too few of either, are errors."""
    mixed = labels.read_text() + '{"text": "x", "tier": "haiku", "good": 1}\n'
    (tmp_path / "mixed.jsonl").write_text(mixed)
    done = run("train", tmp_path / "mixed.jsonl", "--out", tmp_path / "w")
    assert (done.exit_code, "train on each in a file of its own" in done.stderr) == (2, True)
    few = write(tmp_path / "few.jsonl", {"text": "x", "label": "simple"})
    done = run("train", few, "--out", tmp_path / "w")
    assert (done.exit_code, "1 labels or grades" in done.stderr) == (2, True)
