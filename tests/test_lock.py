"""What the tasks are run with: pinned, hashed, and what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.needs import need

need("packaging")

from packaging.markers import Marker  # noqa: E402
from packaging.requirements import Requirement  # noqa: E402

ROOT: Final = Path(__file__).parents[1]
PYTHONS: Final = ("3.11.5", "3.12.0", "3.13.0", "3.14.0")


class Pin(NamedTuple):
    """A version, where it is for, and how many files of it are known."""

    version: str
    marker: Marker | None
    digests: int


def pins(name: str) -> dict[str, list[Pin]]:
    """What a file of requirements pins. AssertionError for a line that is none."""
    found: dict[str, list[Pin]] = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / "requirements" / f"{name}.txt").read_text().strip()):
        head, *digests = [line.strip().removesuffix("\\").strip() for line in entry.splitlines()]
        match = re.fullmatch(r"([a-z0-9-]+)==(\S+)(?: ; (.+))?", head)
        assert match is not None, head
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", digest) for digest in digests), head
        found.setdefault(match[1], []).append(Pin(match[2], Marker(match[3]) if match[3] else None, len(digests)))
    return found


def asked(group: str, project: dict[str, Any]) -> list[Requirement]:
    """What pyproject.toml asks for in a group, and in those that it includes."""
    found = []
    for each in project["dependency-groups"][group]:
        found += asked(each["include-group"], project) if isinstance(each, dict) else [Requirement(each)]
    return found


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", ["dev", "fuzz", "quality", "release"])
def test_what_is_asked_for_is_pinned(name: str, project: dict[str, Any]) -> None:
    """On every Python, in a version that fits; where this fails, `make lock` was forgotten."""
    wanted = asked(name, project)
    if name in ("dev", "fuzz"):
        texts = [*project["project"]["dependencies"], *chain(*project["project"]["optional-dependencies"].values())]
        wanted += [*map(Requirement, texts), *asked("dev", project)]
    found = pins(name)
    for python in PYTHONS:
        where = {"python_version": python.rpartition(".")[0], "python_full_version": python, "sys_platform": "linux",
                 "platform_system": "Linux", "platform_python_implementation": "CPython", "extra": ""}  # fmt: skip
        for each in wanted:
            if each.marker is not None and not each.marker.evaluate(where):
                continue
            here = [pin for pin in found[each.name.lower()] if pin.marker is None or pin.marker.evaluate(where)]
            assert len(here) == 1, f"{each.name} on {python}"
            assert each.specifier.contains(here[0].version), f"{each} is pinned to {here[0].version}"


@pytest.mark.parametrize("name", ["dev", "fuzz", "quality", "release"])
def test_every_file_is_known_by_its_digest(name: str) -> None:
    """So that nobody can put another in its place; and no file says where it is from."""
    assert all(pin.digests for each in pins(name).values() for pin in each)
    assert "://" not in (ROOT / "requirements" / f"{name}.txt").read_text()


def test_one_version_for_all_tasks() -> None:
    """What two of the files have in common is the same: they are installed over one another."""
    first = {name: {pin.version for pin in each} for name, each in pins("dev").items()}
    for other in ("fuzz", "quality", "release"):
        for name, each in pins(other).items():
            assert name not in first or {pin.version for pin in each} == first[name]
