"""The pytest plugin, in the projects of others: small ones, each with tests of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from anthropic import Anthropic, AsyncAnthropic
from fastapi import FastAPI
from fastapi.testclient import TestClient

import pytest_tierline
import tierline.asgi
import tierline.fastapi
from tierline import Budget, Router
from tierline.testing import FakeClaude, offline

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["pytester"]

OTHERS = ("timeout", "randomly", "xdist", "cacheprovider", "asyncio", "cov", "anyio", "hypothesispytest")
QUIET = [*(f"-pno:{name}" for name in (*OTHERS, "langsmith_plugin", "tierline")), "-ppytest_tierline"]
"""Without plugins that act on the tests around, too, or that no test of a project needs. Ours is named, and so there
whether or not it is installed: then it would be found a second time."""
SOURCE = Path(tierline.__file__).parents[1]
DESK = """
from anthropic import AsyncAnthropic
from fastapi import Depends, FastAPI
from tierline import Budget, Router, policy
from tierline.asgi import TierlineMiddleware
from tierline.fastapi import Claude

def build():
    router = Router(client=AsyncAnthropic(api_key="sk-ant-REAL"), budgets=[Budget("$0.02", name="plan")])
    app = FastAPI(lifespan=router.lifespan)
    app.add_middleware(TierlineMiddleware, router=router)

    @app.post("/contracts", dependencies=[Depends(policy(floor="sonnet"))])
    async def contracts(text: str, claude: Claude) -> str:
        message = await claude.messages.create(
            model="auto", max_tokens=300, messages=[{"role": "user", "content": text}]
        )
        return "".join(block.text for block in message.content if block.type == "text")

    return app
"""


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Have loaded what a call loads: what a project loads itself is forgotten when its tests end, and loaded again."""
    client = AsyncAnthropic(api_key="offline")
    router = Router(client, sync_client=Anthropic(api_key="offline"), budgets=[Budget("$1")])
    with offline(FakeClaude()), TestClient(FastAPI(lifespan=router.lifespan)):
        router.sync_claude.messages.create(model="auto", max_tokens=9, messages=[{"role": "user", "content": "hi"}])


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Run the tests of a project, with this plugin and few others."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(desk=DESK)

    def start(tests: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_desk=tests)
        return pytester.runpytest_inprocess(*QUIET, "--strict-markers", *options)

    return start


def test_floors_and_budgets_in_three_lines(run: Callable[..., pytest.RunResult]) -> None:
    """What a team writes: it passes where it holds, and fails with the reasons where it does not."""
    result = run("""
        import pytest
        from desk import build
        from fastapi.testclient import TestClient
        from tierline.testing import assert_refused, assert_spent, assert_tier

        def test_contracts_never_go_to_haiku(fake_claude):
            response = TestClient(build()).post("/contracts", params={"text": "hi"})
            assert_tier(response, "sonnet")
            assert_spent("<$0.01")

        def test_the_budget_holds(fake_claude):
            with TestClient(build()) as browser:
                answers = [browser.post("/contracts", params={"text": "hi"}) for _ in range(20)]
            assert_refused(answers[-1], "plan")
            assert_spent("<=$0.02")

        def test_that_fails(fake_claude):
            response = TestClient(build()).post("/contracts", params={"text": "hi"})
            assert_tier(response, "haiku")
    """)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            '>*assert_tier(response, "haiku")',
            "E*AssertionError: expected tier haiku, got sonnet",
            "E*/contracts: sonnet (claude-sonnet-5-5), chosen by *",
            "E*- raised to the floor sonnet",
            "test_desk.py:*: AssertionError",
        ]
    )
    result.stdout.no_fnmatch_line("*_asserting.py*")


def test_a_router_of_the_test(run: Callable[..., pytest.RunResult]) -> None:
    """Each test has a new one, with the options of its marks; those of the function come over those of the module."""
    result = run("""
        import os
        import pytest
        from tierline import Budget, policy
        from tierline.errors import BudgetExceededError
        from tierline.testing import assert_refused, assert_spent, assert_tier

        pytestmark = pytest.mark.tierline(budgets=[Budget("$1", name="large")], policy=policy(floor="sonnet"))
        REQUEST = dict(model="auto", max_tokens=30, messages=[{"role": "user", "content": "Are you open?"}])

        @pytest.mark.parametrize("n", [1, 2])
        def test_synchronous(tierline_router, fake_claude, n):
            assert tierline_router.report().calls == 0
            message = tierline_router.sync_claude.messages.create(**REQUEST)
            assert_tier(message, "sonnet")
            assert len(fake_claude.requests) == 1

        @pytest.mark.tierline(budgets=[Budget("$0.000001", name="tiny")])
        def test_refused(tierline_router):
            with tierline_router.bind(), pytest.raises(BudgetExceededError) as caught:
                tierline_router.sync_claude.messages.create(**REQUEST)
            assert_refused(caught, "tiny")
            assert_spent("$0")

        def test_says_what_it_is_told(tierline_router, fake_claude):
            fake_claude.answer = lambda received: "Yes."
            message = tierline_router.sync_claude.messages.create(**{**REQUEST, "max_tokens": 900})
            assert message.content[-1].text == "Yes."

        @pytest.mark.tierline([Budget("$1")])
        def test_wrong(tierline_router):
            pass

        def test_nothing_is_left(request):
            assert "ANTHROPIC_API_KEY" not in os.environ
    """)
    result.assert_outcomes(passed=5, errors=1)
    result.stdout.fnmatch_lines(["*pytest.mark.tierline takes options by name*"])


RECORDED = """
    import pytest
    from desk import build
    from fastapi.testclient import TestClient

    @pytest.mark.tierline(answers="answers/desk.jsonl")
    def test_answers(fake_claude):
        browser = TestClient(build(), raise_server_exceptions=False)
        assert browser.post("/contracts", params={"text": "Is it valid?"}).text == '"It is."'
"""


def test_recorded_answers(
    run: Callable[..., pytest.RunResult], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is recorded unless it is asked for, with a key; after that the test needs neither."""
    refused = run(RECORDED, "--tierline-record")
    refused.stderr.fnmatch_lines(["*ANTHROPIC_API_KEY is not set*"])
    missing = run(RECORDED)
    missing.assert_outcomes(errors=1)
    missing.stdout.fnmatch_lines(["*write it by hand, or record it*"])

    real = FakeClaude(api_key="sk-ant-api03-REAL", answer=lambda _: "It is.")
    with real.serve_in_thread() as url, monkeypatch.context() as patch:
        patch.setenv("ANTHROPIC_API_KEY", real.api_key)
        patch.setenv("ANTHROPIC_BASE_URL", url)
        run(RECORDED, "--tierline-record").assert_outcomes(passed=1)
    assert len(real.requests) == 1
    written = (pytester.path / "answers" / "desk.jsonl").read_text("utf-8")
    assert "sk-ant" not in written
    assert json.loads(written)["asked"] == "Is it valid?"

    run(RECORDED).assert_outcomes(passed=1)
    other = run(RECORDED.replace("Is it valid?", "Is it void?"))
    other.assert_outcomes(failed=1, errors=1)
    other.stdout.fnmatch_lines(["*desk.jsonl has no answer of claude-sonnet-5-5 (key *): record it with *"])


def test_pytest_starts_without_tierline() -> None:
    """A project that has Tierline installed pays nothing for the plugin until a test asks for a fixture."""
    code = "import sys, pytest_tierline; print([name for name in sys.modules if name.split('.')[0] in %r])"
    done = subprocess.run(  # noqa: S603  (our own interpreter)
        [sys.executable, "-c", code % (("tierline", "anthropic", "httpx2", "starlette", "opentelemetry"),)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert done.stdout == "[]\n"


def test_the_entry_point() -> None:
    """What is declared is what is here."""
    declared = (SOURCE.parent / "pyproject.toml").read_text("utf-8")
    assert '[project.entry-points.pytest11]\ntierline = "pytest_tierline"\n' in declared
    found = {point.value for point in entry_points(group="pytest11") if point.name == "tierline"}
    assert found <= {pytest_tierline.__name__}
