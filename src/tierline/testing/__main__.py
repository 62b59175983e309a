"""`python -m tierline.testing`: the Messages API, offline, for an app that is started by hand without a key."""

from __future__ import annotations

import argparse
import signal
import sys
from threading import Event
from typing import TYPE_CHECKING, Final

from tierline.errors import TierlineError
from tierline.testing.fake import FakeClaude
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PORT: Final = 8484


def main(arguments: Sequence[str] | None = None, make: Callable[..., FakeClaude] = FakeClaude) -> None:
    """Serve until Ctrl-C or SIGTERM; then say what was billed. Exits with 2, and why, where it cannot serve.

    `make` gives the stand-in, for an app that has one of its own: it is called with `chunk_delay`.
    """
    parser = argparse.ArgumentParser("python -m tierline.testing", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; 127.0.0.1 is this machine alone")
    parser.add_argument("--port", type=int, default=PORT, help=f"{PORT} by default; 0 is any that is free")
    parser.add_argument("--chunk-delay", type=float, default=0.02, help="seconds between the events of a stream")
    asked = parser.parse_args(arguments)
    fake = make(chunk_delay=asked.chunk_delay)
    ended = Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: ended.set())
    try:
        with fake.serve_in_thread(asked.host, asked.port) as url:
            sys.stdout.write(
                "The Messages API, offline: it answers, counts and bills as the real one does, and costs nothing.\n"
                "Point an app at it, and stop it with Ctrl-C:\n\n"
                f"export ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY={fake.api_key}\n"
            )
            sys.stdout.flush()
            ended.wait()
    except (TierlineError, OSError, OverflowError) as error:
        sys.stderr.write(f"{asked.host}, port {asked.port}: {error}\n")
        sys.exit(2)
    sys.stdout.write(f"\nWhat was asked would have cost {usd(fake.billed)}.\n")


if __name__ == "__main__":
    main()
