"""A scripted upstream, clocks and books, for tests of attempts and of their dispatch."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tierline import Budget, Ladder, Policy
from tierline.attempts import Books, OpenAttempt, Reply, Timing
from tierline.binding import Binding
from tierline.call import read_call
from tierline.dispatch import Dispatch
from tierline.health import Health
from tierline.ledger import MemoryLedger
from tierline.legality import AS_IT_IS
from tierline.plan import admit, plan
from tierline.policies import combine
from tierline.prices import PriceBook, Rates
from tierline.telemetry import CallTrace, tracer_of
from tierline.usage import Metered
from tierline.values import Classification, Offer, Terms, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.budgets import Line
    from tierline.ledger import Balance

# One nano-USD for a token of input, ten for one of output, times the tier.
LADDER = Ladder.of(a="claude-haiku-4-5", b="claude-opus-4-8", c="my-c")
EACH = {"claude-haiku-4-5": 1, "claude-opus-4-8": 2, "my-c": 4}


def rates(n: int) -> Rates:
    million = 1_000_000 * n
    return Rates(
        input=million, output=10 * million, cache_write_5m=million, cache_write_1h=million, cache_read=million,
        web_search=0,
    )  # fmt: skip


PRICES = PriceBook({model: rates(n) for model, n in EACH.items()})
INPUT, OUTPUT = 100, 1_000
WORST = INPUT + 10 * OUTPUT
USAGE = Usage(50, 7)
TERMS = Terms(geo="global")


def worst(_call: Any, model: str, limit: int | None) -> Offer:
    n = EACH[model]
    return Offer("", model, n * (INPUT + 10 * (limit or 0)), n * INPUT, "", limit)


def ok(usage: Usage | None = USAGE) -> Reply:
    return Reply("answer", status=200, metered=Metered(usage, TERMS) if usage else None)


def refused(status: int, error: str, after: float | None = None, **more: Any) -> Reply:
    """An error of the API, as the seam reads it."""
    again = status in (408, 409, 429) or status >= 500
    return Reply(
        f"error {status}", status=status, error=error, retry=again, elsewhere=status == 429 or status >= 500,
        retry_after=after, down=status >= 500, **more,
    )  # fmt: skip


def busy(after: float | None = None, **more: Any) -> Reply:
    return refused(529, "overloaded_error", after, **more)


def silent(*, sent: bool) -> Reply:
    return Reply(exception=ConnectionError(), error="connection_error", retry=True, down=True, sent=sent)


class Slow(MemoryLedger):
    """A ledger whose answers take a turn of the loop, as those over a network do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.instant = False
        self.settled: list[tuple[str, int]] = []

    async def settle(self, reservation: Any, cost: int, *, estimated: bool = False) -> bool:
        await asyncio.sleep(0)
        self.settled.append((reservation.id, cost))
        return await super().settle(reservation, cost, estimated=estimated)


class World:
    """A script for the upstream, the clocks, and the books."""

    def __init__(self, *script: Any, retries: int = 2, limit: str = "$1", ledger: MemoryLedger | None = None) -> None:
        self.script = list(script)
        self.retries = retries
        self.client = None
        self.bodies: list[dict[str, Any]] = []
        self.numbers: list[int] = []
        self.waits: list[float] = []
        self.share = 1.0
        self.while_waiting: Callable[[], Any] = lambda: None
        self.ledger = ledger or MemoryLedger(clock=lambda: 0.0)
        self.timing = Timing(now=lambda: 0.0, perf=lambda: 0.0, sleep=self.sleep, jitter=lambda: self.share)
        self.books = Books(self.ledger, PRICES, self.timing)
        self.health = Health(self.timing)
        self.endpoint = "here"
        self.patience = 600.0
        self.left: list[float | None] = []
        self.lines: tuple[Line, ...] = (Budget(limit).line("global"),)
        self.binding = Binding(self)

    @property
    def claude(self) -> Any:
        return None

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        found = self.while_waiting()
        if asyncio.iscoroutine(found):
            await found
        await asyncio.sleep(0)

    def withheld(self, status: int, error: str, message: str, wait: float) -> Reply:
        return Reply(
            exception=ConnectionError(message), status=status, error="breaker_open", elsewhere=True, retry_after=wait,
            sent=False,
        )  # fmt: skip

    async def send(self, body: dict[str, Any], number: int, left: float | None = None) -> Reply:
        self.bodies.append(body)
        self.left.append(left)
        self.numbers.append(number)
        step = self.script.pop(0)
        if callable(step):
            step = step()
            if asyncio.iscoroutine(step):
                step = await step
        if isinstance(step, BaseException):
            raise step
        assert isinstance(step, Reply)
        return step

    def dispatch(self, label: str = "complex", model: str = "auto", **policy: Any) -> Dispatch:
        said = [{"role": "user", "content": "hi"}]
        call = read_call("create", {"model": model, "max_tokens": OUTPUT, "messages": said})
        assert call is not None
        request = admit(call, combine([Policy(**policy)], LADDER), LADDER, EACH.get)
        opinion = Classification(label, 1.0, "keyword")
        found = plan(call, request, opinion, LADDER, sure=0.5, fit=lambda *_: AS_IT_IS, worst=worst)
        return Dispatch(
            call=call, plan=found, binding=self.binding, lines=self.lines, upstream=self, books=self.books,
            health=self.health, trace=CallTrace(tracer_of(None)), key="k",
        )  # fmt: skip

    async def balance(self) -> Balance:
        (found,) = await self.ledger.balances() or [None]
        assert found is not None
        return found

    async def open(self, *, thinks: bool = False) -> OpenAttempt:
        """An attempt of tier a in flight."""
        offer = Offer("a", "claude-haiku-4-5", INPUT + 10 * OUTPUT, INPUT)
        held = await self.ledger.reserve("k", [offer], self.lines)
        return OpenAttempt(
            self.books, self.binding, held, role="first", number=1, terms=TERMS, thinks=thinks, span=None  # type: ignore[arg-type]
        )  # fmt: skip


def tiers(world: World) -> list[str]:
    names = {tier.model: tier.name for tier in LADDER}
    return [names[body["model"]] for body in world.bodies]
