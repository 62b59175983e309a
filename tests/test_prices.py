from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from genai_prices import Usage as ListUsage
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from tierline.errors import ConfigurationError
from tierline.prices import PriceBook, Rates
from tierline.values import NANO, REGIONAL, Terms, Usage

DAY = date(2026, 11, 21)
ANTHROPIC = next(provider for provider in get_snapshot().providers if provider.id == "anthropic")
CLAUDES = [model.id for model in ANTHROPIC.models]
FLAT = Rates(input=3, output=15, cache_write_5m=4, cache_write_1h=6, cache_read=1, web_search=7)

book = PriceBook(today=lambda: DAY)

# Around the steps of the price list, and small enough that rounding shows.
tokens = st.one_of(st.integers(0, 50), st.integers(0, 2_000_000), st.sampled_from([99_999, 100_000, 100_001, 200_001]))
usages = st.builds(Usage, tokens, tokens, tokens, tokens, tokens, st.integers(0, 20))
geos = st.sampled_from([None, "global", "us", "not_available", "eu"])
terms = st.sampled_from([Terms(), Terms(batch=True), Terms(fast=True)])


def listed(model: str, usage: Usage, context: dict[str, str] | None, day: date = DAY) -> int:
    """The cost as genai-prices has it: its `input_tokens` are the whole prompt, cached tokens included."""
    info = ANTHROPIC.find_model(model)
    assert info is not None
    price = info.calc_price(
        ListUsage(
            input_tokens=usage.prompt_tokens,
            cache_write_tokens=usage.cache_write_5m + usage.cache_write_1h,
            cache_write_5m_tokens=usage.cache_write_5m,
            cache_write_1h_tokens=usage.cache_write_1h,
            cache_read_tokens=usage.cache_read,
            output_tokens=usage.output_tokens,
            web_searches=usage.web_searches,
        ),
        ANTHROPIC,
        genai_request_timestamp=datetime(day.year, day.month, day.day, 12, tzinfo=UTC),
        price_context=context,
    )
    return ceil(price.total_price * NANO)


@settings(max_examples=600)
@given(st.sampled_from(CLAUDES), usages, terms)
def test_cost_is_that_of_genai_prices(model: str, usage: Usage, how: Terms) -> None:
    """For every Claude model, standard, batch and fast, the cost agrees to the nano-USD."""
    context = {"processing": "batch"} if how.batch else {"speed": "fast"} if how.fast else None
    info = ANTHROPIC.find_model(model)
    assert info is not None
    cost = book.cost(model, usage, how)
    if context and not any(variant.when == context for variant in info.price_variants or ()):
        assert cost is None
    else:
        assert cost == listed(model, usage, context)


@settings(max_examples=600)
@given(st.sampled_from(CLAUDES), usages, terms, st.tuples(geos, geos), st.data())
def test_worst_is_never_below_cost(model, usage, how, where, data) -> None:
    """Whatever a call uses within its bounds, and wherever it then runs, it costs at most the worst case."""
    asked, ran = where
    ttl = data.draw(st.sampled_from([None, "5m", "1h"]))
    if ttl is None:
        usage = Usage(usage.input_tokens, usage.output_tokens, 0, 0, usage.cache_read, usage.web_searches)
    elif ttl == "5m":
        usage = Usage(
            usage.input_tokens, usage.output_tokens, usage.cache_write_5m, 0, usage.cache_read, usage.web_searches
        )
    if asked == "global":
        ran = "global"
    more = data.draw(st.tuples(*[st.integers(0, 300_000)] * 2))
    worst = book.worst(
        model,
        input_tokens=usage.prompt_tokens + more[0],
        output_tokens=usage.output_tokens + more[1],
        web_searches=usage.web_searches,
        cache_ttl=ttl,
        terms=Terms(how.batch, how.fast, asked),
    )
    cost = book.cost(model, usage, Terms(how.batch, how.fast, ran))
    assert (worst is None) == (cost is None)
    assert worst is None or cost is None or worst >= cost


def test_worst_is_reached() -> None:
    """A request that fills its bounds at the dearest rates costs exactly the worst case: nothing is added on top."""
    usage = Usage(output_tokens=500, cache_write_1h=150_000, web_searches=2)
    how = Terms(geo="us")
    worst = book.worst(
        "claude-haiku-5-5", input_tokens=150_000, output_tokens=500, web_searches=2, cache_ttl="1h", terms=how
    )
    assert worst == book.cost("claude-haiku-5-5", usage, how)


def test_worst_looks_at_both_sides_of_a_step() -> None:
    """Where the far side of a step is the cheaper one, a prompt that stops at the step is the worst case."""
    odd = PriceBook(
        {"odd": Rates(1000, 0, 0, 0, 0, step_above=1_000_000, stepped=Rates(10, 0, 0, 0, 0))}, today=lambda: DAY
    )
    how = Terms(geo="global")
    assert odd.worst("odd", input_tokens=1_000_001, output_tokens=0, terms=how) == 1000
    assert odd.cost("odd", Usage(1_000_001), how) == 11


def test_steps_fast_mode_and_geography() -> None:
    """The step begins one token above it, fast mode and the US each have their factor, and searches have none."""
    at, above = Usage(input_tokens=100_000), Usage(input_tokens=100_001)
    assert book.cost("claude-haiku-5-5", at) == 10_000_000
    assert book.cost("claude-haiku-5-5", above) == 50_000_500
    million = Usage(1_000_000, web_searches=1)
    assert book.cost("claude-opus-5-5", million) == 4_010_000_000
    assert book.cost("claude-opus-5-5", million, Terms(fast=True)) == 8_010_000_000
    assert book.cost("claude-opus-5-5", million, Terms(geo="us")) == 4_410_000_000
    assert book.cost("claude-haiku-4-5", million, Terms(geo="us")) == 1_010_000_000


def test_an_hour_in_the_cache() -> None:
    """A token that is kept for an hour costs twice a fresh one."""
    assert book.cost("claude-sonnet-5-5", Usage(cache_write_1h=1_000_000)) == 4 * NANO


@given(usages)
def test_geography_is_exact(usage: Usage) -> None:
    """The factor of the US is eleven tenths of the exact sum, rounded up once."""
    rates = book.rates("claude-fable-5-2")
    assert rates is not None
    tokens = (
        usage.input_tokens * rates.input
        + usage.output_tokens * rates.output
        + usage.cache_write_5m * rates.cache_write_5m
        + usage.cache_write_1h * rates.cache_write_1h
        + usage.cache_read * rates.cache_read
    )
    expected = ceil(Fraction(tokens * 11, 10 * 1_000_000)) + usage.web_searches * rates.web_search
    assert book.cost("claude-fable-5-2", usage, Terms(geo="us")) == expected


def test_rounding_drift_1e5_calls() -> None:
    """Each call is rounded up once, so a hundred thousand of them are off by less than a nano-USD each."""
    usage = Usage(1, 1)
    exact = Fraction(3_000_000_000 + 15_000_000_000, 1_000_000)
    cheap = Fraction(100_000_000 + 500_000_000, 1_000_000)
    assert book.cost("claude-sonnet-4-6", usage) == exact
    total = sum(book.cost("claude-haiku-5-5", usage) or 0 for _ in range(100_000))
    assert 0 <= total - 100_000 * cheap < 100_000
    assert isinstance(total, int)


@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("claude-haiku-4-5-20251001", 5),
        ("claude-opus-4-20250514", 75),
        ("claude-sonnet-5-5-20260901", 10),
        ("CLAUDE-OPUS-5-5", 20),
        ("claude-3-5-haiku-20241022", 4),
        ("claude-opus-5-5@20260901", 20),  # Vertex
    ],
)
def test_ids_are_matched_as_genai_prices_does(model: str, output: int) -> None:
    """Dated ids, aliases, upper case and Vertex ids have the price of their model."""
    assert book.list_output_price(model) == output * NANO


def test_bedrock_ids_have_the_price_of_bedrock() -> None:
    """A regional id of Bedrock has its surcharge in the list, so no factor of geography comes on top."""
    model = "us.anthropic.claude-opus-5-5"
    assert book.list_output_price(model) == 22 * NANO
    assert book.worst(model, input_tokens=0, output_tokens=1_000_000) == 22 * NANO


@pytest.mark.parametrize("model", ["", "gpt-99", "claude-haiku-9", "gemini-embedding-001", "claude-" + "x" * 10_000])
def test_a_model_that_nobody_knows(model: str) -> None:
    """A model that nobody knows has no price: not zero, and not a neighbour's."""
    assert book.rates(model) is None
    assert book.cost(model, Usage(1)) is None
    assert book.worst(model, input_tokens=1, output_tokens=1) is None
    assert book.list_output_price(model) is None


def test_a_variant_that_does_not_exist_has_no_price() -> None:
    """Fast mode on a model without one, and a fast batch, are not priced as standard."""
    assert book.rates("claude-haiku-5-5", Terms(fast=True)) is None
    assert book.rates("claude-opus-5-5", Terms(batch=True, fast=True)) is None


def test_web_search_is_inherited_from_the_standard_price() -> None:
    """Batches are half price, but not the searches in them."""
    batch = book.rates("claude-opus-5-5", Terms(batch=True))
    assert batch is not None
    assert (batch.input, batch.web_search) == (2 * NANO, 10_000_000)


def test_prices_follow_the_day() -> None:
    """A price holds from its day on, in one book, without a restart."""
    days = [date(2026, 3, 12)]
    dated = PriceBook(today=lambda: days[-1])
    usage = Usage(input_tokens=300_000)
    before = dated.cost("claude-opus-4-6", usage)
    days.append(date(2026, 3, 13))
    assert (before, dated.cost("claude-opus-4-6", usage)) == (3 * NANO, 1_500_000_000)
    assert before == listed("claude-opus-4-6", usage, None, days[0])
    assert dated.rates("claude-opus-4-6", Terms(batch=True)) is None  # not before October 2026


@pytest.mark.parametrize(
    "model", ["haiku-4-5-20251001", "haiku-5-5", "sonnet-4-6", "sonnet-5-5", "opus-4-8", "opus-5-5"]
)
@pytest.mark.parametrize("version", ["", "-v1:0"])
def test_ids_of_bedrock(model: str, version: str) -> None:
    """`global.` has the list price; every region, by whatever name or ARN, and no region a tenth more."""
    usage = Usage(1_000, 1_000, 1_000, 1_000, 1_000)
    listed = book.cost(f"claude-{model}", usage)
    assert listed is not None
    assert book.cost(f"global.anthropic.claude-{model}{version}", usage) == listed
    profile = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/"
    for place in ("", "us.", "apac.", "never-heard-of.", f"{profile}eu."):
        found = f"{place}anthropic.claude-{model}{version}"
        assert book.cost(found, usage) == ceil(Fraction(listed * 11, 10))
        assert book.worst(found, input_tokens=10, output_tokens=10) == book.cost(found, Usage(10, 10))
    assert book.rates("us.anthropic.claude-unheard-of-9") is None
    assert book.rates("us.anthropic.claude-haiku-5-5-mini") is None  # nor a price of Google's for what it looks like
    assert book.rates("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc") is None


@pytest.mark.parametrize(
    ("model", "tenths"),
    [("claude-haiku-4-5@20251001", 11), ("claude-sonnet-5-5", 11), ("claude-opus-5-5@default", 11),
     ("claude-3-haiku@20240307", 10), ("claude-opus-4-1@20250805", 10)],
)  # fmt: skip
def test_regional_endpoints_of_vertex(model: str, tenths: int) -> None:
    """A regional endpoint costs a tenth more, from the models on that have one, and is held so; the global one not."""
    usage = Usage(1_000_000, 1_000_000)
    plain = book.cost(model, usage)
    assert plain is not None
    assert book.cost(model, usage, Terms(geo="global")) == plain
    assert book.cost(model, usage, Terms(geo=REGIONAL)) == plain * tenths // 10
    worst = book.worst(model, input_tokens=1_000_000, output_tokens=1_000_000, terms=Terms(geo=REGIONAL))
    assert worst == plain * tenths // 10


def test_overrides_come_first() -> None:
    """A price of the app's own holds for its id and the dated ids of that model; a batch is half of it."""
    own = PriceBook({"claude-opus-5-5": FLAT, "mine": FLAT}, today=lambda: DAY)
    assert own.rates("mine") == own.rates("claude-opus-5-5-20260901") == FLAT
    assert own.rates("mine", Terms(batch=True)) == Rates(2, 8, 2, 3, 1, 7)
    assert own.rates("mine", Terms(fast=True)) is None
    assert own.cost("mine", Usage(1_000_000)) == 3
    stepped = Rates(3, 3, 3, 3, 3, step_above=5, stepped=FLAT)
    halved = PriceBook({"mine": stepped}).rates("mine", Terms(batch=True))
    assert halved is not None
    assert halved.stepped == Rates(2, 8, 2, 3, 1, 7)


@pytest.mark.parametrize(
    "words",
    [
        {"input": 0.1},
        {"output": -1},
        {"cache_read": True},
        {"input": Decimal(1)},
        {"step_above": 5},
        {"stepped": FLAT},
        {"step_above": -5, "stepped": FLAT},
    ],
)
def test_rates_name_what_is_wrong(words: dict[str, object]) -> None:
    """Floats, negative numbers and half a step are configuration errors that name the field."""
    values = {"input": 1, "output": 1, "cache_write_5m": 1, "cache_write_1h": 1, "cache_read": 1} | words
    with pytest.raises(ConfigurationError, match=next(iter(words))):
        Rates(**values)


def test_an_override_that_is_no_rates() -> None:
    """The model whose override is wrong is named."""
    with pytest.raises(ConfigurationError, match="mine"):
        PriceBook({"mine": 5})


def test_the_table_is_bounded() -> None:
    """Ids come from callers, and a flood of them does not grow the book."""
    flooded = PriceBook(today=lambda: DAY)
    for number in range(3_000):
        assert flooded.rates(f"claude-none-{number}") is None
    assert flooded._table is not None
    assert len(flooded._table.rows) <= 1024
    assert flooded.rates("claude-opus-5-5") is not None


def test_the_price_list_is_imported_on_first_use() -> None:
    """Importing the module does not import genai-prices."""
    code = "import sys, tierline.prices as p; p.PriceBook(); print('genai_prices' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "False"
