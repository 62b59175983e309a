"""An environment for each peer, with exactly the versions that stand in `requirements`.

    python -m benchmarks.peers.environments DIR [--lock]

Each `NAME.in` says what is wanted, and `NAME.txt`, made of it by `--lock`, names every package that comes with it. An
environment is made anew when its file has changed. All of them take about 0.9 GB, most of it LiteLLM's proxy.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUIREMENTS: Final = Path(__file__).with_name("requirements")
NAMES: Final = ("tierline", "server", "openllmetry", "openinference", "pydantic_ai", "litellm")
"""In the order in which they are shown; each has a module of columns."""
_MADE: Final = ".made"


def pins(name: str) -> dict[str, str]:
    """Each package of an environment with its version. ValueError for a line that is no exact pin with its hashes."""
    found = {}
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    for line in text.replace("\\\n", "").splitlines():
        pin, *hashes = line.split()
        package, exact, version = pin.partition("==")
        inexact = not exact or not version or set(version) & set("*,;<>!~=")
        if inexact or not hashes or any(not each.startswith("--hash=sha256:") for each in hashes):
            raise ValueError(f"{name}.txt: {line[:80]!r} is no exact version with its hashes")
        found[package] = version
    return found


def python_of(folder: Path, name: str) -> Path:
    """The interpreter of an environment."""
    return folder / name / "bin" / "python"


def is_ready(folder: Path, name: str) -> bool:
    """Whether it is there, and of the file as it is now."""
    made = folder / name / _MADE
    return made.is_file() and made.read_text() == (REQUIREMENTS / f"{name}.txt").read_text()


def missing(folder: Path) -> Iterator[str]:
    """Those that are not ready."""
    return (name for name in NAMES if not is_ready(folder, name))


def make(folder: Path, name: str) -> None:
    """Make one anew. CalledProcessError where it cannot be installed, and then it is not there."""
    shutil.rmtree(folder / name, ignore_errors=True)
    venv.create(folder / name)
    wanted = REQUIREMENTS / f"{name}.txt"
    _uv(
        "pip",
        "install",
        "--no-deps",
        "--require-hashes",
        "--compile-bytecode",
        "--python",
        python_of(folder, name),
        "-r",
        wanted,
    )
    (folder / name / _MADE).write_text(wanted.read_text())


def lock(name: str) -> None:
    """Name every package that comes with what is wanted, as the index has it now."""
    wanted = REQUIREMENTS / f"{name}.in"
    how = ("--upgrade", "--generate-hashes", "--no-header", "--no-annotate")
    _uv("pip", "compile", *how, wanted, "-o", wanted.with_suffix(".txt"))


def _uv(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "uv", "--quiet", *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Make those that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lock", action="store_true", help="take the newest versions first")
    options = parser.parse_args()
    if options.lock:
        for name in NAMES:
            lock(name)
    for name in missing(options.folder):
        print(f"setting up {options.folder / name}", flush=True)
        make(options.folder, name)


if __name__ == "__main__":
    main()
