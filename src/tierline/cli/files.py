"""Files that a command writes: whole or not at all, and nothing is computed for one that cannot be."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check_out(out: Path) -> None:
    """ConfigurationError where no file of this name can be."""
    if not out.parent.is_dir():
        raise ConfigurationError(f"--out {out}: there is no directory {out.parent}")
    if out.is_dir():
        raise ConfigurationError(f"--out {out}: that is a directory; name a file in it")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise ConfigurationError(f"--out {out}: you may not write there; name another place")


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """Where to write: a file beside `out`, with its ending, that takes its name when the block is done."""
    part = out.with_name(f".{os.getpid()}.{out.name}")
    try:
        yield part
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
