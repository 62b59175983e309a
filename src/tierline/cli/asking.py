"""A line that a person types. One Ctrl-C is enough to have no more of it."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


def asked(console: Console, question: str) -> str:
    """What is typed after `question`. KeyboardInterrupt at Ctrl-C, EOFError at the end of what is there to be read."""
    if not _at_a_terminal():
        return console.input(question)
    with _woken_by_signals() as woken:
        console.print(question, end="")
        select.select([sys.stdin, woken], [], [])
        # A signal that has come raises before this reads, and what is typed is a whole line: it is not waited for.
        return input()


def _at_a_terminal() -> bool:
    # Windows waits in `select` for sockets alone, and signals are the main thread's.
    return os.name == "posix" and threading.current_thread() is threading.main_thread() and sys.stdin.isatty()


@contextmanager
def _woken_by_signals() -> Iterator[socket.socket]:
    """A socket that can be read from as soon as a signal has come.

    `input` looks for signals, and then waits for a line in the C library. One that comes between the two would be seen
    at the next line only, and that is never typed.
    """
    woken, wakes = socket.socketpair()
    with woken, wakes:
        wakes.setblocking(False)
        before = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(before)
