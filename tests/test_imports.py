from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tierline

SOURCE = Path(tierline.__file__).parent

HEAVY = (
    "anthropic",
    "starlette",
    "fastapi",
    "redis",
    "genai_prices",
    "httpx",
    "httpx2",
    "pydantic",
    "uvicorn",
    "sqlite3",
)

PUBLIC = {
    "tierline": [
        "Router", "Ladder", "Tier", "Policy", "Budget", "Decision", "Binding", "Report", "policy", "current",
    ],
    "tierline.asgi": ["TierlineMiddleware"],
    "tierline.anthropic": ["attach"],
    "tierline.fastapi": [
        "Claude", "SyncClaude", "Routing", "claude_of", "sync_claude_of", "routing_of", "REFUSALS",
    ],
    "tierline.starlette": ["claude_of", "sync_claude_of", "routing_of", "accepted", "answered"],
    "tierline.classify": [
        "KeywordClassifier", "SignalClassifier", "ClaudeClassifier", "CascadeClassifier", "FixedClassifier",
        "Labelled", "Labels", "Progress",
    ],
    "tierline.ledger": ["MemoryLedger"],
    "tierline.batches": ["BatchRequest", "BatchResult", "BatchStatus", "Deferred", "Queue"],
    "tierline.batches.webhooks": ["Webhook", "WebhookSignatureError", "new_secret", "verify"],
    "tierline.legality": ["ACTIONS", "EFFORT_TOKENS"],
    "tierline.prices": ["PriceBook", "Rates"],
    "tierline.testing": [
        "FakeClaude", "RecordedAnswers", "assert_refused", "assert_spent", "assert_tier", "offline",
    ],
    "tierline.verdicts": ["StoredVerdicts"],
    "tierline.errors": [
        "TierlineError", "ConfigurationError", "BudgetExceededError", "LedgerUnavailableError", "UnknownModelError",
        "IllegalRequestError",
    ],
}  # fmt: skip


def loaded_by(module: str) -> set[str]:
    """The top-level modules that importing `module` loads, in a process of its own."""
    code = f"import json, sys; import {module}; print(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run(  # noqa: S603  (our own interpreter)
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SOURCE.parent)}
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "module",
    ["tierline", "tierline.router", "tierline.run", "tierline.policies", "tierline.ledger", "tierline.classify"],
)
def test_the_core_is_cheap_to_import(module: str) -> None:
    """The core loads no SDK, no web framework, no price list and no store."""
    assert loaded_by(module).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("module", "allowed"),
    [("tierline.asgi", "starlette"), ("tierline.anthropic", "anthropic"), ("tierline.fastapi", "fastapi")],
)
def test_the_seams_load_their_own_side(module: str, allowed: str) -> None:
    """What is imported where it is needed shows that the check above can fail; and no store comes with it."""
    loaded = loaded_by(module)
    assert allowed in loaded
    assert loaded.isdisjoint({"redis"})


@pytest.mark.parametrize(("module", "names"), PUBLIC.items())
def test_public_names(module: str, names: list[str]) -> None:
    """Every name of the public API is where it is promised."""
    found = importlib.import_module(module)
    assert [name for name in names if not hasattr(found, name)] == []


def test_all_is_what_is_promised() -> None:
    """`from tierline import *` gives the promised names and no others, and each exists."""
    assert sorted(tierline.__all__) == sorted(PUBLIC["tierline"])
    for module in PUBLIC:
        found = importlib.import_module(module)
        assert [name for name in getattr(found, "__all__", ()) if not hasattr(found, name)] == []


def test_a_module_never_hides_the_function() -> None:
    """`tierline.policy` is the way a policy is written, whatever has been imported."""
    importlib.import_module("tierline.policies")
    assert tierline.policy(floor="a") == tierline.Policy(floor="a")


def test_types_are_shipped() -> None:
    """The package says that it is typed."""
    assert (SOURCE / "py.typed").is_file()


def test_importing_reaches_out_to_nobody() -> None:
    """Every module is imported without a socket, a lookup of a name, or another program."""
    modules = sorted(
        ".".join(("tierline", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for path in SOURCE.rglob("*.py")
        if path.name != "__main__.py"
    )
    assert len(modules) > 150
    code = """
import importlib, json, sys
seen = []
def look(event, args):
    if event.split(".")[0] == "subprocess" or event in (
        "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto",
        "os.system", "os.exec", "os.posix_spawn", "os.fork", "urllib.Request", "http.client.connect",
    ):
        seen.append(f"{event} {args}")
sys.addaudithook(look)
for name in [*json.loads(sys.argv[1]), "pytest_tierline"]:
    importlib.import_module(name)
print(json.dumps(seen))
"""
    done = subprocess.run(  # noqa: S603  (our own interpreter)
        [sys.executable, "-W", "ignore", "-c", code, json.dumps(modules)], check=True, stdout=subprocess.PIPE, text=True
    )
    assert json.loads(done.stdout) == []
