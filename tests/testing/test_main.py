"""`python -m tierline.testing`, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from anthropic import Anthropic

from tierline.testing.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(end: signal.Signals) -> None:
    """What it prints points the SDK at it; Ctrl-C ends it with 0 and says what was billed."""
    command = [sys.executable, "-u", "-m", "tierline.testing", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            told = next(line for line in process.stdout if line.startswith("export "))
            url, key = re.findall(r"=(\S+)", told)
            with Anthropic(api_key=key, base_url=url) as client:
                message = client.messages.create(
                    model="claude-haiku-5-5", max_tokens=300, messages=[{"role": "user", "content": "Hello"}]
                )
            assert message.usage.output_tokens > 0
            process.send_signal(end)
            rest = process.stdout.read()
            assert re.search(r"would have cost \$0\.0", rest), rest
            assert process.wait() == 0
        finally:
            process.kill()


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """2, and which port it is."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(SystemExit) as ended:
                main(["--port", str(port)])
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert ended.value.code == 2
    assert f"port {port}" in capsys.readouterr().err
