"""What is installed has all that the package reads: scripts of Redis, the page, weights, the mark of types."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.needs import need

need("hatchling")

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"


def test_the_wheel_is_the_package(tmp_path: Path) -> None:
    """Every file of the source is in it, to the byte, and nothing else but what says what it is."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        found = {name: file.read(name) for name in file.namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(SOURCE).as_posix(): path.read_bytes()
        for path in SOURCE.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and not any(part.endswith(".egg-info") for part in path.parts)
    }
    assert found == wanted
    assert {".py", ".lua", ".js", ".css", ".html", ".svg", ".weights"} <= {Path(name).suffix for name in found}
    assert "tierline/py.typed" in found
