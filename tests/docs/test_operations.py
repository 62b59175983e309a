"""What docs/operations.md shows does what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from tests.pages import DOCS, names_of
from tierline.errors import LedgerUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_the_app_is_ready(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two routes answer as they are said to; with its ledger away the app is alive, and not ready."""
    names = names_of(DOCS / "operations.md", "FastAPI")
    app, router = names["app"], names["router"]
    async with (
        router.lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http,
    ):
        assert ((await http.get("/ready")).status_code, (await http.get("/alive")).status_code) == (200, 200)

        async def away() -> None:
            raise LedgerUnavailableError("gone")

        monkeypatch.setattr(router.ledger, "ping", away)
        found = await http.get("/ready")
        assert (found.status_code, (await http.get("/alive")).status_code) == (503, 200)
        assert "gone" in found.json()[0]
