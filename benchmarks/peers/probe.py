"""A fresh process that says what it took to start: `python -m benchmarks.peers.probe SUBJECT URL`, or `… sizes NAME…`.

An app has FastAPI and, but where the SDK itself is the subject, the SDK. What the subject adds to its import is timed
by itself; then come a client, one call, and the memory that the process has after it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import sys
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

APP: Final = ("fastapi", "starlette.middleware")
SUBJECTS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "sdk": (APP, ("anthropic",)),
    "tierline": ((*APP, "anthropic"), ("tierline",)),
    "pydantic_ai": ((*APP, "anthropic"), ("pydantic_ai", "pydantic_ai.models.anthropic")),
    "litellm": ((*APP, "anthropic"), ("litellm",)),
}
"""What an app has, and what the subject adds to it."""
_EXTRA: Final = re.compile(r"extra *== *[\"']([^\"']+)")
_NAME: Final = re.compile(r"[\w.\-]+(?:\[[^\]]+\])?")
_TEXT: Final = "What is a crank bolt?"


def resident() -> int:
    """Bytes of memory that this process has resident."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def caller(subject: str, url: str) -> Callable[[], Awaitable[Any]]:
    """What makes a client and its first call."""
    asked: dict[str, Any] = {"max_tokens": 800, "messages": [{"role": "user", "content": _TEXT}]}
    if subject == "litellm":
        litellm = import_module("litellm")
        haiku = {"model": "anthropic/claude-haiku-5-5", "api_base": url, "api_key": "none"}
        return lambda: litellm.acompletion(**asked, **haiku)
    if subject == "pydantic_ai":
        models = import_module("pydantic_ai.models.anthropic")
        providers = import_module("pydantic_ai.providers.anthropic")
        provider = providers.AnthropicProvider(api_key="none", base_url=url)
        agent = import_module("pydantic_ai").Agent(models.AnthropicModel("claude-haiku-5-5", provider=provider))
        return lambda: agent.run(_TEXT)
    client: Any = import_module("anthropic").AsyncAnthropic(api_key="none", base_url=url)
    model: str = "claude-haiku-5-5"
    bind: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext
    if subject == "tierline":
        tierline = import_module("tierline")
        import_module("tierline.fastapi")
        import_module("tierline.asgi")
        budgets = [tierline.Budget("$50/day"), tierline.Budget("$2/hour", per="tenant")]
        router = tierline.Router(client, budgets=budgets)
        client, model, bind = router.claude, "auto", partial(router.bind, tenant="acme")

    async def call() -> Any:
        async with bind():
            return await client.messages.create(model=model, **asked)

    return call


def started(subject: str, url: str) -> dict[str, float]:
    """Seconds (of CPU, and on the clock) of its import and until its first answer after that; bytes of memory."""
    has, adds = SUBJECTS[subject]
    for name in has:
        import_module(name)
    gc.collect()  # else somebody pays, by chance, for a walk through all that was imported before
    cpu, clock, memory = time.process_time(), time.perf_counter(), resident()
    for name in adds:
        import_module(name)
    found = {
        "import cpu": time.process_time() - cpu,
        "import clock": time.perf_counter() - clock,
        "import memory": resident() - memory,
    }
    cpu, clock = time.process_time(), time.perf_counter()

    async def main() -> None:
        await caller(subject, url)()

    asyncio.run(main())
    return found | {
        "call cpu": time.process_time() - cpu, "call clock": time.perf_counter() - clock, "memory": resident()
    }  # fmt: skip


def sizes(names: list[str]) -> dict[str, int]:
    """Bytes of each package that these bring, themselves included, without bytecode; extras as `name[extra]`."""
    found: dict[str, int] = {}
    seen, left = set(), list(names)
    while left:
        wanted = left.pop()
        name, _, extras = wanted.rstrip("]").partition("[")
        if wanted in seen:
            continue
        seen.add(wanted)
        try:
            package = distribution(name)
        except PackageNotFoundError:  # it is wanted elsewhere only: on other systems, by other Pythons
            continue
        found[name] = sum(each.size or 0 for each in package.files or () if each.suffix != ".pyc")
        for line in package.requires or ():
            requirement, _, marker = line.partition(";")
            asked = _EXTRA.search(marker)
            if (asked is None or asked[1] in extras.split(",")) and (match := _NAME.match(requirement)):
                left.append(re.sub(r"[-_.]+", "-", match[0]).lower())
    return found


if __name__ == "__main__":
    print(json.dumps(sizes(sys.argv[2:]) if sys.argv[1] == "sizes" else started(sys.argv[1], sys.argv[2])))
