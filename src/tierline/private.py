"""Directories that no other user of this machine can look into or put anything into: for journals and locks."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


def private_dir(*, lasting: bool) -> Path:
    """A directory of this user's own, made if it is not there.

    A lasting one is in the user's state directory, if there is one to write in; else in that for temporary files.
    OSError where none can be had, or where somebody else could write in it.
    """
    if lasting:
        with suppress(OSError, RuntimeError):  # services often have no home
            state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
            return _made(Path(state) / "tierline")
    owner = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    return _made(Path(tempfile.gettempdir()) / f"tierline{owner}")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{path} is no directory")
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        # Others may have been there first: what they can write is not to be trusted.
        raise PermissionError(f"{path} can be written by another user")
    if hasattr(os, "getuid") and found.st_mode & 0o055:
        path.chmod(0o700)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f"{path} cannot be written")
    return path
