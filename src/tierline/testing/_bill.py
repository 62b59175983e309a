"""What a call costs, worked out apart from Tierline's own prices, so that the one checks the other."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Final

from tierline.values import Usage

_NANO: Final = Decimal(1_000_000_000)
_SEARCH: Final = Decimal(10) / 1000
"""Dollars for one web search."""
_US: Final = Decimal("1.1")
"""Multiplies the price of tokens where `inference_geo` is `us`."""


def bill(model: str, usage: Usage, *, geo: str | None, fast: bool, batch: bool = False) -> int:
    """Nano-USD for one call, rounded up once.

    Prices are those of `genai-prices` on today's date. Raises LookupError for a model without a price.
    """
    return _bill(model, usage, geo, fast, batch, datetime.now(UTC).date())


@lru_cache(maxsize=4096)
def _bill(model: str, usage: Usage, geo: str | None, fast: bool, batch: bool, _today: date) -> int:
    """The same, once for each kind of call and day: the arithmetic of the price list takes a third of a millisecond."""
    import genai_prices  # noqa: PLC0415 - takes 0.2 s to import

    if usage.prompt_tokens == 0 and usage.output_tokens == 0:
        return 0
    tokens = genai_prices.Usage(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write_5m + usage.cache_write_1h,
        cache_write_5m_tokens=usage.cache_write_5m,
        cache_write_1h_tokens=usage.cache_write_1h,
        output_tokens=usage.output_tokens,
    )
    context = {"processing": "batch"} if batch else {"speed": "fast"} if fast else None
    price = genai_prices.calc_price(tokens, model, provider_id="anthropic", price_context=context)
    total = price.total_price * (_US if geo == "us" else 1) + usage.web_searches * _SEARCH
    return int((total * _NANO).to_integral_value(rounding=ROUND_CEILING))


def load_prices() -> None:
    """Import the prices now (0.2 s), so that no request waits for it."""
    bill("claude-haiku-4-5", Usage(1), geo=None, fast=False)
