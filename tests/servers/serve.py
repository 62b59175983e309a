"""Serve the app on a socket that is open already: `python serve.py uvicorn|hypercorn FILE_DESCRIPTOR SECONDS`.

SECONDS are what the server gives its requests at a shutdown. The parent listens before we are up, so nobody waits for a
port.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from app import app


def uvicorn(descriptor: int, seconds: int) -> None:
    from uvicorn import Config, Server

    config = Config(app, log_level="warning", access_log=False, loop="asyncio", timeout_graceful_shutdown=seconds)
    Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def hypercorn(descriptor: int, seconds: int) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{descriptor}"]
    config.graceful_timeout = seconds
    config.loglevel = "WARNING"
    asyncio.run(serve(app, config))


if __name__ == "__main__":
    {"uvicorn": uvicorn, "hypercorn": hypercorn}[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))
