"""What a call costs, and the most that it can cost: list prices as integers.

`genai-prices` keeps the public prices of every model with their dates. Asking it takes 75 µs and decimals; so each
(model, terms) is compiled once a day to whole nano-USD, and after that a price is a dict lookup.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from time import time as clock
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from tierline.errors import ConfigurationError
from tierline.ladder import resource
from tierline.models import LARGEST_WINDOW, model_of
from tierline.values import NANO, NO_PRICE, REGIONAL, Offer, Terms, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice

    from tierline.call import Call

STANDARD: Final = Terms()

# Claude is sold under ids of its own, of Bedrock (AWS) and of Vertex (Google); the first that knows an id prices it.
_PROVIDERS: Final[tuple[str, ...]] = ("anthropic", "aws", "google")

# Data residency is in no machine-readable price list. From Anthropic's (https://platform.claude.com/docs/en/
# about-claude/pricing, read 2026-11-21): inference in the US costs 1.1 times all token prices, on models from 4.6 on.
# Older ones, which are listed here, refuse `inference_geo`. Tools that are not billed by the token are left alone.
_GEO_TENTHS: Final = 11
_PLAIN_TENTHS: Final = 10
# Vertex asks as much for its regional endpoints, on models from 4.5 on (https://platform.claude.com/docs/en/
# build-with-claude/claude-on-vertex-ai, "Global vs regional endpoints").
_BEFORE_REGIONAL: Final = (
    "claude-v1", "claude-2", "claude-3", "claude-4-", "claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-20",
    "claude-sonnet-4-0", "claude-sonnet-4-20",
)  # fmt: skip
_BEFORE_GEO: Final = (*_BEFORE_REGIONAL, "claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5")
_NO_GEO: Final = (None, "global", "not_available")

_MTOK: Final = 1_000_000
# Sums of tokens times rates stand in tenths of a nano-USD per million tokens, until they are divided, once.
_SCALE: Final = _MTOK * _PLAIN_TENTHS

# Ids come from callers: a table never grows past this, and longer ids have no price.
_MOST_ROWS: Final = 1024
_LONGEST_ID: Final = 256

_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of a model: nano-USD per million tokens ($1 is 1_000_000_000), and per web search.

    Where the prompt (fresh, written to the cache and read from it) has more than `step_above` tokens, `stepped`
    holds instead, for every token of the call. ConfigurationError for numbers below 0 and for half a step.
    """

    input: int
    output: int
    cache_write_5m: int
    cache_write_1h: int
    cache_read: int
    web_search: int = 0
    step_above: int | None = None
    stepped: Rates | None = None

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name != "stepped"):
            value = getattr(self, name)
            if value is None and name == "step_above":
                continue
            if type(value) is not int or value < 0:
                raise ConfigurationError(f"Rates({name}={value!r:.40}): write nano-USD as an int of at least 0")
        if (self.step_above is None) != (self.stepped is None):
            raise ConfigurationError("Rates: `step_above` and `stepped` belong together; give both or neither")


class _Level(NamedTuple):
    """The most that is asked for prompts of up to `step` tokens (None: of any length), in `_SCALE`-ths of nano-USD."""

    step: int | None
    input: Mapping[str | None, int]
    """For a token of the prompt, by how long the request asks to have it cached."""
    output: int
    search: int


class _Row(NamedTuple):
    """What the table holds for one (model, terms): rates, and what geography and caching make of them."""

    rates: Rates
    tenths: int
    """11 where the call ran in the US, else 10."""
    window: int
    levels: tuple[_Level, ...]
    """The worst case: it may run in the US, and all of its prompt may be written to the cache."""


class _Table(NamedTuple):
    """Rows that are valid on one day, for one state of the price list."""

    day: date
    snapshot: DataSnapshot
    rows: dict[tuple[str, Terms], _Row | None]


def _utc_today() -> date:
    return _day(int(clock() // 86_400))


@lru_cache(maxsize=2)
def _day(number: int) -> date:
    """A day in UTC, by how many passed since the epoch: making a date on every call costs more than the price."""
    return _EPOCH + timedelta(days=number)


class PriceBook:
    """List prices, with `overrides` by model id (the standard price; a batch is then half of it).

    `today` is the day (UTC) whose prices hold. Ids are matched as `genai-prices` does it: dated ids, aliases, upper
    case; those of Bedrock and Vertex as well. An update that the app made with `genai_prices.UpdatePrices` is used.

    A price that does not exist is None, and never a neighbouring one: a model nobody knows, fast mode on a model that
    has none. To a budget such a call has no bound. Safe to share between threads.

    Raises ConfigurationError for overrides that cannot be.
    """

    def __init__(self, overrides: Mapping[str, Rates] | None = None, *, today: Callable[[], date] = _utc_today) -> None:
        self._overrides = dict(overrides or {})
        for model, rates in self._overrides.items():
            if not isinstance(rates, Rates):
                raise ConfigurationError(f"the price of {model!r:.80} must be Rates(…), not {type(rates).__name__}")
        self._today = today
        self._table: _Table | None = None
        self._snapshot: Callable[[], DataSnapshot] | None = None

    def rates(self, model: str, terms: Terms = STANDARD) -> Rates | None:
        """The rates of `model`, before what geography makes of them; None where there is no price."""
        row = self._row(model, terms)
        return None if row is None else row.rates

    def list_output_price(self, model: str) -> int | None:
        """The standard output rate, for ranking ids that are on no rung; None where there is no price."""
        row = self._row(model, STANDARD)
        return None if row is None else row.rates.output

    def cost(self, model: str, usage: Usage, terms: Terms = STANDARD) -> int | None:
        """What `usage` costs in nano-USD, rounded up once; None where there is no price.

        `terms.geo` is where the call ran, as its answer says; None counts as not in the US.
        """
        row = self._row(model, terms)
        return None if row is None else _cost(row, usage)

    def costs(self, models: Iterable[str], usage: Usage, terms: Terms = STANDARD) -> list[int | None]:
        """The same of several models, in their order."""
        table = self._now()
        rows = [self._row(model, terms, table) for model in models]
        return [None if row is None else _cost(row, usage) for row in rows]

    def worst(
        self,
        model: str,
        *,
        input_tokens: int,
        output_tokens: int,
        web_searches: int = 0,
        cache_ttl: Literal["5m", "1h"] | None = None,
        terms: Terms = STANDARD,
    ) -> int | None:
        """The most that a call within these bounds can cost in nano-USD; None where there is no price.

        `input_tokens` bounds the whole prompt. Each token of it may be written to the cache where the request asks
        for that (`cache_ttl`, the longest one in it). `terms.geo` is what the request asks for: where it does not
        say, the workspace may send it to the US, so only "global" is spared that price.
        """
        found = self.bounds(
            model, input_tokens, output_tokens, web_searches=web_searches, cache_ttl=cache_ttl, terms=terms
        )
        return None if found is None else found[1]

    def bounds(
        self,
        model: str,
        input_tokens: int,
        output_tokens: int,
        *,
        web_searches: int,
        cache_ttl: Literal["5m", "1h"] | None,
        terms: Terms,
    ) -> tuple[int, int] | None:
        """The most that the prompt alone can cost, and what `worst` says of the whole call."""
        row = self._row(model, terms)
        if row is None:
            return None
        return _bounds(row, input_tokens, output_tokens, web_searches, cache_ttl)

    def offer(self, call: Call, model: str, max_tokens: int | None) -> Offer:
        """The offer of a model with its worst case; its cost is None where there is no bound, with the reason."""
        row = self._row(model, call.terms)
        if row is None:
            return Offer("", model, None, 0, NO_PRICE, max_tokens)
        prompt = call.input_bound
        if prompt is None or prompt > row.window:
            prompt = row.window
        entry, most = _bounds(row, prompt * call.rounds, max_tokens or 0, call.web_searches, call.cache_ttl)
        if call.unbounded or max_tokens is None:
            return Offer("", model, None, entry, call.unbounded, max_tokens)
        for place, other in enumerate(call.fallbacks):
            # Each of them may be asked, and all of them may be billed.
            fast = call.terms.fast if other.fast is None else other.fast
            alone = call._replace(fallbacks=(), terms=call.terms._replace(fast=fast))
            further = self.offer(alone, other.model, other.max_tokens or max_tokens)
            if further.cost is None:
                return Offer("", model, None, entry, f"fallback {place + 1}: {further.unbounded}", max_tokens)
            most += further.cost
        return Offer("", model, most, entry, "", max_tokens)

    def _now(self) -> _Table:
        """The table of today."""
        if self._snapshot is None:
            # 190 ms: paid with the first price, and not by `import tierline`.
            from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415

            self._snapshot = get_snapshot
        table, day, snapshot = self._table, self._today(), self._snapshot()
        if table is None or table.day != day or table.snapshot is not snapshot:
            # Swapped whole, so that a thread never writes an old price into a new day.
            self._table = table = _Table(day, snapshot, {})
        return table

    def _row(self, model: str, terms: Terms, table: _Table | None = None) -> _Row | None:
        table = table or self._now()
        key = (model, terms)
        try:
            return table.rows[key]
        except KeyError:
            row = self._compile(model, terms, table)
        if len(table.rows) >= _MOST_ROWS:
            table.rows.clear()
        table.rows[key] = row
        return row

    def _compile(self, model: str, terms: Terms, table: _Table) -> _Row | None:
        if len(model) > _LONGEST_ID or (terms.batch and terms.fast):  # batches take no `speed`
            return None
        provider, info = _find(table.snapshot, model)
        override = self._overrides.get(model)
        if override is None and info is not None:
            override = self._overrides.get(info.id)
        if override is not None:
            rates = None if terms.fast else _half(override) if terms.batch else override
        else:
            rates = None if info is None else _list_rates(info, terms, table.day)
        if rates is None:
            return None
        # The ids of Bedrock say themselves where a call runs, and their prices have it in.
        name = model if info is None else info.id
        before = _BEFORE_REGIONAL if terms.geo == REGIONAL else _BEFORE_GEO
        dearer = provider != "aws" and not name.startswith(before)
        facts = model_of(model)
        return _Row(
            rates,
            tenths=_GEO_TENTHS if dearer and terms.geo not in _NO_GEO else _PLAIN_TENTHS,
            window=facts.window if facts is not None else LARGEST_WINDOW,
            levels=tuple(_levels(rates, _GEO_TENTHS if dearer and terms.geo != "global" else _PLAIN_TENTHS)),
        )


def _levels(rates: Rates | None, tenths: int) -> Iterator[_Level]:
    """The worst case of a model's rates, from its first tokens on."""
    while rates is not None:
        fresh = max(rates.input, rates.cache_read)
        short = max(fresh, rates.cache_write_5m)
        most = {None: fresh, "5m": short, "1h": max(short, rates.cache_write_1h)}
        yield _Level(
            rates.step_above,
            {cached: each * tenths for cached, each in most.items()},
            rates.output * tenths,
            rates.web_search * _SCALE,
        )
        rates = rates.stepped


def _cost(row: _Row, usage: Usage) -> int:
    rates = row.rates
    while rates.stepped is not None and rates.step_above is not None and usage.prompt_tokens > rates.step_above:
        rates = rates.stepped
    tokens = usage.input_tokens * rates.input + usage.output_tokens * rates.output
    if usage.cache_read or usage.cache_write_5m or usage.cache_write_1h:
        tokens += (
            usage.cache_write_5m * rates.cache_write_5m
            + usage.cache_write_1h * rates.cache_write_1h
            + usage.cache_read * rates.cache_read
        )
    most = tokens * row.tenths
    if usage.web_searches:
        most += usage.web_searches * rates.web_search * _SCALE
    return -(-most // _SCALE)


def _bounds(
    row: _Row, input_tokens: int, output_tokens: int, web_searches: int, cache_ttl: Literal["5m", "1h"] | None
) -> tuple[int, int]:
    entry = most = 0
    for step, rates, output, search in row.levels:
        over = step is not None and input_tokens > step
        fresh = (step if over and step is not None else input_tokens) * rates[cache_ttl]
        # Both sides of a step count: nothing says that the far side is the dearer one.
        entry = max(entry, fresh)
        most = max(most, fresh + output_tokens * output + web_searches * search)
        if not over:
            break
    return -(-entry // _SCALE), -(-most // _SCALE)


def _find(snapshot: DataSnapshot, model: str) -> tuple[str, ModelInfo | None]:
    model, providers = model.lower(), _PROVIDERS
    if "anthropic." in model:
        # Others would match the end of an id of Bedrock, and give it their price. Any place but `global` is a region,
        # and all regions cost the same; the list names some of them.
        model, providers = resource(model), ("aws",)
        if not model.startswith("global."):
            model = model[model.find("anthropic.") :]
    # Not through the snapshot's own lookup: it remembers every id that it is asked for, without bound.
    for wanted in providers:
        for provider in snapshot.providers:
            if provider.id == wanted and (info := provider.find_model(model)) is not None:
                return wanted, info
    return "", None


def _list_rates(info: ModelInfo, terms: Terms, day: date) -> Rates | None:
    context = {"processing": "batch"} if terms.batch else {"speed": "fast"} if terms.fast else None
    # Prices change at midnight UTC; no Claude model has one that changes within the day.
    at = datetime.combine(day, time(), UTC)
    if context is not None and not any(
        variant.when == context and (variant.constraint is None or variant.constraint.active(at))
        for variant in info.price_variants or ()
    ):
        # Without this, genai-prices would answer with the standard price.
        return None
    prices = info.get_prices(at, context)
    if prices.input_mtok is None or prices.output_mtok is None:
        return None
    steps = {tier.start for value in vars(prices).values() for tier in getattr(value, "tiers", ())}
    rates: Rates | None = None
    above: int | None = None
    # From the highest step down: each level carries the one above it.
    for start in sorted(steps, reverse=True):
        rates, above = _level(prices, start, above, rates), start
    return _level(prices, None, above, rates)


def _level(prices: ModelPrice, start: int | None, step_above: int | None, stepped: Rates | None) -> Rates:
    """The rates for prompts of more than `start` tokens (None: of any length)."""
    fresh = _at(prices.input_mtok, start)
    # A kind of token without a price of its own costs as much as what it is a kind of, as in genai-prices.
    written = _at(prices.cache_write_mtok, start, fresh)
    return Rates(
        input=_nano(fresh),
        output=_nano(_at(prices.output_mtok, start)),
        cache_write_5m=_nano(_at(prices.cache_write_5m_mtok, start, written)),
        cache_write_1h=_nano(_at(prices.cache_write_1h_mtok, start, written)),
        cache_read=_nano(_at(prices.cache_read_mtok, start, fresh)),
        web_search=_nano(_at(prices.web_searches_kcount, start) / 1000),
        step_above=step_above,
        stepped=stepped,
    )


def _at(price: Any, start: int | None, otherwise: Decimal = Decimal(0)) -> Decimal:
    """A price of genai-prices (flat, by prompt length, or absent) beyond a step."""
    if price is None:
        return otherwise
    tiers: Iterable[Any] = getattr(price, "tiers", ())
    found = price.base if hasattr(price, "base") else price
    for tier in tiers:  # ascending
        if start is not None and tier.start <= start:
            found = tier.price
    return Decimal(found)


def _nano(dollars: Decimal) -> int:
    return int((dollars * NANO).to_integral_value(ROUND_CEILING))


def _half(rates: Rates) -> Rates:
    """The batch price that goes with a standard price: half of it, but for web searches."""
    return Rates(
        input=-(-rates.input // 2),
        output=-(-rates.output // 2),
        cache_write_5m=-(-rates.cache_write_5m // 2),
        cache_write_1h=-(-rates.cache_write_1h // 2),
        cache_read=-(-rates.cache_read // 2),
        web_search=rates.web_search,
        step_above=rates.step_above,
        stepped=None if rates.stepped is None else _half(rates.stepped),
    )
