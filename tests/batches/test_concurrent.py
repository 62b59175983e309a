"""The concurrent lane, from end to end: over a socket, in time that goes by itself."""

from __future__ import annotations

import pytest

from tests.batches.world import requests, world
from tierline import policy


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: object) -> str:
    """A store that goes by the clock of a test."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/a.db"


both = pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)


@both
async def test_every_request_is_answered_once_in_order(store: str) -> None:
    """At the list price; what the ledger has is what was billed, and by account what the job's report says."""
    async with world(store) as it:
        router = it.router()
        said = [*requests(60, tenant="acme"), *requests(60, 60, policy=policy(tier="opus"))]
        job = await router.batches.submit(said, job="now", lane="concurrent")
        done = await router.batches.status(job)
        assert (done.state, done.submitted, done.succeeded, done.processing) == ("ended", 120, 120, 0)
        found = [each async for each in router.batches.results(job)]
        assert [(each.custom_id, each.place, each.outcome, each.tries) for each in found] == [
            (f"r{n}", n, "succeeded", 1) for n in range(120)
        ]
        assert all(each.message is not None and each.message.content for each in found)
        assert {each.tier for each in found[:60]} == {"haiku"}
        assert {each.model for each in found[60:]} == {"claude-opus-4-8"}
        assert done.cost == sum(each.cost for each in found) == it.fake.billed == await it.spent(router)
        report = await router.batches.report(job)
        assert {(each.tenant, each.tier): each.cost for each in report.shares} == {
            ("acme", "haiku"): sum(each.cost for each in found[:60]),
            (None, "opus"): sum(each.cost for each in found[60:]),
        }
        assert report.total.saved > 0
        await router.batches.delete(job)
