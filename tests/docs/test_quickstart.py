"""The quick start is walked as it stands, by real processes: only its ports are others."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.newcomer import free_port, terminal, typed
from tests.needs import need
from tests.pages import DOCS, ROOT, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

need("typer", "uvicorn", "opentelemetry.sdk")

PAGE = DOCS / "quickstart.md"


def shown(language: str) -> Iterator[str]:
    """The blocks of a language, in order."""
    return (block for each, block in blocks(PAGE) if each == language)


@pytest.mark.timeout(600)  # it starts ten processes
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_walk(here: Path) -> None:
    """From the first answer to the first refusal and the first test: what is typed works, and shows what is shown."""
    api, app = free_port(), free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC", "OTEL", "PYTEST"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONUNBUFFERED": "1",
    }

    def moved(code: str) -> str:
        return (
            code.replace("8484", api)
            .replace("localhost:8000", f"localhost:{app}")
            .replace("uvicorn main:app", f"uvicorn main:app --port {app}")
        )

    install, offline, serve, ask, look, refuse, explain, check = map(moved, shown("sh"))
    main, budget, test = shown("python")
    answers = [json.loads(line) for block in shown("json") for line in block.splitlines()]
    spans, refused = shown("text")
    assert "pip install" in install
    offline = offline.strip() + f" --port {api}"
    Path("main.py").write_text(main, "utf-8")
    Path("test_main.py").write_text(test, "utf-8")
    with terminal(offline, api, here / "api.log", environment):
        with terminal(serve, app, here / "app.log", environment):
            said = [
                json.loads(line)
                for line in typed(ask.replace('."\n', '."\necho\n') + "echo\n", environment).splitlines()
                if line
            ]
            looked = typed(look, environment)
        assert [(each["tier"], each["why"]) for each in said] == [(each["tier"], each["why"]) for each in answers]
        console = Path("app.log").read_text("utf-8")
        for span in spans.splitlines():
            assert f'"name": "{span.split("  ")[0]}"' in console, span
        assert "floor sonnet, critical (dependency" in looked
        assert "→ sonnet (claude-sonnet-5-5)" in looked
        before = next(line for line in main.splitlines() if line.startswith("router = "))
        Path("main.py").write_text(main.replace(before, budget), "utf-8")
        with terminal(serve, app, here / "again.log", environment):
            *codes, problem = typed(refuse, environment).split("\n", 4)
        *wanted, told = refused.strip().split("\n")
        assert codes == wanted
        found = json.loads(problem)
        assert {key: found[key] for key in json.loads(told)} == json.loads(told)
        explained = typed(explain.replace("/contracts", "/contracts || echo exits with $?"), environment)
        assert "REFUSED" in explained
        assert "exits with 1" in explained
    tested = typed(
        check.replace("pip install pytest\n", "").replace("pytest", "python -m pytest -q -p no:randomly"), environment
    )
    assert "1 passed" in tested
