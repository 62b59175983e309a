"""Whether what is elsewhere can be reached: the API with its key, the collector of traces. What is asked is free."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from tierline.cli.findings import Finding
from tierline.models import model_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tierline.router import Router

PATIENCE: Final = 5.0
"""Seconds for each answer."""
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_USUAL: Final = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}
_REFUSED: Final = (401, 403)
_NOT_FOUND: Final = 404
_FINE: Final = 300


async def api(router: Router[Any]) -> AsyncIterator[Finding]:
    """Whether the key works, and whether the API has the models of the ladder: it is asked what it says of each."""
    from anthropic import AsyncAnthropic, AuthenticationError, PermissionDeniedError  # noqa: PLC0415  (a second)

    from tierline.anthropic import has_credentials  # noqa: PLC0415

    client: Any = router.claude
    if not has_credentials(client):
        yield Finding(
            "skip",
            "key",
            "no key here: neither it nor the models were tried",
            "set ANTHROPIC_API_KEY to have them tried",
        )
        return
    if type(client) is not AsyncAnthropic:
        yield Finding("skip", "key", f"{type(client).__name__} has no list of models: nothing was tried")
        return
    said: list[Finding] = []
    where = _without_password(str(client.base_url))
    try:
        for tier in router.ladder:
            said += await _model(client, tier.name, tier.model)
    except (AuthenticationError, PermissionDeniedError) as error:
        yield Finding("fail", "key", f"the API answers {error.status_code}", "give it a key that it takes")
        return
    except Exception as error:  # noqa: BLE001  (any error of the SDK, or of what is under it)
        why = type(error).__name__
        yield Finding(
            "fail",
            "API",
            f"{where} cannot be asked: {why}",
            "see to the network, proxies and ANTHROPIC_BASE_URL",
        )
        return
    yield Finding("ok", "key", f"{where} takes it")
    for each in said:
        yield each


async def _model(client: Any, tier: str, model: str) -> list[Finding]:
    """What the API says of a model, beside what Tierline knows of it."""
    from anthropic import NotFoundError  # noqa: PLC0415

    about = f"{tier} at the API"
    try:
        found = await client.models.retrieve(model, timeout=PATIENCE)
    except NotFoundError:
        return [
            Finding("fail", about, f"the API has no model {model} for this key", "look for a typo, or ask for access")
        ]
    said: list[Finding] = []
    lifecycle = getattr(found, "lifecycle", "active")
    if lifecycle == "retired":
        said.append(Finding("fail", about, f"the API has retired {model}", "give the tier another model"))
    elif lifecycle == "deprecated":
        at = getattr(found, "retires_at", None)
        when = f", and retires it on {at:%Y-%m-%d}" if at is not None else ""
        said.append(Finding("warn", about, f"the API has deprecated {model}{when}", "give the tier another model"))
    facts = model_of(model)
    if facts is not None:
        pairs = (
            ("a window", getattr(found, "max_input_tokens", None), facts.window),
            ("an output", getattr(found, "max_tokens", None), facts.max_output),
        )
        said += [
            Finding(
                "warn", about, f"{model} has {what} of {theirs:,} tokens, and the table of models says {ours:,}",
                "upgrade tierline",
            )
            for what, theirs, ours in pairs
            if theirs is not None and theirs != ours
        ]  # fmt: skip
    return said or [Finding("ok", about, f"the API has {model}, active, as the table of models has it")]


async def collector(environ: Mapping[str, str] = os.environ) -> Finding:
    """Whether spans would arrive: the collector that the environment names is given an empty list of them."""
    wanted = environ.get("OTEL_TRACES_EXPORTER", "")
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Finding("warn", "telemetry", "OTEL_SDK_DISABLED is true: nothing is exported", "unset it to have traces")
    named = next((name for name in _ENDPOINTS if environ.get(name)), None)
    if named is None and "otlp" not in wanted:
        return Finding("skip", "telemetry", "no collector is named (OTEL_EXPORTER_OTLP_ENDPOINT): nothing was tried")
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = protocol or "http/protobuf"
    url = environ[named] if named is not None else _USUAL.get(protocol, _USUAL["http/protobuf"])
    if protocol == "grpc":
        return await _connects(url)
    if named != _ENDPOINTS[0]:
        url = f"{url.rstrip('/')}/v1/traces"
    headers = environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or environ.get("OTEL_EXPORTER_OTLP_HEADERS") or ""
    return await _takes(url, headers_of(headers))


def headers_of(text: str) -> dict[str, str]:
    """Headers as OpenTelemetry writes them into its variables: `name=value,name=value`, percent-encoded."""
    pairs = (part.partition("=") for part in text.split(","))
    return {unquote(name.strip()).lower(): unquote(value.strip()) for name, equals, value in pairs if equals}


async def _takes(url: str, headers: dict[str, str]) -> Finding:
    import httpx2  # noqa: PLC0415  (what the SDK sends with)

    where = _without_password(url)
    try:
        async with httpx2.AsyncClient(timeout=PATIENCE) as client:
            answer = await client.post(url, content=b"", headers={"content-type": "application/x-protobuf", **headers})
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        return Finding(
            "fail", "telemetry", f"{where} cannot be reached: {type(error).__name__}",
            "start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT; OTEL_TRACES_EXPORTER=none is none",
        )  # fmt: skip
    if answer.status_code in _REFUSED:
        return Finding(
            "fail", "telemetry", f"{where} answers {answer.status_code}", "see to OTEL_EXPORTER_OTLP_HEADERS"
        )
    if answer.status_code == _NOT_FOUND:
        return Finding("fail", "telemetry", f"{where} answers 404", "name the collector's address without /v1/traces")
    if answer.status_code >= _FINE:
        return Finding(
            "warn", "telemetry", f"{where} answers {answer.status_code} to an empty export", "see to its log"
        )
    return Finding("ok", "telemetry", f"{where} takes spans")


async def _connects(url: str) -> Finding:
    parts = urlsplit(url if "//" in url else f"//{url}")
    where = _without_password(url)
    try:
        opening = asyncio.open_connection(parts.hostname, parts.port or 4317)
        _, writer = await asyncio.wait_for(opening, PATIENCE)
        writer.close()
    except (OSError, TimeoutError, ValueError) as error:
        return Finding(
            "fail", "telemetry", f"{where} cannot be reached: {type(error).__name__}",
            "start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT; OTEL_TRACES_EXPORTER=none is none",
        )  # fmt: skip
    return Finding("ok", "telemetry", f"{where} listens (gRPC: no span was tried)")


def _without_password(url: str) -> str:
    parts = urlsplit(url if "//" in url else f"//{url}")
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else host
