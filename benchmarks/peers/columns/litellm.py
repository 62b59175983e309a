"""LiteLLM: its SDK, its Router, its Router with rules and a budget, and its proxy, in the settings that are fast.

No telemetry, no fetch of prices (`conductor.QUIET`), nothing logged but errors, no callbacks but the budget's own.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import litellm
from anthropic import APIConnectionError, AsyncAnthropic
from litellm import Router
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

from benchmarks.peers.column import Column, NotDoneError
from benchmarks.peers.columns.sdk import MODEL, answered, calls_of, on_aiohttp, pieces, plain
from benchmarks.upstream import PROSE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from benchmarks.peers.column import World
    from benchmarks.peers.rows import Kind

litellm.telemetry = False
litellm.suppress_debug_info = True

RULED: Final = "LiteLLM Router, rules and budget"
TIERS: Final = ("haiku", "sonnet", "opus")
STARTS: Final = 60.0
"""Seconds within which the proxy has to be there."""
LATE: Final = 0.01
"""Seconds for threads that a call leaves behind."""


async def flush() -> None:
    """Wait for what LiteLLM does after a call, on its queue and on its threads: costs, budgets."""
    await GLOBAL_LOGGING_WORKER.flush()
    await asyncio.sleep(LATE)


def models(world: World) -> list[dict[str, Any]]:
    """A rung for each tier, with a budget, and the rule router over them."""
    budget: dict[str, Any] = {"max_budget": 1_000_000.0, "budget_duration": "1d"}
    rungs = [
        {"model_name": tier, "litellm_params": {"model": f"anthropic/claude-{tier}-5-5", **_at(world), **budget}}
        for tier in TIERS
    ]
    tiers = dict(zip(("SIMPLE", "MEDIUM", "COMPLEX", "REASONING"), (*TIERS, "opus"), strict=True))
    rules: dict[str, Any] = {
        "model": "auto_router/complexity_router",
        "complexity_router_config": {"tiers": tiers, "classifier_type": "heuristic"},
        "complexity_router_default_model": "sonnet",
    }
    return [*rungs, {"model_name": "auto", "litellm_params": rules}]


def _at(world: World) -> dict[str, str]:
    return {"api_base": world.url, "api_key": "none"}


def completions(name: str, acompletion: Callable[..., Any], model: str, spent: Callable[[], float]) -> Column:
    """`acompletion` of the SDK or of a Router. `spent`: what the budget of a Router has counted."""
    before = [spent()]

    def asked(text: str) -> dict[str, Any]:
        return {"model": model, "max_tokens": 800, "messages": [{"role": "user", "content": text}]}

    async def whole(text: str) -> Any:
        return await acompletion(**asked(text))

    async def stream(text: str) -> int:
        return len([piece async for piece in await acompletion(**asked(text), stream=True)])

    def check(kind: Kind, came: Any) -> str:
        if kind == "create" and came.choices[0].message.content != PROSE:
            raise NotDoneError(f"not the upstream's answer: {came}"[:200])
        said = "answered" if kind == "create" else pieces(came)
        if model != "auto":
            return said
        now = spent()
        if now <= before[0]:
            raise NotDoneError(f"the budget counts nothing: {now}")
        said, before[0] = f"{said}, routed by rules, ${now - before[0]:.6f} counted", now
        return said

    return Column(name, {"create": whole, "stream": stream}, check, flush)


def messages(world: World) -> Column:
    """The SDK's `anthropic_messages`, which translates nothing."""

    async def whole(text: str) -> Any:
        asked = [{"role": "user", "content": text}]
        return await litellm.anthropic_messages(
            model=f"anthropic/{MODEL}", max_tokens=800, messages=asked, **_at(world)
        )

    def check(_: Kind, came: Any) -> str:
        if came["content"][0]["text"] != PROSE:
            raise NotDoneError(f"not the upstream's answer: {came}"[:200])
        return "answered"

    return Column("LiteLLM SDK, anthropic_messages", {"create": whole}, check, flush)


@contextmanager
def proxy(world: World) -> Iterator[tuple[str, str, int]]:
    """The proxy with the same models, one worker, no database: its base URL, its key, and its process."""
    config, log = Path(world.folder) / "litellm.json", Path(world.folder) / "litellm.log"
    key = f"sk-{secrets.token_hex(16)}"  # it refuses to start without one
    settings = {"litellm_settings": {"telemetry": False}, "general_settings": {"master_key": key}}
    config.write_text(json.dumps({"model_list": models(world), **settings}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("litellm"), "--config", config, "--host", "127.0.0.1", "--port", port]
    with log.open("wb") as said, subprocess.Popen(list(map(str, command)), stdout=said, stderr=said) as process:
        try:
            yield f"http://127.0.0.1:{port}", key, process.pid
        finally:
            process.terminate()


def cpu_of(process: int) -> float:
    """CPU seconds of all threads of another process, by its clock (Linux; what CPUCLOCK_SCHED is there)."""
    return time.clock_gettime((~process << 3) | 2)


async def through(url: str, key: str, process: int) -> Column:
    """The plain SDK, whose upstream is the proxy. It is told of the proxy's CPU beside its own."""
    client = AsyncAnthropic(api_key=key, base_url=url, max_retries=0)
    until = time.monotonic() + STARTS
    while True:
        try:
            raw = await client.messages.with_raw_response.create(
                model="auto", max_tokens=800, messages=[{"role": "user", "content": "What is a crank bolt?"}]
            )
            break
        except APIConnectionError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.2)
    if not float(raw.headers.get("x-litellm-response-cost", "0")):
        raise NotDoneError(f"the proxy tells no cost: {raw.headers}")
    return Column("LiteLLM proxy, rules and budget", calls_of(client, "auto"), answered, beside=lambda: cpu_of(process))


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[list[Column]]:
    """All of them."""
    # Of two Routers with budgets in one process, only the first counts.
    alone = Router(
        model_list=[{"model_name": "haiku", "litellm_params": {"model": f"anthropic/{MODEL}", **_at(world)}}]
    )
    ruled = Router(model_list=models(world))

    def spent() -> float:
        counted = ruled.cache.in_memory_cache.cache_dict
        return sum(value for key, value in counted.items() if key.startswith("deployment_spend:"))

    with proxy(world) as (url, key, process):
        yield [
            plain(world),
            on_aiohttp(world),
            completions("LiteLLM SDK", partial(litellm.acompletion, **_at(world)), f"anthropic/{MODEL}", float),
            messages(world),
            completions("LiteLLM Router", alone.acompletion, "haiku", float),
            completions(RULED, ruled.acompletion, "auto", spent),
            await through(url, key, process),
        ]
