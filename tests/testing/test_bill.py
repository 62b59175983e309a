"""Bills, against the table of prices written out by hand."""

from __future__ import annotations

import pytest

from tierline.testing._bill import bill
from tierline.values import Usage

# Nano-USD for one token: input, output, cache write 5m and 1h, cache read.
PRICES = {
    "claude-haiku-5-5": (100, 500, 125, 200, 10),
    "claude-sonnet-5-5": (2_000, 10_000, 2_500, 4_000, 100),
    "claude-opus-5-5": (4_000, 20_000, 5_000, 8_000, 200),
    "claude-fable-5-2": (8_000, 40_000, 10_000, 16_000, 200),
    "claude-haiku-4-5": (1_000, 5_000, 1_250, 2_000, 100),
    "claude-sonnet-4-6": (3_000, 15_000, 3_750, 6_000, 300),
    "claude-opus-4-8": (5_000, 25_000, 6_250, 10_000, 500),
}
USAGE = Usage(input_tokens=7, output_tokens=11, cache_write_5m=13, cache_write_1h=17, cache_read=19, web_searches=2)


@pytest.mark.parametrize("model", PRICES)
def test_list_prices(model: str) -> None:
    """Every kind of token has its price, and a search costs a cent."""
    fresh, output, five, hour, read = PRICES[model]
    tokens = 7 * fresh + 11 * output + 13 * five + 17 * hour + 19 * read
    assert bill(model, USAGE, geo=None, fast=False) == tokens + 20_000_000
    assert bill(model, USAGE, geo="global", fast=False) == tokens + 20_000_000
    assert bill(model, USAGE, geo="us", fast=False) == -(-tokens * 11 // 10) + 20_000_000


@pytest.mark.parametrize("model", ["claude-opus-4-8", "claude-opus-5-5", "claude-fable-5-2"])
def test_fast_is_twice_as_dear(model: str) -> None:
    """Tokens cost twice as much, searches do not."""
    plain = bill(model, USAGE, geo=None, fast=False) - 20_000_000
    assert bill(model, USAGE, geo=None, fast=True) == 2 * plain + 20_000_000


def test_long_prompts_of_haiku_5_5() -> None:
    """Over 100,000 tokens, cached or not, all of the call is five times as dear."""
    assert bill("claude-haiku-5-5", Usage(100_000, 10), geo=None, fast=False) == 100_000 * 100 + 10 * 500
    assert (
        bill("claude-haiku-5-5", Usage(1, 10, cache_read=100_000), geo=None, fast=False) == 500 + 50 * 100_000 + 25_000
    )


def test_rounded_up_once_and_nothing_is_free_of_charge() -> None:
    """A fraction of a nano-dollar counts as one; no tokens cost nothing; no price is an error."""
    assert bill("claude-haiku-5-5", Usage(1, 0, cache_read=1), geo="us", fast=False) == 121
    assert bill("claude-haiku-5-5", Usage(cache_write_5m=1), geo="us", fast=False) == 138  # 137.5
    assert bill("claude-haiku-5-5", Usage(web_searches=3), geo=None, fast=False) == 0
    with pytest.raises(LookupError):
        bill("claude-nothing", Usage(1), geo=None, fast=False)
