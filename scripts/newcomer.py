"""Walk through the README in an installation, as somebody would who has nothing else: what is typed is what it says.

Run by an environment that Tierline and pytest are installed in, from an empty directory. The README is the long
description of what is installed. Only ports are others, so that two walks do not meet.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK: Final = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVERS: Final = {"python -m tierline.testing": "8484", "uvicorn main:app": "8000"}
"""What is left running in a terminal of its own, and the port that the README has it on."""
_PATIENCE: Final = 60.0
"""Seconds for a server to come up."""
_SEEN: Final = (
    ('"tier":"haiku"', "an easy question goes to the cheapest tier"),
    ("floor sonnet, critical", "`routes` shows the floor, and `explain` why"),
    ("→ sonnet (claude-sonnet-5-5)", "`explain` says where a contract would go"),
    ("HTTP/1.1 429", "a broken budget answers 429"),
    ("retry-after:", "with the time when to come back"),
    ("application/problem+json", "as a problem"),
    ("REFUSED: budget plan", "`explain` says that it would be refused"),
    ("ok    store", "`doctor` has tried the store"),
    ("ok    key", "and the key"),
)
"""What the commands must have shown."""


def free_port() -> str:
    """One that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def blocks(text: str, language: str) -> list[str]:
    """The code of a language, in order."""
    return [match["code"] for match in _BLOCK.finditer(text) if match["language"] == language]


@contextmanager
def terminal(code: str, port: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    """A server in a terminal of its own, which is up; ended with Ctrl-C."""
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603  (what the README says)
            ["/bin/bash", "-ec", code], stdout=file, stderr=file, env=environment, start_new_session=True
        )
        try:
            until = time.monotonic() + _PATIENCE
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"{code}\n{log.read_text('utf-8')}\ndid not come up")
                time.sleep(0.05)
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(_PATIENCE)


def _listens(port: str) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", int(port))) == 0


def typed(code: str, environment: dict[str, str]) -> str:
    """What commands print. SystemExit where one fails."""
    done = subprocess.run(  # noqa: S603  (what the README says)
        ["/bin/bash", "-ec", code], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        sys.exit(f"{code}\nexits with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Walk, and say what was seen."""
    readme = metadata("tierline").get_payload()
    if not isinstance(readme, str):
        sys.exit("what is installed has no long description")
    if beside := re.findall(r"\]\((?!https?:|#|mailto:)[^)]*\)", readme):
        sys.exit(f"links of the long description that lead nowhere: {beside}")
    app, test = blocks(readme, "python")
    Path("main.py").write_text(app, "utf-8")
    Path("test_main.py").write_text(test, "utf-8")
    begin, end = (readme.index(f"## {title}") for title in ("Walk through it", "How it fits in"))
    steps = blocks(readme[begin:end], "sh")
    # A terminal as wide as most, no colours, and none of what whoever runs this has set for an app of their own.
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("ANTHROPIC_", "OTEL_", "TIERLINE_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**bare, "PATH": path, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    environment.pop("PYTHONPATH", None)
    ports = {said: free_port() for said in _SERVERS.values()}
    with ExitStack() as stack:
        client: list[str] = []
        for step in steps:
            code = step
            for said, port in ports.items():
                code = code.replace(f":{said}", f":{port}")
            command = code.strip().splitlines()[-1]
            if command in _SERVERS:
                port = ports[_SERVERS[command]]
                log = Path(f"{command.split()[0]}.log")
                stack.enter_context(terminal(f"{code.strip()} --port {port}", port, log, environment))
            else:
                client.append(code)
        shown = typed("".join(client), environment)
    for words, told in _SEEN:
        if words not in shown:
            sys.exit(f"{told}: {words!r} is not in what the commands print:\n{shown}")
    spans = Path("uvicorn.log").read_text("utf-8")
    for name in ("route haiku", "route sonnet"):
        if f'"name": "{name}"' not in spans:
            sys.exit(f"no span {name!r} on the console of the app:\n{spans}")
    typed(f"{sys.executable} -m pytest -q -p no:cacheprovider test_main.py", environment)
    print(f"  the README: {len(steps)} steps, {len(_SEEN)} things seen, spans on the console, its test passes")


if __name__ == "__main__":
    main()
