"""Pin what the tasks need, with a digest of every file of it: `make lock`.

One resolution for all platforms and all Pythons that are supported. What is pinned already stays as it is, where it
still fits pyproject.toml; with `--upgrade`, all of it is taken at its newest.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LOWEST: Final = "3.11.5"
"""What the tools need: those that make the site. The package itself is content with 3.11."""
LOCKS: Final = {
    "dev": ("--all-extras", "--group", "dev"),
    "fuzz": ("--all-extras", "--group", "dev", "--group", "fuzz"),
    "quality": ("--group", "quality"),
    "release": ("--group", "release"),
}
"""What is in each file. The first is for all: what the others have in common with it has the same version."""


def main() -> None:
    """Write all of the files."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("-U", "--upgrade", action="store_true", help="take everything at its newest")
    upgrade = ["--upgrade"] if read.parse_args().upgrade else []
    first = ""
    for name, wanted in LOCKS.items():
        target = f"requirements/{name}.txt"
        bound = ["-c", first] if first else []
        subprocess.run(  # noqa: S603  (our own command)
            [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "pyproject.toml", *wanted, *bound, *upgrade,
             "--universal", "--python-version", LOWEST, "--generate-hashes", "--no-annotate", "--no-header",
             "--no-emit-index-url", "--no-emit-find-links", "--output-file", target],
            cwd=ROOT, check=True,
        )  # fmt: skip
        first = first or target


if __name__ == "__main__":
    main()
