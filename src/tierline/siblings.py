"""Other workers of the same server on this host, with whom a budget in memory cannot be shared.

Workers of one server share the socket that it listens on: they have inherited it before the app starts up. So whoever
has such a socket takes a lock that is named by it, and the second worker finds it taken. A server with one process,
which binds its socket later, has none. Locks are those of processes: several Routers of one, a forked child, and a
worker that was killed are no siblings.

Where the platform has no such locks, and between hosts or containers, nobody is found.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import threading
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from tierline.errors import ConfigurationError
from tierline.private import private_dir

try:
    import fcntl
except ImportError:  # pragma: no cover  (Windows)
    _LOCKS = False
else:
    _LOCKS = True

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from pathlib import Path

log: Final = logging.getLogger("tierline")

PATIENCE: Final = 5.0
"""Seconds in which an old worker may end, as a server that reloads lets it."""
_LOOK: Final = 0.1

_mutex: Final = threading.Lock()
_held: Final[dict[tuple[int, Path], list[int]]] = {}
"""What this process has locked, with its id: the open file, and how many Routers share that."""


@asynccontextmanager
async def alone(budgets: Iterable[str]) -> AsyncIterator[None]:
    """Be the one worker of this server that keeps these hard budgets in its memory.

    ConfigurationError where there is another, and it does not end within `PATIENCE` seconds.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(alone_at_once(budgets))
                break
            except ConfigurationError:
                if loop.time() >= until:
                    raise
            await asyncio.sleep(_LOOK)
        yield


@contextmanager
def alone_at_once(budgets: Iterable[str]) -> Iterator[None]:
    """The same, without waiting for another to end."""
    names = sorted(budgets)
    if not names:
        yield
        return
    with ExitStack() as locks:
        places = _places(names)
        for path in places:
            if not _lock(path):
                raise ConfigurationError(f"another worker of this server has it, too. {_help(names[0])}")
            locks.callback(_unlock, (os.getpid(), path))
        if not places and os.environ.get("WEB_CONCURRENCY", "1") not in ("", "0", "1"):
            log.warning("WEB_CONCURRENCY says several workers. %s", _help(names[0]))
        yield


def _places(names: list[str]) -> list[Path]:
    """The files to lock: one for each socket that a server has handed to this process.

    The names of the budgets are a part of it: what else a process has inherited, other apps may have, too.
    """
    found = {repr((where, names)) for where in inherited()} if _LOCKS else set()
    if not found:
        return []
    try:
        directory = private_dir(lasting=False)
    except OSError as error:
        log.warning("nobody looks for other workers: %s", error)
        return []
    return [directory / f"worker-{sha256(each.encode()).hexdigest()[:20]}.lock" for each in sorted(found)]


def inherited() -> set[tuple[str, int]]:
    """Bound stream sockets of this process that are connected to nobody: what they are bound to, and their inodes."""
    found = set()
    for directory in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            for name in os.listdir(directory):  # noqa: PTH208  (numbers, not paths)
                with suppress(OSError, ValueError):
                    if (where := _bound(int(name))) is not None:
                        found.add(where)
            break
    return found


def _bound(number: int) -> tuple[str, int] | None:
    told = os.fstat(number)
    if not stat.S_ISSOCK(told.st_mode):
        return None
    with socket.socket(fileno=os.dup(number)) as found:
        if found.type != socket.SOCK_STREAM:
            return None
        address = found.getsockname()
        unbound = not address if isinstance(address, (str, bytes)) else not address[1]
        if unbound:
            return None
        with suppress(OSError):
            found.getpeername()
            return None  # a connection
        return repr(address), told.st_ino


def _lock(path: Path) -> bool:
    """Lock a file, or share the lock that this process has: to close the file a second time would be to let go of it.

    False where another process keeps it.
    """
    name = os.getpid(), path
    with _mutex:
        if name in _held:
            _held[name][1] += 1
            return True
        file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had it before has removed it, perhaps after it was opened here.
            if os.fstat(file).st_ino == os.stat(path).st_ino:  # noqa: PTH116  (at once)
                _held[name] = [file, 1]
                return True
        except OSError:
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        return False


def _unlock(name: tuple[int, Path]) -> None:
    with _mutex:
        if name[0] != os.getpid():
            return  # a forked child: its parent keeps the lock
        _held[name][1] -= 1
        if not _held[name][1]:
            file, _ = _held.pop(name)
            with suppress(OSError):
                name[1].unlink()
            os.close(file)


def _help(budget: str) -> str:
    return (
        f"Budget {budget!r} is hard and kept in the memory of each worker, so that several would each spend all of it: "
        'write Router(store="sqlite:///tierline.db") for the workers of one host, Router(store="redis://…") for '
        "several hosts, or start one worker"
    )
