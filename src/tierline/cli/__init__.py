"""`tierline`: measure, train, draw and grade from the command line. Needs `pip install 'tierline[cli]'`."""

from __future__ import annotations

import sys
from typing import Final

_PARTS: Final = ("typer", "rich", "click")


def main() -> None:
    """The command `tierline`. Exits with 2, and what to install, where its packages are missing."""
    try:
        from tierline.cli.app import app  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PARTS:
            raise
        sys.stderr.write("the command `tierline` needs typer and rich: pip install 'tierline[cli]'\n")
        sys.exit(2)
    app()
