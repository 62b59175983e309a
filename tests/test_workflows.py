"""What the forge runs: the commands that people run, nothing that may move, and no right that is not needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.needs import need

need("yaml")

import yaml  # noqa: E402

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml")) if (ROOT / ".github").is_dir() else []
pytestmark = pytest.mark.skipif(not FILES, reason="an sdist has no workflows")


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))
    return found


def steps(name: str, job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read(name)["jobs"][job]["steps"]
    return found


def runs(name: str, job: str) -> str:
    return "\n".join(step.get("run", "") for step in steps(name, job))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_moves_and_nothing_is_given(path: Path) -> None:
    """Each action is a commit, with its version beside it; a job has the rights that it names, and an end."""
    text = path.read_text("utf-8")
    used = re.findall(r"uses: (.*)", text)
    assert used
    for each in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", each), each
    assert yaml.safe_load(text)["permissions"] == {}
    assert "secrets." not in text
    assert "pull_request_target" not in text
    for job in yaml.safe_load(text)["jobs"].values():
        assert job["permissions"] in ({"contents": "read"}, {"id-token": "write"})
        assert job["timeout-minutes"]
    # What comes from outside is no part of a command.
    assert not re.search(r"run:.*\$\{\{", text)


def test_what_is_checked_is_what_people_check() -> None:
    """CI runs the file that a person runs, on the lowest and the newest Python of the classifiers."""
    assert ".ci/run" in runs("ci.yml", "check")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    known = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text("utf-8"))
    assert read("ci.yml")["jobs"]["check"]["strategy"]["matrix"]["python"] == [known[0], known[-1]]


def test_a_release_is_made_as_it_is_written_down() -> None:
    """The commands are those of RELEASING.md; who builds cannot upload, and who uploads has not the source."""
    told = (ROOT / "RELEASING.md").read_text("utf-8")
    built = runs("release.yml", "build")
    (command,) = (line for line in built.splitlines() if "SOURCE_DATE_EPOCH" in line)
    epoch, _, rest = command.partition(") ")
    assert f"`{epoch})`" in told
    assert f"`{rest}`" in told
    tried = runs("release.yml", "try")
    assert "scripts.try_release" in tried
    assert "sha256sum --check" in tried
    for name in ("build", "try"):
        assert "requirements/release.txt" in runs("release.yml", name)
        assert read("release.yml")["jobs"][name]["permissions"] == {"contents": "read"}
    publish = read("release.yml")["jobs"]["publish"]
    assert set(publish["needs"]) == {"build", "try"}
    assert publish["environment"] == "pypi"
    assert "`pypi`" in told
    assert publish["permissions"] == {"id-token": "write"}
    assert [step["uses"].split("@")[0] for step in publish["steps"]] == [
        "actions/download-artifact", "pypa/gh-action-pypi-publish",
    ]  # fmt: skip
    assert publish["steps"][-1]["with"]["attestations"] is True
