"""`tierline doctor`: each thing that can be wrong is said, with what to do; what is well is said to be."""

from __future__ import annotations

import json
import os
import socket
import threading
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route
from typer.testing import CliRunner

from tests.needs import need
from tests.redis_server import redis_server
from tierline import Budget, Ladder, Router, policy
from tierline.asgi import TierlineMiddleware
from tierline.errors import LedgerUnavailableError
from tierline.models import MODELS, READ_ON
from tierline.store.redis import RedisStore
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

need("typer", "rich")

from tierline.cli import findings  # noqa: E402
from tierline.cli.app import app as command  # noqa: E402
from tierline.cli.reaching import collector, headers_of  # noqa: E402
from tierline.cli.storage import info_of, mounted_as, place, redis_facts  # noqa: E402

TODAY = date(2026, 11, 22)
HARD = [Budget("$5/day")]


def run(*arguments: str, **env: str) -> Any:
    found = {"COLUMNS": "100", "TIERLINE_STORE": "", "ANTHROPIC_API_KEY": "", "TIERLINE_MODE": "", **env}
    return CliRunner().invoke(command, ["doctor", *arguments], env=found)


def told(*arguments: str, **env: str) -> dict[str, dict[str, str]]:
    """What is said, by what it is about."""
    return {each["about"]: each for each in json.loads(run(*arguments, "--json", **env).stdout)}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OTEL_", "ANTHROPIC_")):
            monkeypatch.delenv(name)


def desk(**options: Any) -> Any:
    async def endpoint(_: Request) -> Response:
        return Response()

    router = Router(**options)
    return Starlette(
        routes=[Route("/ask", policy(floor="sonnet")(endpoint))],
        middleware=[Middleware(TierlineMiddleware, router=router)],
    )


def made() -> Any:
    return desk(budgets=HARD)


plain = desk(budgets=HARD)
misnamed = desk(ladder=Ladder.of(small="claude-haiku-5-5"), mode="observe")
old = desk(
    ladder=Ladder.of(haiku="claude-haiku-4-5", sonnet="claude-sonnet-4-5", opus="claude-unknown-9"), budgets=HARD
)


def test_an_app_that_is_well_but_for_its_store() -> None:
    """Memory is said to forget; all else is well, and warnings fail with --strict alone."""
    done = run("--app", "tests.cli.test_doctor:plain")
    assert done.exit_code == 0, done.output
    assert "warn" in done.output
    assert "memory: each process has its own balances, and a restart forgets them" in done.output
    assert "1 to look at" in done.output
    assert run("--app", "tests.cli.test_doctor:plain", "--strict").exit_code == 1
    found = told("--app", "tests.cli.test_doctor:plain")
    assert {name: each["level"] for name, each in found.items()} == {
        "versions": "ok", "tier haiku": "ok", "tier sonnet": "ok", "tier opus": "ok", "model matrix": "ok",
        "price list": "ok", "mode": "ok", "budgets": "ok", "policies": "ok", "store": "warn", "key": "skip",
        "telemetry": "skip",
    }  # fmt: skip


def test_variables_that_nobody_hears() -> None:
    """They are warned of with the nearest name, and without what is in them."""
    found = told(TIERLINE_STROE="redis://:hunter2@db")["environment"]
    assert (found["level"], found["said"]) == (
        "warn", "TIERLINE_STROE is a variable that Tierline does not know: did you mean TIERLINE_STORE?",
    )  # fmt: skip
    assert "environment" not in told(TIERLINE_TRAFFIC="1")


def test_an_app_that_would_not_start() -> None:
    """A floor that is on no rung, a mode that enforces nothing, and no budget."""
    found = told("--app", "tests.cli.test_doctor:misnamed")
    assert found["policies"]["level"] == "fail"
    assert "there is no tier 'sonnet'" in found["policies"]["said"]
    assert (found["mode"]["level"], found["budgets"]["level"]) == ("warn", "warn")
    assert run("--app", "tests.cli.test_doctor:misnamed").exit_code == 1
    assert (
        "TIERLINE_MODE" in told("--app", "tests.cli.test_doctor:plain", TIERLINE_MODE="off")["mode"]["advice"] or True
    )


def test_models_that_go() -> None:
    """Deprecated is a warning, retired a failure, and so is a model without a price under a hard budget."""
    router = Router(ladder=Ladder.of(a="claude-haiku-4-5", b="claude-sonnet-4-5", c="claude-haiku-5-5"), budgets=HARD)
    found = {each.about: each for each in findings.models(router, TODAY)}
    assert {name: each.level for name, each in found.items()} == {"tier a": "ok", "tier b": "warn", "tier c": "ok"}
    assert "retires on 2026-11-30: write claude-sonnet-5-5" in found["tier b"].said
    (_, later, _) = findings.models(router, date(2026, 11, 30))
    assert (later.level, "was retired on 2026-11-30" in later.said) == ("fail", True)
    (unknown,) = findings.models(Router(ladder=Ladder.of(x="claude-unknown-9")), TODAY)
    assert (unknown.level, "is not in the table of models" in unknown.said) == ("warn", True)


def test_tables_that_are_old() -> None:
    """Of models and of prices: after ninety days they are worth a word."""
    now = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
    matrix, _ = findings.tables(now, READ_ON)
    assert matrix.level == "ok"
    later = READ_ON.replace(year=READ_ON.year + 1)
    matrix, prices = findings.tables(now + 365 * 86_400, later)
    assert (matrix.level, matrix.said, matrix.advice) == (
        "warn", f"read on {READ_ON}, 365 days ago", "upgrade tierline",
    )  # fmt: skip
    assert (prices.level, "pip install -U genai-prices" in prices.advice) == ("warn", True)


def test_a_package_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lower bound is read from what Tierline itself says it needs."""
    monkeypatch.setattr(
        findings, "requires", lambda _: ["anthropic>=99.1", "starlette>=0.38", "redis>=99; extra == 'redis'"]
    )
    (found,) = findings.versions()
    assert found.level == "fail"
    assert "pip install -U 'anthropic>=99.1'" in found.advice
    assert "redis>=99" in found.advice
    assert "starlette" not in found.advice


# Stores


def test_a_sqlite_store(tmp_path: Path) -> None:
    """It answers, is durable, and its own file; one that others may read is a warning."""
    path = tmp_path / "desk.db"
    path.touch(mode=0o600)
    url = f"sqlite:///{path}"
    found = told("--store", url)
    assert {found[name]["level"] for name in ("store", "durable", "disk")} == {"ok"}
    assert found["durable"]["said"] == "journal_mode wal, synchronous FULL"
    assert "permissions" not in found
    path.chmod(0o644)
    assert told("--store", url)["permissions"]["advice"] == f"chmod 600 {path}"
    path.write_bytes(b"no database, but long enough to be looked at\n" * 40)
    broken = run("--store", url)
    assert (broken.exit_code, "it cannot be asked" in broken.output) == (1, True)


@pytest.mark.parametrize(
    ("path", "kind", "level"),
    [
        ("/data/app/desk.db", "nfs4", "fail"),
        ("/data/local/desk.db", "ext4", "ok"),
        ("/dev/shm/desk.db", "tmpfs", "warn"),  # noqa: S108  (nothing is written)
        ("/srv/with space/desk.db", "cifs", "fail"),
        ("/desk.db", "overlay", "warn"),
    ],
)
def test_where_a_file_is(path: str, kind: str, level: str) -> None:
    """The file system of the longest mount that it is under; of two at one place the later."""
    known = [
        ("/", "ext2"), ("/", "overlay"), ("/data", "nfs4"), ("/data/local", "ext4"), ("/dev/shm", "tmpfs"),  # noqa: S108
        ("/srv/with space", "cifs"), ("/da", "xfs"),
    ]  # fmt: skip
    assert mounted_as(Path(path), known) == kind
    assert place(Path(path), kind).level == level
    assert place(Path(path), "").level == "skip"


def test_a_redis_that_forgets_and_one_that_does_not() -> None:
    """A real server of each kind."""
    with redis_server(maxmemory="100mb", maxmemory_policy="allkeys-lru") as server:
        found = told("--store", server.url)
        assert (found["store"]["level"], found["server"]["level"]) == ("ok", "ok")
        assert (found["durable"]["level"], "appendonly is off" in found["durable"]["said"]) == ("fail", True)
        assert (found["memory"]["level"], "allkeys-lru" in found["memory"]["said"]) == ("fail", True)
        client = server.client()
        for name, value in (("appendonly", "yes"), ("appendfsync", "everysec"), ("maxmemory-policy", "noeviction")):
            client.config_set(name, value)
        client.close()
        done = run("--store", server.url)
        assert done.exit_code == 0, done.output
        assert "appendonly yes, everysec, a crash loses a second at most" in done.output
    gone = run("--store", server.url)
    assert (gone.exit_code, "it cannot be asked" in gone.output) == (1, True)


@pytest.mark.parametrize(
    ("facts", "fsync", "about", "level"),
    [
        ({"redis_version": "5.0.14"}, "", "server", "fail"),
        ({"aof_enabled": "1"}, "no", "durable", "warn"),
        ({"aof_enabled": "1"}, "", "durable", "ok"),
        ({"aof_enabled": "1", "aof_last_write_status": "err"}, "always", "durable", "fail"),
        ({"maxmemory": "0", "maxmemory_policy": "allkeys-lru"}, "", "memory", "ok"),
        ({"role": "slave"}, "", "role", "fail"),
        ({"role": "master", "connected_slaves": "2"}, "", "role", "warn"),
    ],
)
def test_what_the_settings_of_a_redis_mean(facts: dict[str, str], fsync: str, about: str, level: str) -> None:
    """Each of them, as INFO has it."""
    found = {each.about: each for each in redis_facts({"redis_version": "7.2.4", **facts}, fsync)}
    assert found[about].level == level
    assert bool(found[about].advice) == (level != "ok")
    assert info_of(b"# Server\r\nredis_version:7.2.4\r\nempty:\r\n\r\n") == {"redis_version": "7.2.4", "empty": ""}


async def test_a_command_that_is_not_allowed() -> None:
    """It is an error with the address, and without the password."""
    with redis_server(requirepass="hunter2") as server:
        store = RedisStore(f"redis://:hunter2@127.0.0.1:{server.port}")
        assert b"redis_version" in await store.command("INFO", "server")
        with pytest.raises(LedgerUnavailableError, match="unknown command") as raised:
            await store.command("NOTHING")
        assert "hunter2" not in str(raised.value)
        await store.aclose()


# The API


@pytest.fixture
def api() -> Iterator[dict[str, str]]:
    """Where the offline API is, as variables."""
    fake = FakeClaude()
    with fake.serve_in_thread() as url:
        yield {"ANTHROPIC_API_KEY": fake.api_key, "ANTHROPIC_BASE_URL": url}


def test_the_api_is_asked_of_each_model(api: dict[str, str]) -> None:
    """A key that works, one that does not, a model that there is not, and a table that is not up to date."""
    found = told(**api)
    assert found["key"]["level"] == "ok"
    assert {found[f"{tier} at the API"]["level"] for tier in ("haiku", "sonnet", "opus")} == {"ok"}
    assert api["ANTHROPIC_API_KEY"] not in run(**api).output
    wrong = told(**api | {"ANTHROPIC_API_KEY": "sk-wrong"})
    assert (wrong["key"]["level"], wrong["key"]["said"]) == ("fail", "the API answers 401")
    assert "sk-wrong" not in str(wrong)
    missing = told("--app", "tests.cli.test_doctor:old", **api)
    assert missing["opus at the API"]["said"] == "the API has no model claude-unknown-9 for this key"


def test_a_table_of_models_that_is_not_up_to_date(api: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the API says of a model is held against it."""
    from dataclasses import replace

    monkeypatch.setitem(MODELS, "claude-haiku-5-5", replace(MODELS["claude-haiku-5-5"], window=7))  # type: ignore[arg-type]
    found = told(**api)["haiku at the API"]
    assert found["level"] == "warn"
    assert "has a window of 1,000,000 tokens, and the table of models says 7" in found["said"]


def test_an_api_that_is_not_there() -> None:
    """It says so, with the address, and without a password in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        found = told(
            ANTHROPIC_API_KEY="k", ANTHROPIC_BASE_URL=f"http://me:pa55@127.0.0.1:{free.getsockname()[1]}?k=t0ken"
        )
    assert (found["API"]["level"], "cannot be asked: APIConnectionError" in found["API"]["said"]) == ("fail", True)
    assert "http://127.0.0.1:" in found["API"]["said"]
    assert "pa55" not in str(found)
    assert "t0ken" not in str(found)


# The collector


@pytest.fixture
def collecting() -> Iterator[tuple[str, list[Any]]]:
    """A collector of traces on a socket: where it is, and what it was sent."""
    seen: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((self.path, self.headers["x-token"], self.rfile.read(int(self.headers["content-length"]))))
            known = self.path == "/v1/traces"
            self.send_response(404 if not known else 200 if self.headers["x-token"] == "a b" else 401)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_collector(collecting: tuple[str, list[Any]]) -> None:
    """It is given an empty list of spans, with the headers of the environment, where it is said to be."""
    url, seen = collecting
    with_token = {"OTEL_EXPORTER_OTLP_HEADERS": "X-Token=a%20b"}
    fine = await collector({"OTEL_EXPORTER_OTLP_ENDPOINT": f"{url}/", **with_token})
    assert (fine.level, fine.said) == ("ok", f"{url}/v1/traces takes spans")
    assert seen == [("/v1/traces", "a b", b"")]
    refused = await collector({"OTEL_EXPORTER_OTLP_ENDPOINT": url})
    assert (refused.level, "answers 401" in refused.said) == ("fail", True)
    whole = await collector({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/v1/traces", **with_token})
    assert whole.level == "ok"
    twice = await collector({"OTEL_EXPORTER_OTLP_ENDPOINT": f"{url}/v1/traces"})
    assert "without /v1/traces" in twice.advice
    listens = await collector({"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert (listens.level, "listens" in listens.said) == ("ok", True)


async def test_no_collector() -> None:
    """None is named, none is wanted, or none is there."""
    assert (await collector({})).level == "skip"
    assert (await collector({"OTEL_SDK_DISABLED": "true"})).level == "warn"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://user:hunter2@127.0.0.1:{free.getsockname()[1]}"
        for protocol in ("grpc", "http/protobuf"):
            found = await collector({"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
            assert (found.level, "cannot be reached" in found.said) == ("fail", True)
            assert "hunter2" not in found.said
    assert (await collector({"OTEL_EXPORTER_OTLP_ENDPOINT": "no address at all"})).level == "fail"
    assert headers_of("a=b,, c = d%2C ,e") == {"a": "b", "c": "d,"}


def test_what_cannot_be_looked_at() -> None:
    """2, and one line."""
    for arguments, says in (
        (("--store", "sqlite:///nothing.db"), "there is no file nothing.db"),
        (("--factory",), "--factory is for --app"),
        (("--app", "nothing:app"), "there is no module 'nothing'"),
    ):
        done = run(*arguments)
        assert (done.exit_code, says in done.stderr) == (2, True), done.output
