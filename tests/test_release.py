"""What is released: the wheel and the sdist, byte by byte the same, with all that is needed and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.needs import need
from tierline import __version__
from tierline.dashboard.files import STATIC

if TYPE_CHECKING:
    from email.message import Message

need("hatchling")

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


class Built(NamedTuple):
    """A wheel and an sdist: their files by name, without the directory that all of an sdist's are in."""

    wheel: dict[str, bytes]
    sdist: dict[str, bytes]
    digests: set[tuple[str, str]]

    def metadata(self) -> Message:
        return message_from_string(self.wheel[f"tierline-{__version__}.dist-info/METADATA"].decode())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both, built twice."""
    digests: set[tuple[str, str]] = set()
    for _ in range(2):
        target = tmp_path_factory.mktemp("dist")
        subprocess.run(  # noqa: S603  (our own interpreter)
            [sys.executable, "-m", "hatchling", "build", "-d", str(target)],
            cwd=ROOT, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        )  # fmt: skip
        digests |= {(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in target.iterdir()}
    with zipfile.ZipFile(next(target.glob("*.whl"))) as file:
        wheel = {name: file.read(name) for name in file.namelist()}
    with tarfile.open(next(target.glob("*.tar.gz"))) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        sdist = {member.name.partition("/")[2]: archive.extractfile(member).read() for member in files}  # type: ignore[union-attr]
    return Built(wheel, sdist, digests)


def sources() -> set[str]:
    """The files of the package that are no leftovers of a tool, by their name in the wheel."""
    found = (path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(SOURCE).as_posix() for path in found if ".egg-info" not in str(path)}


def test_the_same_source_gives_the_same_bytes(built: Built) -> None:
    """Two builds of a wheel and of an sdist differ in nothing."""
    assert len(built.digests) == 2


def test_the_wheel_has_the_package_and_nothing_else(built: Built) -> None:
    """Every file of `src`: code, types, Lua, weights, the dashboard. No test, no script, no cache."""
    package = {name for name in built.wheel if ".dist-info/" not in name}
    assert package == sources()
    for name in package:
        assert built.wheel[name] == (SOURCE / name).read_bytes(), name
    assert {Path(name).suffix for name in package} >= {".py", ".lua", ".weights", ".js", ".css", ".html"}
    assert {name.partition("/")[0] for name in package} == {"tierline", "pytest_tierline.py"}
    assert "tierline/py.typed" in package


def test_licences_come_with_what_they_are_for(built: Built) -> None:
    """Ours and that of everything vendored, named in the metadata."""
    metadata = built.metadata()
    vendored = sorted(path.name for path in (STATIC / "vendor").glob("*.LICENSE.txt"))
    assert len(vendored) == 2
    found = {name.partition("/licenses/")[2] for name in built.wheel if "/licenses/" in name}
    assert {Path(name).name for name in found} == {"LICENSE", *vendored}
    assert set(metadata.get_all("License-File", [])) == found
    assert metadata["License-Expression"] == "Apache-2.0 AND MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Version"] == __version__


def test_the_long_description_leads_somewhere(built: Built) -> None:
    """It is the README; links lead to the same files at the release's tag, and pictures to their bytes."""
    page = built.metadata().get_payload()
    assert isinstance(page, str)
    assert built.metadata()["Description-Content-Type"] == "text/markdown"
    assert not re.findall(r"\]\((?!https?:|#|mailto:)[^)]*\)", page)
    forge = f"https://github.com/tierline/tierline/{{}}/v{__version__}/"
    for kind, image in (("raw", "!"), ("blob", "")):
        targets = re.findall(rf"(?<!!){image}\[[^\]]*\]\({re.escape(forge.format(kind))}([^)#]+)", page)
        assert targets
        assert not [target for target in targets if not (ROOT / target).is_file()]
    assert page.replace(forge.format("raw"), "").replace(forge.format("blob"), "") == (ROOT / "README.md").read_text()


def test_the_bill_of_materials(built: Built) -> None:
    """It is in the wheel, and has every vendored file with its digest and its version."""
    bill = json.loads(built.wheel[f"tierline-{__version__}.dist-info/sboms/tierline.cdx.json"])
    told = {file["name"]: file["hashes"][0]["content"] for part in bill["components"] for file in part["components"]}
    vendor = STATIC / "vendor"
    there = {
        f"tierline/dashboard/static/vendor/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.iterdir()
        if path.suffix != ".txt"
    }
    assert told == there
    said = (vendor / "README.txt").read_text("utf-8").casefold()
    for part in bill["components"]:
        assert f"{part['name']} {part['version']}, {part['licenses'][0]['license']['id']}".casefold() in said
    assert bill["metadata"]["component"]["licenses"] == [{"expression": "Apache-2.0 AND MIT"}]


def test_the_sdist_can_be_tested(built: Built) -> None:
    """It has the source, the tests and what they read, and no leftovers."""
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "CONTRIBUTING.md",
                 "RELEASING.md", "Makefile", ".importlinter", "src/pytest_tierline.py", "tests/conftest.py",
                 "docs/testing.md", "docs/monitoring/alerts.yml", "sboms/tierline.cdx.json"):  # fmt: skip
        assert built.sdist[name] == (ROOT / name).read_bytes(), name
    assert not [name for name in built.sdist if "__pycache__" in name or name.endswith((".pyc", ".db"))]


def test_entry_points(built: Built) -> None:
    """The command, and the plugin of pytest."""
    text = built.wheel[f"tierline-{__version__}.dist-info/entry_points.txt"].decode()
    assert text == "[console_scripts]\ntierline = tierline.cli:main\n\n[pytest11]\ntierline = pytest_tierline\n"


def test_nothing_runs_when_it_is_installed(built: Built) -> None:
    """No file that every interpreter runs at its start, no code of an installer's, no programs of a wheel's own."""
    names = set(built.wheel)
    assert not [name for name in names if name.endswith(".pth") or name.startswith(f"tierline-{__version__}.data/")]
    assert not [name for name in names if Path(name).name in ("sitecustomize.py", "usercustomize.py", "setup.py")]
    assert {name.partition("/")[0] for name in names} == {
        "tierline", "pytest_tierline.py", f"tierline-{__version__}.dist-info",
    }  # fmt: skip
    assert not [name for name in built.sdist if name in ("setup.py", "setup.cfg") or name.endswith(".pth")]
