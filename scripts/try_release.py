"""Build what is released, twice, and try it in clean environments: `make release-check`.

From the last commit, not from the working tree. In `dist/` it leaves the wheel, the sdist, their digests and the bill
of materials of an installation. Pythons are looked for on the path and among pyenv's.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
WALKS: Final = (ROOT / "scripts" / "smoke.py", ROOT / "scripts" / "newcomer.py")
EXTRAS: Final = ("aiohttp", "cli", "fastapi", "redis", "testing", "tracing")
"""Those that are tried; `plots` brings matplotlib, which is not ours to try."""
UV: Final = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python")
"""Installs into an environment of another Python, which needs no pip in it."""
MINORS: Final = (11, 12, 13, 14)


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Run, and give what it printed. SystemExit with all of it where it fails."""
    environment = {**os.environ, **(env or {})}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(  # noqa: S603  (our own commands)
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def pythons() -> dict[tuple[int, int], Path]:
    """Those of the supported versions that can be had here, the lowest first."""
    found: dict[tuple[int, int], Path] = {}
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for minor in MINORS:
        places = [*sorted(home.glob(f"versions/3.{minor}.*/bin/python")), shutil.which(f"python3.{minor}")]
        for place in filter(None, places):
            told = subprocess.run(  # noqa: S603
                [str(place), "-c", "import ensurepip, sys; print(*sys.version_info[:2])"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if told.stdout.split() == ["3", str(minor)]:
                found[3, minor] = Path(place)
                break
    return found


def lowest(project: dict[str, Any]) -> list[str]:
    """Every lower bound that the package declares, as a pin."""
    wanted = [*project["dependencies"]]
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    pins: dict[str, str] = {}
    for requirement in wanted:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)", requirement)
        if match is None:
            sys.exit(f"{requirement!r} has no lower bound alone")
        pins[match[1]] = f"{match[1]}=={match[2]}"
    return sorted(pins.values())


def build(target: Path) -> list[Path]:
    """The wheel and the sdist of the last commit, built from two checkouts; the bytes must be the same."""
    epoch = run("git", "log", "-1", "--format=%ct").strip()
    digests: list[dict[str, str]] = []
    for number in range(2):
        with tempfile.TemporaryDirectory() as name:
            checkout = Path(name)
            run("git", "archive", "--format=tar", "-o", checkout / "source.tar", "HEAD")
            (checkout / "source").mkdir()
            run("tar", "-xf", checkout / "source.tar", "-C", checkout / "source")
            out = target if number == 0 else checkout / "dist"
            command = (sys.executable, "-m", "build", "--outdir", out, checkout / "source")
            run(*command, env={"SOURCE_DATE_EPOCH": epoch})
            digests.append({path.name: digest(path) for path in sorted(out.iterdir())})
    if digests[0] != digests[1]:
        sys.exit(f"two builds differ: {digests}")
    (target / "SHA256SUMS").write_text("".join(f"{said}  {name}\n" for name, said in digests[0].items()), "utf-8")
    print(f"built twice, the same bytes: {', '.join(digests[0])}")
    return [next(target.glob("*.whl")), next(target.glob("*.tar.gz"))]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def install(python: Path, directory: Path, archive: Path, pins: list[str]) -> Path:
    """An environment with the archive, its extras, and nothing else."""
    run(python, "-m", "venv", "--without-pip", directory)
    inside = directory / "bin" / "python"
    wanted = f"tierline[{','.join(EXTRAS)}] @ {archive.resolve().as_uri()}"
    run(*UV, inside, wanted, *pins)
    return inside


def walk(inside: Path, *more: str) -> None:
    """Walk through the installation, from somewhere where the repository is not."""
    run(*UV, inside, "pytest", *more)
    for script in WALKS:
        with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as empty:
            print(run(inside, "-I", shutil.copy(script, name), cwd=Path(empty)), end="")


def main() -> None:
    """Build, try, and write the bill of materials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where what is released is left")
    target: Path = parser.parse_args().dist.resolve()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    wheel, sdist = build(target)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = pythons()
    first, last = min(known), max(known)
    cases: list[tuple[str, tuple[int, int], Path, list[str]]] = [
        ("lowest versions on the lowest Python", first, wheel, lowest(project)),
        ("newest versions on the newest Python", last, wheel, []),
        ("the sdist", sorted(known)[len(known) // 2], sdist, []),
    ]
    for title, version, archive, pins in cases:
        print(f"{title}:")
        with tempfile.TemporaryDirectory() as name:
            inside = install(known[version], Path(name), archive, pins)
            if archive == wheel and not pins:
                bill = target / "tierline.sbom.cdx.json"
                tool = ("cyclonedx-py", "environment", "--output-reproducible", "--of", "JSON", "-o", bill, inside)
                run(Path(sys.executable).parent / tool[0], *tool[1:])
                print(f"  bill of materials: {bill.name}")
            # The test client of old versions of Starlette asks for it, and says so.
            walk(inside, *(["httpx"] if pins else []))


if __name__ == "__main__":
    main()
