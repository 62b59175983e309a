"""A fake on a socket, and the real SDK in front of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from anthropic import AsyncAnthropic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tierline.testing import FakeClaude


@pytest.fixture
async def client(fake: FakeClaude) -> AsyncIterator[AsyncAnthropic]:
    """The SDK, connected to `fake` over a real socket, without retries."""
    async with fake.serve() as url, AsyncAnthropic(api_key=fake.api_key, base_url=url, max_retries=0) as sdk:
        yield sdk
