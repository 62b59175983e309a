"""What one tenant can learn of another, or take from it: F of the hostile catalogue, 78 and 79.

How long things take is measured by `python -m benchmarks.oracle`, and by no test. Here it is shown that there is
nothing to be measured: who asks what another tenant has asked goes the very same way as who asks something new.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tierline
from tests.apps import app_of
from tierline import Budget
from tierline.classify import ClaudeClassifier, VerdictCache, View, default_classifier
from tierline.classify.cache import About
from tierline.evaluation.opinions import Offline
from tierline.values import Classification
from tierline.verdicts.sealing import Sealing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tests.apps import Serve
    from tierline import Decision, Router
    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

pytestmark = pytest.mark.usefixtures("quiet")

CODE = str(Path(tierline.__file__).parent)
LOOKS = 10_000
NAMES = [None, "", "a", "b", "ab", "a/b", "None", "null", "0", "acme", "ACME", "acme ", "acme|globex", "acmeglobex"]
"""Tenants that could be taken for each other."""


async def ask(router: Router, tenant: str | None, text: str) -> Decision:
    async with router.bind(tenant=tenant, route="/answer") as binding:
        await router.claude.messages.create(model="auto", max_tokens=900, messages=[{"role": "user", "content": text}])
    return binding.decisions[-1]


def shape(decision: Decision) -> Any:
    """All that a client could be shown of a decision, but its ids and times."""
    return (
        decision.tier, decision.source, decision.label, decision.reasons, decision.cost, decision.classifier_cost,
        decision.saved, [(each.tier, each.role, each.outcome, each.cost) for each in decision.attempts],
        [each.remaining for each in decision.budgets],
    )  # fmt: skip


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_cross_tenant_cache_and_timing(
    make_router: MakeRouter, fake: FakeClaude, tmp_path: Path, store: str
) -> None:
    """78: what a tenant is answered, and asked of the API for it, is the same whatever others have asked before."""
    worlds = [
        make_router(
            classifier=ClaudeClassifier(),
            budgets=[Budget("$9/day", per="tenant", name="each")],
            store="memory://" if store == "memory" else f"sqlite:///{tmp_path / name}",
        )
        for name in ("heard", "unheard")
    ]
    for n in range(25):
        text = f"Is order {n} late?"
        await ask(worlds[0], "acme", text)
        await ask(worlds[1], "acme", f"Where is parcel {n}?")
        told = []
        for router in worlds:
            before = len(fake.requests)
            found = await ask(router, f"b{n}", text)
            told.append((shape(found), [(r.path, r.body) for r in fake.requests[before:]]))
        assert told[0] == told[1]
        assert (told[0][0][1], len(told[0][1])) == ("claude", 2)
        again = await ask(worlds[0], "acme", text)
        assert (again.source, again.classifier_cost) == ("cache", 0)
    stats = [router.cache.stats() for router in worlds]
    assert [(each.hits, each.joined, each.stored) for each in stats] == [(25, 0, 0), (0, 0, 0)]


async def test_10_000_looks_across_tenants(tmp_path: Path, make_router: MakeRouter) -> None:
    """78: of ten thousand looks at what others have asked none is a hit, on either level."""
    router = make_router(store=f"sqlite:///{tmp_path / 'tierline.db'}")
    sealing = Sealing(b"a secret", "claude-haiku-5-5")
    cache, asked, stored = router.cache, 0, set()

    async def verdict() -> Classification | None:
        nonlocal asked
        asked += 1
        return None

    texts = LOOKS // (len(NAMES) * (len(NAMES) - 1)) + 1
    for n in range(texts):
        view = View(f"Is order {n} late?")
        for owner in NAMES:
            about = About(view, owner, "f", "1")
            stored.add(sealing.key(about))
            key = cache.key(view, tenant=owner, fingerprint="f", version="1")
            assert await cache.get_or_ask(key, verdict, about) == (None, False)
    assert asked == len(stored) == texts * len(NAMES)
    hits = looks = 0
    for n in range(texts):
        view = View(f"Is order {n} late?")
        for owner in NAMES:
            cache.clear()
            cache.put(
                cache.key(view, tenant=owner, fingerprint="f", version="1"), Classification("simple", 1.0, "claude", 9)
            )
            for other in NAMES:
                found = cache.peek(cache.key(view, tenant=other, fingerprint="f", version="1"))
                if other != owner:
                    looks += 1
                    hits += found is not None
                else:
                    assert found is not None
    assert (hits, looks >= LOOKS) == (0, True)


async def test_nobody_joins_another_tenants_flight(make_router: MakeRouter, fake: FakeClaude) -> None:
    """78: those who ask the same at the same time wait for each other's answer within a tenant, and never beyond."""
    router = make_router(classifier=ClaudeClassifier(), verdict_window=0.2)
    tenants = [None, "acme", "globex", "initech"] * 4
    found = await asyncio.gather(*(ask(router, tenant, "Is the order late?") for tenant in tenants))
    asked = [request for request in fake.requests if request.body["max_tokens"] != 900]
    # One question for each tenant; and none has another's text in it.
    assert len(asked) == router.cache.stats().misses == 4
    assert router.cache.stats().joined == 12
    assert sorted(decision.source for decision in found) == ["cache"] * 12 + ["claude"] * 4


def lines_of(run: Callable[[], object]) -> list[tuple[str, int]]:
    """The lines of Tierline's own code that ran."""
    seen: list[tuple[str, int]] = []

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(CODE):
            return None
        if event == "line":
            seen.append((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return seen


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def test_the_same_lines_run(runner: asyncio.Runner) -> None:
    """78: whether another tenant has asked changes no line that a look at the cache and the classifiers runs."""
    text, other = "Which of both offers is cheaper over five years, if the rate rises?", "And which one is dearer?"
    told = []
    for before in (text, other):
        cache, classifier = VerdictCache(secret=b"s"), default_classifier()

        def look(tenant: str, text: str, cache: Any = cache, classifier: Any = classifier) -> object:
            consult = Offline()
            consult.tenant = tenant
            about = About(View(text), tenant, "f", "1")
            key = cache.key(about.view, tenant=tenant, fingerprint="f", version="1")
            return runner.run(cache.get_or_ask(key, lambda: classifier.classify(about.view, consult), about))

        look("a", "This is the first of all.")
        look("a", before)
        told.append([lines_of(lambda: look("b", text)), lines_of(lambda: look("b", text))])
    assert told[0] == told[1]
    assert len(told[0][1]) < len(told[0][0]) / 2


async def test_cache_flood_unique_prompts(make_router: MakeRouter, fake: FakeClaude) -> None:
    """79: who asks something new each time fills no more than half of the cache, and pays for it alone."""
    router = make_router(
        classifier=ClaudeClassifier(), cache_size=40, budgets=[Budget("$9/day", per="tenant", name="each")],
    )  # fmt: skip
    for n in range(15):
        await ask(router, "acme", f"Is order {n} late?")
    before = {each.account: each.spent for each in await router.balances()}
    for n in range(120):
        await ask(router, "mallory", f"Is parcel {n} late?")
    assert router.cache.stats().size <= 40
    assert [(await ask(router, "acme", f"Is order {n} late?")).source for n in range(15)] == ["cache"] * 15
    after = {each.account: each.spent for each in await router.balances()}
    sent = [r for r in fake.requests if "order" in str(r.body) and r.body["max_tokens"] != 900]
    assert len(sent) == 15
    assert after["mallory"] > after["acme"] > before["acme"]
    assert sum(after.values()) == fake.billed == router.report().cost


async def test_what_headers_tell(make_router: MakeRouter, serve: Serve) -> None:
    """78: the headers of an answer tell a tenant of its own cache, and of nobody else's."""
    browser = await serve(app_of(make_router(classifier=ClaudeClassifier()), headers=True))
    sources = []
    for tenant in ("acme", "globex", "acme", "globex", "mallory"):
        found = await browser.get("/answer?q=Is+it+late", headers={"x-tenant": tenant})
        sources.append(found.headers["x-tierline-source"])
    assert sources == ["claude", "claude", "cache", "cache", "claude"]
