"""Install the frameworks of `versions.toml`, each into a directory of its own: `python overlays.py DIRECTORY`.

A directory is laid over the environment with PYTHONPATH, so only what differs is in it. What is there already stays.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

VERSIONS: dict[str, dict[str, Any]] = tomllib.loads(
    (Path(__file__).parent / "versions.toml").read_text(encoding="utf-8")
)
STAMP = "installed.txt"


def ready(directory: Path, install: list[str]) -> bool:
    """Whether exactly this is installed there."""
    stamp = directory / STAMP
    return not install or (stamp.exists() and stamp.read_text(encoding="utf-8").split() == install)


def build(directory: Path, install: list[str]) -> None:
    """Install into the directory, from nothing."""
    shutil.rmtree(directory, ignore_errors=True)
    quiet = ("-qq", "--disable-pip-version-check", "--no-deps", "--no-compile")
    command = [sys.executable, "-m", "pip", "install", *quiet, "--target", str(directory), *install]
    subprocess.run(command, check=True)  # noqa: S603  (our own list)
    (directory / STAMP).write_text("\n".join(install), encoding="utf-8")


def main(root: Path) -> None:
    """Bring every directory up to date."""
    missing = [
        (root / name, version["install"])
        for name, version in VERSIONS.items()
        if not ready(root / name, version["install"])
    ]
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda each: build(*each), missing):
            pass


if __name__ == "__main__":
    main(Path(sys.argv[1]))
