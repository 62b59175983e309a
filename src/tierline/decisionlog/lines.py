"""JSON lines that several processes append to and rotate, and that a killed one leaves whole."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from tierline.decisionlog.record import line_of

if sys.platform != "win32":  # there, one process writes a file
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_CHUNK: Final = 65_536
_NEWLINE: Final = b"\n"


class Lines:
    """A file of lines, with `keep` older ones beside it: `decisions.jsonl.1` is the latest of those.

    - lines of several processes do not mix, and none is lost when one of them moves the file away: whoever writes holds
      a lock on the file, and has looked whether that is still the one of this name
    - a line that a killed process or a full disk cut off is taken away by the next who writes: what is there is whole
    - readable by its owner alone

    OSError where it cannot be written; nothing of those lines is then in the file.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._file: int | None = None

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add a line for each record."""
        lines = [line_of(record).encode() + _NEWLINE for record in records]
        at = 0
        while at < len(lines):
            with self._locked() as file:
                size = _mended(file)
                take = at
                more = 0
                # At least one: a line that is longer than a file may be has one of its own.
                while take < len(lines) and (take == at or size + more + len(lines[take]) <= self._max_bytes):
                    more += len(lines[take])
                    take += 1
                if size and size + more > self._max_bytes:
                    self._rotate()
                    continue
                _write(file, b"".join(lines[at:take]), size)
                at = take

    def close(self) -> None:
        """Let go of the file. The next line opens it again."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.close(file)

    def abandon(self) -> None:
        """Let go of what a fork has inherited: the lock on it is the parent's, and goes with the parent."""
        self.close()

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file that has this name now, to write to by nobody else."""
        while True:
            if self._file is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
                self._file = os.open(self._path, flags, 0o600)
            file = self._file
            _lock(file)
            try:
                here = os.stat(self._path)  # noqa: PTH116  (beside fstat)
            except FileNotFoundError:
                here = None
            there = os.fstat(file)
            if here is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                break
            self.close()  # moved away, or removed: closing lets go of the lock
        try:
            yield file
        except BaseException:
            self.close()
            raise
        else:
            if self._file is not None:
                _unlock(file)

    def _rotate(self) -> None:
        """Move the file away, and drop the oldest. This one's lock is held: nobody else does it now."""
        for number in range(self._keep - 1, 0, -1):
            with suppress(FileNotFoundError):
                os.replace(self._older(number), self._older(number + 1))  # noqa: PTH105
        if sys.platform == "win32":  # where files that are open cannot be moved
            self.close()
        os.replace(self._path, self._older(1))  # noqa: PTH105
        self.close()

    def _older(self, number: int) -> str:
        return f"{self._path}.{number}"


def _mended(file: int) -> int:
    """The size of a file, after what does not end as a line has been taken from its end."""
    size = end = os.fstat(file).st_size
    if size and _read(file, size - 1, size) == _NEWLINE:
        return size
    while end:
        begin = max(0, end - _CHUNK)
        found = _read(file, begin, end).rfind(_NEWLINE)
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    if end != size:
        os.ftruncate(file, end)
    return end


def _read(file: int, begin: int, end: int) -> bytes:
    os.lseek(file, begin, os.SEEK_SET)  # appending goes to the end all the same
    return os.read(file, end - begin)


def _write(file: int, data: bytes, size: int) -> None:
    """Append to a file of so many bytes: all of it or nothing."""
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
    except OSError as error:
        with suppress(OSError):
            os.ftruncate(file, size)
        raise OSError(error.errno or errno.EIO, error.strerror or "not written") from error


def _lock(file: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX)


def _unlock(file: int) -> None:
    if sys.platform != "win32":
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
