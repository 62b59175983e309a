"""What docs/monitoring offers to operators: every name in it is one that Prometheus finds, and every alert fires."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import httpx
import pytest

from example_app.main import build
from example_app.people import OPERATOR_KEY
from scripts import grafana
from tests.needs import need
from tests.pages import parsed
from tierline import Budget, metrics, policy
from tierline.classify import ClaudeClassifier
from tierline.errors import BudgetExceededError
from tierline.escalation import Escalate
from tierline.testing import Fault

need("opentelemetry.exporter.prometheus", "yaml")

import yaml  # noqa: E402
from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: E402
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from prometheus_client import CollectorRegistry, generate_latest, make_asgi_app  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from starlette.types import ASGIApp

    from tierline import Router
    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

ROOT = Path(__file__).parents[1]
HERE = ROOT / "docs" / "monitoring"
DESK = ROOT / "example_app"
DASHBOARD: dict[str, Any] = json.loads((HERE / "grafana.json").read_text("utf-8"))
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((HERE / "alerts.yml").read_text("utf-8"))["groups"] for rule in group["rules"]
]
SHOWN: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OF_THE_SCRAPE = {"job", "instance"}


def drawn() -> dict[str, str]:
    """The expressions of the dashboard, as Prometheus gets them: Grafana puts the variables in."""
    variables = {"$job": ".*", "$__rate_interval": "5m", "$__range": "1h"}
    found = {}
    for panel in SHOWN:
        for target in panel["targets"]:
            expr = target["expr"]
            for variable, value in variables.items():
                expr = expr.replace(variable, value)
            found[f"{panel['title']} {target['legendFormat']}"] = expr
    return found


def tool(name: str) -> str:
    """Where a tool of Prometheus' is. Skips where it is not; never in CI: there it is an error."""
    found = shutil.which(name)
    if found is None:
        missing = f"there is no {name} on the PATH: Debian's package prometheus has it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


# Names


def inside(expr: str, start: int) -> str:
    """What stands between the bracket at `start` and its partner."""
    depth = 0
    for place in range(start, len(expr)):
        depth += (expr[place] == "(") - (expr[place] == ")")
        if not depth:
            return expr[start + 1 : place]
    raise AssertionError(expr)


def asked(expr: str) -> Iterator[tuple[str, str, str]]:
    """Each metric of an expression, with each label that is asked of it, and with the value where one is told."""
    grouped = [
        (label.strip(), inside(expr, found.end() - 1))
        for found in re.finditer(r"by \(([^)]*)\) \(", expr)
        for label in found[1].split(",")
        if label.strip()
    ]
    for metric, matchers in re.findall(
        r"\b((?:tierline|gen_ai)_\w+)(?:\{([^}]*)\})?", re.sub(r"by \([^)]*\)", "", expr)
    ):
        if expr.count(f'"{metric}"') or re.search(rf"{metric}\s*!?=~?\"", expr):
            continue  # a label
        yield metric, "", ""
        for label, how, value in re.findall(r'(\w+)\s*(=~|!=|!~|=)"([^"]*)"', matchers):
            yield metric, label, value if how == "=" else ""
        yield from ((metric, label, "") for label, part in grouped if re.search(rf"\b{metric}\b", part))


def scraped(text: str) -> dict[str, dict[str, set[str]]]:
    """The metrics of a scrape, each with its labels and their values."""
    found: dict[str, dict[str, set[str]]] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, _, rest = line.partition("{")
        labels = found.setdefault(name.split(" ")[0], {})
        for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', rest):
            labels.setdefault(label, set()).add(value)
    return found


A, B = "tierline_a", "gen_ai_b"


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        ("sum(rate(tierline_a{x='1', y!='2'}[5m]))", {(A, "", ""), (A, "x", "1"), (A, "y", "")}),
        ("sum by (le, t) (tierline_a) / gen_ai_b", {(A, "", ""), (A, "le", ""), (A, "t", ""), (B, "", "")}),
    ],
)  # fmt: skip
def test_names_are_read_from_expressions(expr: str, found: set[tuple[str, str, str]]) -> None:
    """What is asked for is told from what it is grouped by."""
    assert set(asked(expr.replace("'", '"'))) == found


ASK: dict[str, Any] = {"model": "auto", "max_tokens": 300, "messages": [{"role": "user", "content": "Open today?"}]}
HARD: dict[str, Any] = {**ASK, "messages": [{"role": "user", "content": "Prove it."}]}


async def traffic(router: Router, fake: FakeClaude) -> None:
    """Calls of every kind: streams, verdicts, refusals, escalations, upgrades, faults, a breaker that opens."""
    fake.verdict = lambda text, _labels: ("complex" if "Prove" in text else "simple", 0.9)
    create = router.claude.messages.create
    for number in range(60):
        async with router.bind(tenant=f"t{number % 20}", route="/chat"):
            await create(**ASK)
    async with router.bind(tenant="mallory", route="/chat"):
        await create(**HARD)
        async with router.claude.messages.stream(**ASK) as stream:
            await stream.get_final_message()
    with pytest.raises(BudgetExceededError):
        async with router.bind(tenant="poor"):
            await create(**ASK)
    with policy(escalate=Escalate(check=lambda _: False)):
        await create(**ASK)
    fake.always(None, Fault.overloaded())
    for _ in range(10):
        with suppress(anthropic.APIError):
            await create(**ASK)


async def test_every_name_is_one_that_prometheus_finds(make_router: MakeRouter, fake: FakeClaude) -> None:
    """After real traffic, each metric, label and value of the dashboard and the alerts is in what the exporter says."""
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=registry)])
    router = make_router(
        meter_provider=provider,
        classifier=ClaudeClassifier(),
        max_upgrades=0.0,
        budgets=[
            Budget("$50/day"),
            Budget(lambda name: "$0.0001" if name == "poor" else "$5", per="tenant", name="plan"),
        ],
    )
    async with router.lifespan():
        await traffic(router, fake)
        found = scraped(generate_latest(registry).decode())
    provider.shutdown()
    for expr in [*drawn().values(), *(rule["expr"] for rule in RULES)]:
        names = list(asked(expr))
        assert names or "tierline:" in expr
        for metric, label, value in names:
            assert metric in found, expr
            if label and label not in OF_THE_SCRAPE:
                assert value in found[metric][label] or (not value and label in found[metric]), (metric, label, expr)


# Prometheus itself


def test_the_alerts_fire_and_do_not() -> None:
    """Prometheus' own tests of the rules pass: each alert fires where it should, and not where it should not."""
    promtool = tool("promtool")
    done = subprocess.run(  # noqa: S603
        [promtool, "test", "rules", HERE / "alerts_test.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = (HERE / "alerts_test.yml").read_text("utf-8")
    assert [rule["alert"] for rule in RULES if "alert" in rule and f'"{rule["alert"]}"' not in told] == []


def test_expressions_are_such_to_prometheus(tmp_path: Path) -> None:
    """The rules, and the expressions of the dashboard as if they were rules, are read without a fault."""
    promtool = tool("promtool")
    rules = [{"record": f"dashboard:{n}", "expr": expr} for n, expr in enumerate(drawn().values())]
    (tmp_path / "drawn.yml").write_text(yaml.safe_dump({"groups": [{"name": "drawn", "rules": rules}]}), "utf-8")
    for path in (HERE / "alerts.yml", tmp_path / "drawn.yml"):
        done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, check=False)  # noqa: S603
        assert done.returncode == 0, done.stdout + done.stderr


# The example, and the page of the docs


async def test_the_code_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block can be pasted as it stands; the app of the first one is scraped."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test")
    document = parsed(ROOT / "docs" / "monitoring.md")
    scraping, pushing = document.examples()
    scraping.evaluate()
    app = document.namespace["app"]
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://desk") as http,
    ):
        told = (await http.get("/metrics/")).text
    document.namespace["provider"].shutdown()
    assert "tierline_ledger_away" in scraped(told)
    pushing.evaluate()


def test_every_metric_is_told() -> None:
    """Each metric that is made stands on the page."""
    names = set(re.findall(r"create_\w+\(\s*\"([a-z0-9_.]+)\"", Path(str(metrics.__file__)).read_text("utf-8")))
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    told = {f"gen_ai.client.operation.{name.strip('`…')[1:]}" for name in re.findall(r"`…\.[a-z_]+`", page)}
    assert len(names) > 10
    assert sorted(name for name in names - told if f"`{name}" not in page) == []


async def test_the_example_is_scraped_by_its_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics of the example need the operator's key, and are such as a scrape takes."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    key = {"authorization": f"Bearer {OPERATOR_KEY}"}
    app = build()
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://desk") as http,
    ):
        asked = {"text": "I was charged twice"}
        await http.post("/classify", json=asked, headers={"authorization": "Bearer desk-acme"})
        assert (await http.get("/operator/metrics")).status_code == 401
        response = await http.get("/operator/metrics", headers=key)
    assert response.headers["content-type"].startswith("text/plain")
    assert scraped(response.text)["tierline_budget_limit_USD"]["tierline_budget"] == {"$1.50/day"}


@pytest.mark.soak
async def test_a_real_prometheus_has_an_answer_for_every_panel(
    make_router: MakeRouter, serve: Callable[[ASGIApp], Awaitable[httpx.AsyncClient]], fake: FakeClaude, tmp_path: Path
) -> None:
    """Prometheus scrapes an app with real traffic, and each expression of the dashboard gives it numbers."""
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(registry=registry)])
    budgets = [Budget("$50/day"), Budget(lambda name: "$0.0001" if name == "poor" else "$5", "tenant", "plan")]
    router = make_router(meter_provider=provider, classifier=ClaudeClassifier(), max_upgrades=0.0, budgets=budgets)
    app = await serve(make_asgi_app(registry))
    found = tool("prometheus")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(HERE / "alerts.yml")],
        "scrape_configs": [
            {"job_name": "desk", "static_configs": [{"targets": [f"{app.base_url.host}:{app.base_url.port}"]}]}
        ],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = (f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data")
    process = await asyncio.create_subprocess_exec(
        found, *arguments, f"--web.listen-address={address}", stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with router.lifespan(), httpx.AsyncClient(base_url=f"http://{address}") as prometheus:
            async with asyncio.timeout(60):
                while not await answered(prometheus, "up == 1"):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            for _ in range(3):
                await traffic(router, fake)
                fake.clear()
                await asyncio.sleep(3)
            empty = [title for title, expr in drawn().items() if not await answered(prometheus, expr)]
            rules = (await prometheus.get("/api/v1/rules")).json()["data"]["groups"]
    finally:
        process.terminate()
        await process.wait()
        provider.shutdown()
    assert empty == []
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}


async def answered(prometheus: httpx.AsyncClient, expr: str) -> bool:
    """Whether Prometheus has numbers for an expression now."""
    with suppress(httpx.TransportError):
        found = (await prometheus.get("/api/v1/query", params={"query": expr})).json()
        return found["status"] == "success" and bool(found["data"]["result"])
    return False


# Grafana


def test_the_dashboard_is_what_the_script_writes() -> None:
    """Nobody has changed one without the other."""
    assert grafana.dashboard() == DASHBOARD, "write it anew: python -m scripts.grafana"


def test_the_dashboard_is_tidy() -> None:
    """Panels fill whole rows, and overlap nowhere; each says what it shows, and asks the Prometheus that is chosen."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len(taken) == 24 * (1 + max(y for _, y in taken))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in SHOWN:
        assert panel["description"].endswith(".")
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_alerts_say_what_to_do() -> None:
    """Each has a severity, a summary and a description."""
    for rule in RULES:
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert set(rule["annotations"]) == {"summary", "description"}
