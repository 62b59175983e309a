"""Every environment has exact versions, and a module of columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers import environments

HASH = "--hash=sha256:abc"
COLUMNS = Path(environments.__file__).with_name("columns")


@pytest.mark.parametrize("name", environments.NAMES)
def test_pins_are_exact(name: str) -> None:
    """What is wanted has one version each, and so has all that comes with it."""
    pins = environments.pins(name)
    wanted = (environments.REQUIREMENTS / f"{name}.in").read_text().splitlines()
    assert {line.partition("[")[0] for line in wanted} <= set(pins)
    assert all(version[0].isdigit() for version in pins.values())
    assert (COLUMNS / f"{name}.py").is_file()


def test_the_plain_sdk_is_the_same_beside_every_peer() -> None:
    """Ratios to it could not be set beside each other otherwise."""
    found = {environments.pins(name)["anthropic"] for name in environments.NAMES}
    assert len(found) == 1


@pytest.mark.parametrize(
    "line",
    [f"litellm>=1 {HASH}", f"litellm {HASH}", f"litellm==1.* {HASH}", f"litellm==1.0,<2 {HASH}", "litellm==1.0",
     "litellm==1.0 --hash=md5:abc"],
)  # fmt: skip
def test_a_range_is_no_pin(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that leaves a choice is refused, and named."""
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    (tmp_path / "peer.txt").write_text(f"uvloop==1.0 \\\n    {HASH}\n{line}\n")
    with pytest.raises(ValueError, match=r"peer\.txt: .*no exact version"):
        environments.pins("peer")


def test_an_environment_is_of_its_file(tmp_path: Path) -> None:
    """It is made anew when a version has changed, and when it was not finished."""
    assert list(environments.missing(tmp_path)) == list(environments.NAMES)
    for name in environments.NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / ".made").write_text((environments.REQUIREMENTS / f"{name}.txt").read_text())
    assert list(environments.missing(tmp_path)) == []
    (tmp_path / "litellm" / ".made").write_text("litellm==1.0\n")
    assert list(environments.missing(tmp_path)) == ["litellm"]
