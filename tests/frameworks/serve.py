"""Serve the app of a module on a socket that is open already: `python serve.py MODULE FILE_DESCRIPTOR`.

The parent listens before we are up, so nobody waits for a port.
"""

from __future__ import annotations

import importlib
import socket
import sys

import uvicorn

if __name__ == "__main__":
    module, descriptor = sys.argv[1:]
    app = importlib.import_module(module).app
    config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])
